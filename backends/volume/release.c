/* The releaser: extents on their way from a file to the free ones.
 *
 * freed in memory → the commit that tells of it is durable → reads and writes that knew the old place have ended → the raw
 * image was told to forget them (discard) → free. Each step is a way of showing one file's bytes to another when left
 * out. A discard that failed, or a write that failed before, may still land: then the raw image's fence is asked first.
 */
#include <stdlib.h>
#include <string.h>

#include "backends/volume/inside.h"
#include "base/log.h"

#define DISCARD_MAX (1ull << 30)

static struct volume *volume_of(struct releaser *releaser)
{
    return container_of(releaser, struct volume, releaser);
}

static void next(struct volume *volume);

/* ---- transfers ---- */

unsigned transfer_enter(struct volume *volume)
{
    struct releaser *releaser = &volume->releaser;
    releaser->transfers[releaser->epoch]++;
    return releaser->epoch;
}

void transfer_leave(struct volume *volume, unsigned epoch)
{
    struct releaser *releaser = &volume->releaser;
    if (--releaser->transfers[epoch] > 0 || epoch == releaser->epoch || !releaser->draining)
        return;
    releaser->draining = false;
    reactor_post(volume->carrier.reactor, &releaser->task);
}

/* ---- freed ---- */

void release_extents(struct volume *volume, const struct volume_node *node, uint32_t start, uint32_t count)
{
    struct releaser *releaser = &volume->releaser;
    uint64_t commit = node->unlinked ? node->change : volume->tree.commit;
    struct freed *last = releaser->pending_count ? &releaser->pending[releaser->pending_count - 1] : NULL;
    if (last && last->commit == commit && last->start + last->count == start) {
        last->count += count;
        releaser->extents += count;
        return;
    }
    if (releaser->pending_count == releaser->pending_room) {
        uint32_t room = releaser->pending_room ? releaser->pending_room * 2 : 16;
        struct freed *pending = realloc(releaser->pending, room * sizeof(*pending));
        if (!pending) {
            log_warning("datastore %s: no memory: %u MiB are free only when it is opened again", volume->name, count);
            return;
        }
        releaser->pending = pending;
        releaser->pending_room = room;
    }
    releaser->pending[releaser->pending_count++] = (struct freed){start, count, commit};
    releaser->extents += count;
}

static int by_start(const void *a, const void *b)
{
    const struct freed *left = a, *right = b;
    return left->start < right->start ? -1 : left->start > right->start;
}

void release_ready(struct volume *volume)
{
    struct releaser *releaser = &volume->releaser;
    uint32_t kept = 0, count = 0;
    if (releaser->busy || releaser->pending_count == 0)
        return;
    struct freed *batch = malloc(releaser->pending_count * sizeof(*batch));
    if (!batch)
        return;
    for (uint32_t i = 0; i < releaser->pending_count; i++) {
        if (releaser->pending[i].commit <= volume->committer.durable)
            batch[count++] = releaser->pending[i];
        else
            releaser->pending[kept++] = releaser->pending[i];
    }
    releaser->pending_count = kept;
    if (count == 0) {
        free(batch);
        return;
    }
    qsort(batch, count, sizeof(*batch), by_start);
    releaser->batch_count = 1;
    for (uint32_t i = 1; i < count; i++) {
        struct freed *last = &batch[releaser->batch_count - 1];
        if (last->start + last->count == batch[i].start)
            last->count += batch[i].count;
        else
            batch[releaser->batch_count++] = batch[i];
    }
    releaser->batch = batch;
    releaser->busy = true;
    releaser->at = 0;
    releaser->done = 0;
    unsigned old = releaser->epoch;
    releaser->epoch ^= 1;
    releaser->draining = releaser->transfers[old] > 0;
    if (!releaser->draining)
        reactor_post(volume->carrier.reactor, &releaser->task);
}

/* ---- on the carrier's reactor ---- */

static void give(struct volume *volume)
{
    struct releaser *releaser = &volume->releaser;
    struct list hungry;
    list_init(&hungry);
    pthread_mutex_lock(&volume->mutex);
    for (uint32_t i = 0; i < releaser->batch_count; i++) {
        space_give(&volume->space, releaser->batch[i].start, releaser->batch[i].count);
        releaser->extents -= releaser->batch[i].count;
    }
    free(releaser->batch);
    releaser->batch = NULL;
    releaser->batch_count = 0;
    releaser->busy = false;
    list_splice(&hungry, &releaser->hungry);
    release_ready(volume);
    pthread_cond_broadcast(&volume->quiet);
    pthread_mutex_unlock(&volume->mutex);
    image_retry(&hungry);
}

/* On any thread. */
static void fenced(void *argument)
{
    struct volume *volume = argument;
    reactor_post(volume->carrier.reactor, &volume->releaser.task);
}

static void discarded(struct io *io)
{
    struct releaser *releaser = container_of(io, struct releaser, discard);
    struct volume *volume = volume_of(releaser);
    if (io->result < 0) {
        log_warning("datastore %s: giving space back to the device failed: %s", volume->name, error_text(io->result));
        pthread_mutex_lock(&volume->mutex);
        releaser->suspect = true;
        pthread_mutex_unlock(&volume->mutex);
    }
    next(volume);
}

static void next(struct volume *volume)
{
    struct releaser *releaser = &volume->releaser;
    struct image *image = volume->carrier.image;
    if (image->limits.can_punch && releaser->at < releaser->batch_count && !atomic_load(&volume->failed)) {
        const struct freed *freed = &releaser->batch[releaser->at];
        uint64_t start = (uint64_t)freed->start * VOLUME_EXTENT + releaser->done;
        uint64_t length = (uint64_t)freed->count * VOLUME_EXTENT - releaser->done;
        if (length > DISCARD_MAX)
            length = DISCARD_MAX;
        releaser->done += length;
        if (releaser->done == (uint64_t)freed->count * VOLUME_EXTENT) {
            releaser->at++;
            releaser->done = 0;
        }
        releaser->discard = (struct io){
            .verb = VERB_ZERO, .flags = IO_MAY_UNMAP, .extent = {start, start + length}, .done = discarded};
        image_submit(image, &releaser->discard);
        return;
    }
    pthread_mutex_lock(&volume->mutex);
    bool suspect = releaser->suspect;
    releaser->suspect = false;
    pthread_mutex_unlock(&volume->mutex);
    if (suspect) {
        releaser->at = releaser->batch_count; /* fenced comes here again */
        image_fence(image, fenced, volume);
        return;
    }
    give(volume);
}

static void go_on(struct task *task)
{
    next(volume_of(container_of(task, struct releaser, task)));
}

bool release_idle(const struct volume *volume)
{
    return !volume->releaser.busy;
}

void releaser_open(struct volume *volume)
{
    list_init(&volume->releaser.hungry);
    volume->releaser.task.run = go_on;
}

void releaser_close(struct volume *volume)
{
    free(volume->releaser.pending);
    free(volume->releaser.batch);
}
