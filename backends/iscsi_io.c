/* An io on its way through a LUN: what is past the end, the fence, and law 10.
 *
 * With a write cache each change that the target answered is kept, with its bytes, until a SYNCHRONIZE CACHE that was
 * sent later is answered in the same life of the cache. What is kept is bounded: at half the budget a flush is sent
 * without anybody waiting for it, at the whole budget changes are answered only when one has ended. */
#include <stdlib.h>
#include <string.h>

#include "backends/iscsi_transfer.h"

/* In io.scratch. */
struct __attribute__((may_alias)) lun_io {
    struct lun_transfer transfer;
    uint64_t needs; /* held: the number of the forced flush that must have ended */
    uint8_t epoch;
};

_Static_assert(sizeof(struct lun_io) <= sizeof(((struct io *)NULL)->scratch), "io.scratch is too small");

struct lun_forced {
    struct lun_transfer transfer;
    struct lun_image *image;
    uint64_t number, mark;
};

static struct lun_io *request_of(struct io *io)
{
    return (struct lun_io *)io->scratch;
}

static struct io *io_of(struct lun_transfer *transfer)
{
    return container_of(transfer, struct io, scratch);
}

static void finish(struct io *io, int result)
{
    struct lun_image *image = lun_image_of(io->image);
    if (fence_counts(io->verb))
        fence_leave(&image->fence, request_of(io)->epoch);
    io_finish(io, result);
}

/* --- the budget --- */

static void force(struct lun_image *image, struct lun_session *session);

/* Flushed for good, or not in the same life as what was kept: then it is written again first. */
static bool settled(struct lun_image *image, struct lun_transfer *transfer, uint64_t mark)
{
    struct lun_cache *cache = &image->cache;
    if (atomic_load(&cache->stamp) == transfer->stamp && unflushed_settle(cache->unflushed, mark, transfer->stamp))
        return true;
    lun_cache_lose(cache, transfer->session, false);
    lun_session_wake(transfer->session);
    return false;
}

static void release_held(struct lun_image *image, struct list *free_now, uint64_t number)
{
    struct lun_cache *cache = &image->cache;
    list_for_each_safe (link, &cache->held) {
        struct io *io = container_of(link, struct io, link);
        if (request_of(io)->needs > number)
            continue;
        list_remove(link);
        list_append(free_now, link);
    }
}

static void forced(struct lun_transfer *transfer)
{
    struct lun_forced *forced_flush = container_of(transfer, struct lun_forced, transfer);
    struct lun_image *image = forced_flush->image;
    struct lun_cache *cache = &image->cache;
    struct lun_session *session = transfer->session;
    struct list free_now, *link;
    list_init(&free_now);
    int result = transfer->result;
    bool good = !result && settled(image, transfer, forced_flush->mark);
    pthread_mutex_lock(&cache->mutex);
    if (good || result)
        release_held(image, &free_now, forced_flush->number);
    cache->flushing = false;
    bool more = !list_empty(&cache->held);
    pthread_mutex_unlock(&cache->mutex);
    while ((link = list_pop(&free_now)))
        finish(container_of(link, struct io, link), result);
    if (more && !session->closing_asked)
        force(image, session);
}

static void force(struct lun_image *image, struct lun_session *session)
{
    struct lun_cache *cache = &image->cache;
    struct lun_forced *forced_flush = image->forced;
    pthread_mutex_lock(&cache->mutex);
    bool begin = !cache->flushing;
    if (begin) {
        cache->flushing = true;
        forced_flush->number = ++cache->flushes;
    }
    pthread_mutex_unlock(&cache->mutex);
    if (!begin)
        return;
    forced_flush->mark = unflushed_mark(cache->unflushed);
    forced_flush->transfer = (struct lun_transfer){.session = session, .done = forced, .verb = VERB_FLUSH};
    lun_transfer_start(&forced_flush->transfer);
}

int lun_forced_new(struct lun_image *image)
{
    image->forced = calloc(1, sizeof(*image->forced));
    if (!image->forced)
        return -ENOMEM;
    image->forced->image = image;
    return 0;
}

static void hold(struct lun_image *image, struct io *io)
{
    struct lun_cache *cache = &image->cache;
    pthread_mutex_lock(&cache->mutex);
    request_of(io)->needs = cache->flushes + 1;
    list_append(&cache->held, &io->link);
    pthread_mutex_unlock(&cache->mutex);
}

/* --- ends --- */

