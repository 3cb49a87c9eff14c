#include "fs/space.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "fs/attr.h"
#include "fs/handlers.h"
#include "fs/wait.h"

#define FRESH_NS    NS_PER_S
#define PATIENCE_NS (200 * NS_PER_MS)

struct space {
    /* set at creation */
    struct spaces *spaces;
    struct datastore *datastore;
    struct work work;
    /* under the mutex */
    struct statvfs st;
    bool known, asked;
    uint64_t when, asked_at;
    struct list waiting;
};

struct spaces {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    unsigned count, under_way;
    struct space each[];
};

static void ask(struct work *work)
{
    struct space *space = container_of(work, struct space, work);
    struct datastore *datastore = space->datastore;
    struct statvfs st;
    int error = atomic_load(&datastore->away) ? -EIO : datastore->ops->statfs(datastore, &st);
    pthread_mutex_lock(&space->spaces->mutex);
    if (!error) {
        space->st = st;
        space->known = true;
    }
    space->when = clock_now();
    space->asked = false;
    wait_wake(&space->waiting, error);
    space->spaces->under_way--;
    pthread_cond_broadcast(&space->spaces->ended);
    pthread_mutex_unlock(&space->spaces->mutex);
}

/* The mutex is held. */
static void refresh(struct space *space)
{
    if (space->asked || (space->when && clock_now() - space->when < FRESH_NS))
        return;
    space->asked = true;
    space->asked_at = clock_now();
    space->spaces->under_way++;
    pool_run(space->datastore->pool, &space->work);
}

int spaces_new(struct spaces **out, struct catalog *catalog)
{
    unsigned count = catalog_datastore_count(catalog);
    struct spaces *spaces = calloc(1, sizeof(*spaces) + count * sizeof(struct space));
    if (!spaces)
        return -ENOMEM;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&spaces->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&spaces->mutex, NULL);
    spaces->count = count;
    pthread_mutex_lock(&spaces->mutex);
    for (unsigned i = 0; i < count; i++) {
        struct space *space = &spaces->each[i];
        space->spaces = spaces;
        space->datastore = catalog_datastore(catalog, i);
        space->work.run = ask;
        list_init(&space->waiting);
        refresh(space);
    }
    pthread_mutex_unlock(&spaces->mutex);
    *out = spaces;
    return 0;
}

void spaces_free(struct spaces *spaces, uint64_t timeout_ns)
{
    if (!spaces)
        return;
    uint64_t end = clock_now() + timeout_ns;
    struct timespec until = {(time_t)(end / NS_PER_S), (long)(end % NS_PER_S)};
    pthread_mutex_lock(&spaces->mutex);
    while (spaces->under_way && pthread_cond_timedwait(&spaces->ended, &spaces->mutex, &until) == 0)
        ;
    bool idle = spaces->under_way == 0;
    pthread_mutex_unlock(&spaces->mutex);
    if (!idle)
        return; /* a datastore hangs with a thread in this memory */
    pthread_cond_destroy(&spaces->ended);
    pthread_mutex_destroy(&spaces->mutex);
    free(spaces);
}

/* Two datastores on one filesystem have its room once. */
static bool seen_before(const struct spaces *spaces, unsigned index)
{
    const struct statvfs *st = &spaces->each[index].st;
    for (unsigned i = 0; i < index && st->f_fsid; i++) {
        const struct statvfs *other = &spaces->each[i].st;
        if (spaces->each[i].known && other->f_fsid == st->f_fsid && other->f_blocks == st->f_blocks)
            return true;
    }
    return false;
}

/* The mutex is held. Sums what is known; the first that never answered is given back, if there is one. */
static struct space *sum(struct spaces *spaces, unsigned first, unsigned last, struct fuse_statfs_out *out)
{
    struct space *unknown = NULL;
    memset(out, 0, sizeof(*out));
    out->st.bsize = out->st.frsize = ATTR_BLOCK;
    out->st.namelen = ATTR_NAME_MAX;
    for (unsigned i = first; i < last; i++) {
        struct space *space = &spaces->each[i];
        refresh(space);
        if (!space->known && space->asked && !unknown && clock_now() - space->asked_at < PATIENCE_NS)
            unknown = space;
        if (space->known && (last - first == 1 || !seen_before(spaces, i)))
            attr_add_space(&out->st, &space->st);
    }
    return unknown;
}

static void answer(struct request *request, int patience_left);

static void woken(struct request *request, int result)
{
    answer(request, result != -ETIMEDOUT);
}

static void answer(struct request *request, int patience_left)
{
    struct spaces *spaces = request->fs->handlers->spaces;
    bool whole = request->in->nodeid == NODE_ROOT;
    unsigned first = whole ? 0 : (unsigned)request->aux[0], last = whole ? spaces->count : first + 1;
    struct fuse_statfs_out out;
    pthread_mutex_lock(&spaces->mutex);
    struct space *unknown = sum(spaces, first, last, &out);
    bool waits = unknown && patience_left &&
                 wait_add(&unknown->waiting, &spaces->mutex, request, PATIENCE_NS, woken) == 0;
    pthread_mutex_unlock(&spaces->mutex);
    if (waits)
        return;
    struct iovec iov = {&out, sizeof(out)};
    request_reply_iov(request, &iov, 1, sizeof(out));
}

void handle_statfs(struct request *request)
{
    struct node node;
    if (request->in->nodeid != NODE_ROOT) {
        int error = catalog_get(request->fs->catalog, request->in->nodeid, &node);
        if (error) {
            request_reply(request, error);
            return;
        }
        request->aux[0] = node.datastore;
    }
    answer(request, true);
}
