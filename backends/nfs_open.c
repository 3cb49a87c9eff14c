/* Images on NFS from their opening to their end, and the list of the open ones. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nfs_image.h"
#include "base/clock.h"
#include "base/log.h"

#define MAX_TRANSFER (1u << 20)
#define BLOCK        4096

static void free_image(struct nfsds_image *image)
{
    unflushed_free(image->unflushed);
    fence_destroy(&image->fence);
    pthread_mutex_destroy(&image->lock.mutex);
    pthread_mutex_destroy(&image->mutex);
    pthread_cond_destroy(&image->idle);
    free(image);
}

static void remove_file(struct nfsds_image *image)
{
    struct nfsds_handle removed;
    struct nfs *nfs = image->nfs;
    if (nfsds_private_directory(nfs, NFS_REMOVED, false, &removed) == 0 &&
        nfsds_private_remove(nfs, &removed, image->removed) == 0)
        nfsds_sidecar_forget(nfs, image->uncommitted.fileid);
}

static void kick(void *argument)
{
    nfsds_flush_kick(argument);
}

/* False: the server has not answered for its timeout. */
static bool wait_idle(struct nfsds_image *image)
{
    uint64_t due = clock_now() + image->nfs->datastore->timeout_ns + image->nfs->quiet_ns;
    struct timespec until = {(time_t)(due / NS_PER_S), (long)(due % NS_PER_S)};
    pthread_mutex_lock(&image->mutex);
    while (image->busy > 0 && pthread_cond_clockwait(&image->idle, &image->mutex, CLOCK_MONOTONIC, &until) == 0)
        ;
    bool idle = image->busy == 0;
    pthread_mutex_unlock(&image->mutex);
    return idle;
}

/* Out of the list once nothing refers to it; false: something does. */
static bool leave_list(struct nfsds_image *image)
{
    pthread_mutex_lock(&image->nfs->mutex);
    pthread_mutex_lock(&image->mutex);
    bool idle = image->busy == 0;
    if (idle)
        list_remove(&image->link);
    pthread_mutex_unlock(&image->mutex);
    pthread_mutex_unlock(&image->nfs->mutex);
    return idle;
}

/* What was written stays written when the server dies: what is held for that goes with the image. It stays in the list
 * until its last ghost is gone: the file is not opened anew before. */
void nfsds_image_close(struct image *base)
{
    struct nfsds_image *image = container_of(base, struct nfsds_image, image);
    struct nfs *nfs = image->nfs;
    pthread_mutex_lock(&nfs->mutex);
    image->closing = true;
    bool removed = image->removed[0] != '\0';
    pthread_mutex_unlock(&nfs->mutex);
    if (!removed && unflushed_bytes(image->unflushed) > 0 && !atomic_load(&nfs->unreachable))
        reactor_call(nfs->names, kick, image);
    do {
        if (!wait_idle(image)) {
            log_warning("datastore %s: an image is closed while the NFS server does not answer", nfs->datastore->name);
            return; /* what is still out refers to it */
        }
    } while (!leave_list(image));
    if (image->removed[0])
        remove_file(image);
    nfsds_uncommitted_end(&nfs->verifier, &image->uncommitted, image->removed[0] != '\0');
    free_image(image);
}

static bool is_closing(struct nfs *nfs, uint64_t fileid)
{
    bool closing = false;
    pthread_mutex_lock(&nfs->mutex);
    list_for_each (link, &nfs->images) {
        struct nfsds_image *image = container_of(link, struct nfsds_image, link);
        pthread_mutex_lock(&image->mutex);
        closing = closing || (image->closing && image->busy > 0 && image->uncommitted.fileid == fileid);
        pthread_mutex_unlock(&image->mutex);
    }
    pthread_mutex_unlock(&nfs->mutex);
    return closing;
}

/* Ghosts of the image that was open before keep its bytes, and a new one would not know of them (law 6). */
static int await_closed(struct nfs *nfs, uint64_t fileid)
{
    uint64_t due = clock_now() + nfs->datastore->timeout_ns + nfs->quiet_ns;
    while (is_closing(nfs, fileid)) {
        if (clock_now() > due || atomic_load(&nfs->datastore->stopping))
            return -ETIMEDOUT;
        nanosleep(&(struct timespec){.tv_nsec = (long)(10 * NS_PER_MS)}, NULL);
    }
    return 0;
}