static void changed(struct lun_transfer *transfer)
{
    struct io *io = io_of(transfer);
    struct lun_image *image = lun_image_of(io->image);
    struct lun_session *session = transfer->session;
    struct unflushed *unflushed = image->cache.unflushed;
    if (transfer->result || !unflushed) {
        finish(io, transfer->result);
        return;
    }
    if (transfer->unkept && atomic_load(&image->cache.stamp) != transfer->stamp) {
        lun_transfer_start(transfer); /* nobody could write it again */
        return;
    }
    if (transfer->unkept || unflushed_full(unflushed)) {
        hold(image, io);
        force(image, session);
        return;
    }
    if (unflushed_bytes(unflushed) > LUN_CACHE_BUDGET / 2)
        force(image, session);
    finish(io, 0);
}

static void flush(struct io *io);

static void flushed(struct lun_transfer *transfer)
{
    struct io *io = io_of(transfer);
    struct lun_image *image = lun_image_of(io->image);
    struct lun_cache *cache = &image->cache;
    int result = transfer->result;
    if (!result && !settled(image, transfer, request_of(io)->needs)) {
        pthread_mutex_lock(&cache->mutex);
        result = cache->failed;
        cache->failed = 0;
        pthread_mutex_unlock(&cache->mutex);
        if (!result) {
            flush(io);
            return;
        }
    }
    finish(io, result);
}

static void flush(struct io *io)
{
    struct lun_image *image = lun_image_of(io->image);
    request_of(io)->needs = unflushed_mark(image->cache.unflushed);
    lun_transfer_start(&request_of(io)->transfer);
}

static void mapped(struct lun_transfer *transfer)
{
    struct io *io = io_of(transfer);
    io->map_data = transfer->data;
    io->extent.end = transfer->extent.end;
    finish(io, transfer->result);
}

static void transferred(struct lun_transfer *transfer)
{
    finish(io_of(transfer), transfer->result);
}

/* --- beginnings --- */

static void zero_memory(const struct io *io, uint64_t from)
{
    for (int i = 0; i < io->iov_count; i++) {
        size_t length = io->iov[i].iov_len;
        if (from < length)
            memset((char *)io->iov[i].iov_base + from, 0, length - from);
        from = from < length ? 0 : from - length;
    }
}

static void start(struct lun_image *image, struct io *io, struct extent extent, void (*done)(struct lun_transfer *))
{
    struct lun_io *request = request_of(io);
    request->transfer = (struct lun_transfer){.session = lun_session_here(image),
        .done = done,
        .verb = (uint8_t)io->verb,
        .extent = extent,
        .iov = io->iov,
        .iov_count = (uint16_t)io->iov_count,
        .unmap = io->verb == VERB_ZERO && io->flags & IO_MAY_UNMAP && image->lun.unmap};
    if (!request->transfer.session)
        finish(io, -ENOMEM);
    else if (io->verb == VERB_FLUSH)
        flush(io);
    else
        lun_transfer_start(&request->transfer);
}

static int refused(const struct lun_image *image, const struct io *io, uint64_t size)
{
    bool change = fence_counts(io->verb);
    if (io->verb == VERB_RESIZE)
        return -EINVAL;
    if (change && !image->writable)
        return -EROFS;
    if (change && atomic_load(&image->taken))
        return -EBUSY;
    if (io->verb == VERB_WRITE && io->extent.end > size)
        return -ENOSPC;
    bool placed = io->verb != VERB_FLUSH;
    return placed && (io->extent.start | io->extent.end) % image->lun.block ? -EINVAL : 0;
}

void lun_image_submit(struct image *base, struct io *io)
{
    struct lun_image *image = lun_image_of(base);
    uint64_t size = atomic_load(&base->size);
    struct extent inside = extent_intersect(io->extent, (struct extent){0, size});
    if (fence_counts(io->verb))
        request_of(io)->epoch = (uint8_t)fence_enter(&image->fence);
    int error = refused(image, io, size);
    if (error) {
        finish(io, error);
        return;
    }
    switch (io->verb) {
    case VERB_READ:
        if (io->extent.end > size)
            zero_memory(io, extent_length(inside));
        if (extent_empty(inside))
            finish(io, 0);
        else
            start(image, io, inside, transferred);
        return;
    case VERB_WRITE:
        start(image, io, io->extent, changed);
        return;
    case VERB_ZERO:
        if (extent_empty(inside))
            finish(io, 0);
        else
            start(image, io, inside, changed);
        return;
    case VERB_FLUSH:
        if (!image->cache.unflushed || !image->writable)
            finish(io, 0);
        else
            start(image, io, io->extent, flushed);
        return;
    case VERB_MAP:
        if (extent_empty(inside)) {
            io->map_data = false;
            finish(io, 0);
        } else {
            start(image, io, inside, mapped);
        }
        return;
    case VERB_ALLOCATE:
    case VERB_RESIZE:
        break;
    }
    finish(io, -EOPNOTSUPP);
}
