/* iscsi: a LUN as one raw image, through libiscsi.
 *
 * Idea: each reactor that uses the LUN has a session of its own with the target (iscsi_session.c), on its own epoll set;
 * an io becomes commands within the target's limits (iscsi_transfer.c), and it ends when all of them are answered. A
 * session that does not answer is given up and logged in again with the same ISID, which ends what the target still had
 * of it (iscsi_link.c); then the same bytes are sent again. So no io ever ends while one of its commands could still
 * land, and a fence waits for nothing but the ios that are in flight.
 *
 * What a target has in a write cache that it may lose is kept until it is flushed, and written again when the target
 * says that it was reset (iscsi_cache.c, iscsi_io.c).
 *
 * A worker that was killed leaves sessions and commands at the target. open logs in once as each session that a worker
 * of this mount can have had; that ends them, before anything is read. Both rest on the target's ending the tasks of a
 * session when it answers the next login; LUN_QUIET_NS is for targets that do so a little later.
 *
 * What is not done: several portals of one target at once (a redirection is followed), data digests (libiscsi 1.19 has
 * none), what a worker that was killed had not flushed when the target loses its cache at the same time (the disk's
 * owner flushes again after an error, as after a power cut of a local disk). docs/ISCSI.md tells it for users. */
#include <stdlib.h>
#include <string.h>

#include "backends/backends.h"
#include "backends/iscsi_image.h"
#include "base/clock.h"
#include "base/log.h"

#define PATIENCE_LEAST_NS (1 * NS_PER_S)
#define PATIENCE_MOST_NS  (10 * NS_PER_S)
#define OPEN_LEAST_NS     (2 * NS_PER_S)
#define MAX_TRANSFER      (1u << 20)

static uint64_t deadline(const struct datastore *datastore)
{
    uint64_t most = datastore->timeout_ns;
    return clock_now() + (most > OPEN_LEAST_NS ? most : OPEN_LEAST_NS);
}

int lun_image_talk(struct lun_image *image, struct lun_talk *talk, struct sentence *why)
{
    pthread_mutex_lock(&image->talking);
    int error = lun_talk_open(talk, &image->account, LUN_SESSION_TALK, deadline(image->image.datastore), why);
    if (error)
        pthread_mutex_unlock(&image->talking);
    return error;
}

/* Its login may have told of a reset before the other sessions' do. */
void lun_image_hang_up(struct lun_image *image, struct lun_talk *talk)
{
    lun_talk_close(talk);
    pthread_mutex_unlock(&image->talking);
}

/* Every session that an earlier process of this mount can have had. */
static int end_ghosts(struct lun_image *image, uint64_t end, struct sentence *why)
{
    struct lun_talk talk;
    int error = 0;
    for (unsigned number = 0; !error && number < REACTORS_MAX; number++) {
        error = lun_talk_open(&talk, &image->account, number, end, why);
        if (!error)
            lun_talk_close(&talk);
    }
    /* see LUN_QUIET_NS; a mount's first worker comes long after what was before it */
    if (!error && image->image.datastore->identity.generation > 1)
        nanosleep(&(struct timespec){.tv_nsec = LUN_QUIET_NS}, NULL);
    return error;
}

static void set_limits(struct lun_image *image)
{
    const struct lun *lun = &image->lun;
    image->image.limits = (struct image_limits){.block = lun->block,
        .max_transfer = MAX_TRANSFER,
        .can_zero = lun->same,
        .can_punch = lun->unmap,
        .can_map = lun->map};
}

static int inquire(struct lun_image *image, uint64_t end, struct sentence *why)
{
    const struct lun_account *account = &image->account;
    struct lun_talk talk;
    int error = lun_talk_open(&talk, account, LUN_SESSION_TALK, end, why);
    if (error)
        return error;
    error = lun_inquire(&image->lun, &talk, why);
    lun_talk_close(&talk);
    if (!error && image->writable && image->lun.read_only)
        return refuse(why, -EROFS,
            "datastore %s: LUN %u of %s is read-only; make it writable at the target, or open it for reading only",
            account->name, account->url.lun, account->url.target);
    return error;
}