static void recommit(struct task *task)
{
    struct nfsds_image *image = container_of(task, struct nfsds_image, recommit);
    pthread_mutex_lock(&image->mutex);
    image->recommit_posted = false;
    pthread_mutex_unlock(&image->mutex);
    nfsds_flush_kick(image);
    nfsds_image_leave(image);
}

void nfsds_images_recommit(struct nfs *nfs)
{
    log_warning("datastore %s: the NFS server %s was started anew: what it had not made durable is written again",
        nfs->datastore->name, nfs->url.host);
    pthread_mutex_lock(&nfs->mutex);
    list_for_each (link, &nfs->images) {
        struct nfsds_image *image = container_of(link, struct nfsds_image, link);
        pthread_mutex_lock(&image->mutex);
        bool post = !image->recommit_posted && atomic_load(&image->uncommitted.any);
        image->recommit_posted = image->recommit_posted || post;
        image->busy += post;
        pthread_mutex_unlock(&image->mutex);
        if (post)
            reactor_post(nfs->names, &image->recommit);
    }
    pthread_mutex_unlock(&nfs->mutex);
}

bool nfsds_image_is_open(struct nfs *nfs, uint64_t fileid)
{
    bool open = false;
    pthread_mutex_lock(&nfs->mutex);
    list_for_each (link, &nfs->images)
        open = open || container_of(link, struct nfsds_image, link)->uncommitted.fileid == fileid;
    pthread_mutex_unlock(&nfs->mutex);
    return open;
}

/* The last one that is closed removes the file. */
void nfsds_image_removed(struct nfs *nfs, uint64_t fileid, const char *name)
{
    pthread_mutex_lock(&nfs->mutex);
    list_for_each (link, &nfs->images) {
        struct nfsds_image *image = container_of(link, struct nfsds_image, link);
        if (image->uncommitted.fileid == fileid) {
            strncpy(image->removed, name, sizeof(image->removed) - 1);
            break;
        }
    }
    pthread_mutex_unlock(&nfs->mutex);
}

int nfsds_open_image(struct datastore *datastore, const char *path, bool writable, struct image **out)
{
    struct nfs *nfs = datastore->state;
    struct nfsds_object object;
    int error = nfs ? nfsds_walk(nfs, path, &object) : -EIO;
    if (!error && !S_ISREG(object.st.st_mode))
        error = S_ISDIR(object.st.st_mode) ? -EISDIR : -EINVAL;
    if (!error && writable)
        error = await_closed(nfs, object.st.st_ino);
    if (error)
        return error;
    struct nfsds_image *image = calloc(1, sizeof(*image));
    if (!image)
        return -ENOMEM;
    image->nfs = nfs;
    image->handle = object.handle;
    image->writable = writable;
    image->recommit.run = recommit;
    pthread_mutex_init(&image->mutex, NULL);
    pthread_cond_init(&image->idle, NULL);
    fence_init(&image->fence);
    region_lock_init(&image->lock, 1);
    nfsds_flush_init(image);
    if (unflushed_new(&image->unflushed, NFS_UNFLUSHED_BUDGET) != 0) {
        free_image(image);
        return -ENOMEM;
    }
    nfsds_uncommitted_init(&nfs->verifier, &image->uncommitted, object.st.st_ino);
    image->recommit_posted = atomic_load(&image->uncommitted.inherited);
    image->busy = image->recommit_posted;
    image->image.limits = (struct image_limits){.block = BLOCK, .max_transfer = MAX_TRANSFER};
    image_init(&image->image, &nfsds_image_ops, datastore, (uint64_t)object.st.st_size);
    pthread_mutex_lock(&nfs->mutex);
    list_append(&nfs->images, &image->link);
    pthread_mutex_unlock(&nfs->mutex);
    if (image->recommit_posted)
        reactor_post(nfs->names, &image->recommit);
    *out = &image->image;
    return 0;
}