static void free_image(struct lun_image *image)
{
    lun_cache_destroy(&image->cache);
    fence_destroy(&image->fence);
    pthread_mutex_destroy(&image->mutex);
    pthread_mutex_destroy(&image->talking);
    pthread_cond_destroy(&image->closed);
    lun_account_wipe(&image->account);
    free(image->forced);
    free(image);
}

static void close_image(struct image *base)
{
    struct lun_image *image = lun_image_of(base);
    for (unsigned i = 0; i < REACTORS_MAX; i++) {
        if (image->sessions[i])
            lun_session_close(image->sessions[i]);
    }
    free_image(image);
}

static void fence(struct image *base, void (*fenced)(void *argument), void *argument)
{
    fence_wait(&lun_image_of(base)->fence, base->datastore->pool, fenced, argument);
}

static const struct image_ops ops = {.submit = lun_image_submit, .fence = fence, .close = close_image};

static int new_image(struct lun_image **out, struct datastore *datastore, bool writable)
{
    struct lun_image *image = calloc(1, sizeof(*image));
    if (!image)
        return -ENOMEM;
    uint64_t patience = datastore->timeout_ns / 3;
    patience = patience > PATIENCE_LEAST_NS ? patience : PATIENCE_LEAST_NS;
    image->patience_ns = patience < PATIENCE_MOST_NS ? patience : PATIENCE_MOST_NS;
    image->writable = writable;
    image->image.datastore = datastore;
    fence_init(&image->fence);
    pthread_mutex_init(&image->mutex, NULL);
    pthread_mutex_init(&image->talking, NULL);
    pthread_cond_init(&image->closed, NULL);
    *out = image;
    return lun_cache_init(&image->cache, false);
}

static int open_image(
    struct datastore *datastore, const char *rest, bool writable, struct image **out, struct sentence *why)
{
    struct lun_image *image;
    int error = new_image(&image, datastore, writable);
    if (error)
        return refuse(why, error, "datastore %s: no memory", datastore->name);
    uint64_t end = deadline(datastore);
    error = lun_account_init(&image->account, datastore, rest, why);
    if (!error && writable && datastore->identity.mount)
        error = end_ghosts(image, end, why);
    if (!error)
        error = inquire(image, end, why);
    if (!error) {
        image_init(&image->image, &ops, datastore, image->lun.blocks * image->lun.block);
        set_limits(image);
        error = lun_forced_new(image);
    }
    if (!error && image->lun.cache && writable)
        error = unflushed_new(&image->cache.unflushed, LUN_CACHE_BUDGET);
    if (error) {
        free_image(image);
        return error;
    }
    *out = &image->image;
    return 0;
}

static int look(struct lun_image *image, struct sentence *why)
{
    struct lun_talk talk;
    struct lun now = image->lun;
    int error = lun_image_talk(image, &talk, why);
    if (error)
        return error;
    error = lun_capacity(&now, &talk, why);
    lun_image_hang_up(image, &talk);
    if (error)
        return error;
    uint64_t size = now.blocks * now.block, before = atomic_exchange(&image->image.size, size);
    if (before != size)
        log_info("datastore %s: LUN %u of %s has %llu bytes now", image->account.name, image->account.url.lun,
            image->account.url.target, (unsigned long long)size);
    return 0;
}

static int refresh(struct image *base)
{
    struct sentence why = {""};
    int error = look(lun_image_of(base), &why);
    if (error)
        log_warning("%s", why.text);
    return error;
}

/* The image's own reference keeps it while the pool looks. */
static void look_again(struct work *work)
{
    struct lun_image *image = container_of(work, struct lun_image, look);
    atomic_store(&image->looking, false);
    refresh(&image->image);
    image_put(&image->image);
}

void lun_image_look(struct lun_image *image)
{
    uint32_t references = atomic_load(&image->image.references);
    if (atomic_exchange(&image->looking, true))
        return;
    do {
        if (references == 0) /* it is being closed */
            return;
    } while (!atomic_compare_exchange_weak(&image->image.references, &references, references + 1));
    image->look.run = look_again;
    pool_run(image->image.datastore->pool, &image->look);
}

const struct raw_ops raw_iscsi = {
    .scheme = "iscsi", .open = open_image, .refresh = refresh, .reserve = lun_reserve, .release = lun_release};
