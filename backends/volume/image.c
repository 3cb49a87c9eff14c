/* An image of a volume: which of its bytes lie where, and what is known of them.
 *
 * A request is planned under the volume's mutex, in memory; its pieces go straight to the raw image from the reactor that
 * submitted it. A write into a place that is not there yet gets one; a block's bit is set when its data was
 * written, so that a commit never tells of data that is not there (commit.c flushes it first). Zeroing whole
 * blocks is done by taking their bits away.
 *
 * A request is parked when it needs: room that is being released; a block that another request is writing for the first time,
 * in part; the bytes behind the end of the file, which are zeroed before it grows.
 *
 * Not done here: the order of overlapping requests (the region lock's). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/volume/request.h"

#define MAX_TRANSFER (1u << 20)
#define SIZE_MAX_    ((uint64_t)VOLUME_EXTENTS_MAX * VOLUME_EXTENT)

enum plan { PLAN_SEND = 1, PLAN_PARKED = 2 }; /* 0: done; negative: failed */

static uint64_t down(uint64_t value, uint64_t unit)
{
    return value / unit;
}

static uint64_t up(uint64_t value, uint64_t unit)
{
    return (value + unit - 1) / unit;
}

static uint64_t size_of(const struct volume_node *node)
{
    return (uint64_t)node->st.st_size;
}

static void touch(struct volume *volume, struct volume_node *node)
{
    clock_gettime(CLOCK_REALTIME_COARSE, &node->st.st_mtim);
    node->st.st_ctim = node->st.st_mtim;
    nodes_dirty(&volume->tree, node, DIRTY_TIMES);
}

/* ---- waiting ---- */

static int park(struct list *where, struct io *io)
{
    list_append(where, &io->link);
    return PLAN_PARKED;
}

static void dispatch(struct io *io);
static void finish(struct io *io, int result);

static void again(struct task *task)
{
    dispatch(container_of((uint64_t(*)[12])(void *)task, struct io, scratch));
}

void image_retry(struct list *requests)
{
    struct list *link;
    while ((link = list_pop(requests))) {
        struct io *io = container_of(link, struct io, link);
        request_of(io)->task.run = again;
        reactor_post(io->reactor, &request_of(io)->task);
    }
}

/* The bytes behind the file's end are to be zero before this request goes on. 0: they are. */
static int clean_tail(struct volume_image *image, struct io *io)
{
    struct volume_node *node = image->node;
    uint64_t until, block = size_of(node) / VOLUME_BLOCK, place;
    if (!node->tail_dirty)
        return 0;
    if (!node->tail_busy) {
        if (!map_written(&node->map, block, UINT64_MAX, &until, &place)) {
            node->tail_dirty = false;
            return 0;
        }
        int error = tail_send(image, size_of(node), place * VOLUME_BLOCK);
        if (error)
            return error;
        node->tail_busy = true;
    }
    return park(&node->parked, io);
}

void request_tail(struct volume_image *image, int result, struct piece *piece)
{
    struct volume *volume = image->volume;
    struct volume_node *node = image->node;
    struct list parked, *link;
    list_init(&parked);
    pthread_mutex_lock(&volume->mutex);
    node->tail_busy = false;
    node->tail_dirty = result < 0;
    volume->releaser.suspect |= result < 0;
    transfer_leave(volume, piece->transfer_epoch);
    piece_put(volume, piece);
    list_splice(&parked, &node->parked);
    pthread_mutex_unlock(&volume->mutex);
    if (result == 0) {
        image_retry(&parked);
        return;
    }
    while ((link = list_pop(&parked)))
        finish(container_of(link, struct io, link), result);
}

static bool is_filling(const struct volume_node *node, uint64_t block)
{
    list_for_each (link, &node->filling)
        if (container_of(link, struct piece, filling)->base == block * VOLUME_BLOCK)
            return true;
    return false;
}

/* ---- READ ---- */

static int plan_read(struct volume_image *image, struct io *io)
{
    struct volume_node *node = image->node;
    uint64_t size = size_of(node), at = io->extent.start, end = io->extent.end < size ? io->extent.end : size;
    struct extent data = {0, 0};
    uint64_t data_place = 0;
    int error = 0;
    if (io->extent.end > end)
        error = pieces_zero(image->volume, io, (struct extent){end > at ? end : at, io->extent.end});
    while (at < end && !error) {
        uint64_t until, place = 0;
        bool written = map_written(&node->map, at / VOLUME_BLOCK, up(end, VOLUME_BLOCK), &until, &place);
        uint64_t stop = until * VOLUME_BLOCK < end ? until * VOLUME_BLOCK : end;
        place = place * VOLUME_BLOCK + at % VOLUME_BLOCK;
        if (!written) {
            error = pieces_zero(image->volume, io, (struct extent){at, stop});
        } else if (data.end == at && data_place + extent_length(data) == place) {
            data.end = stop;
        } else {
            if (!extent_empty(data))
                error = pieces_data(image->volume, io, data, data_place);
            data = (struct extent){at, stop};
            data_place = place;
        }
        at = stop;
    }
    if (!error && !extent_empty(data))
        error = pieces_data(image->volume, io, data, data_place);
    return error ? error : PLAN_SEND;
}

/* ---- WRITE ---- */

/* Where the byte lies, and up to where in the image that goes on without a gap. */
static uint64_t place_of(const struct volume_node *node, uint64_t at, uint64_t *until)
{
    struct cursor cursor;
    const struct run *run = map_from(&node->map, (uint32_t)(at / VOLUME_EXTENT), &cursor);
    uint64_t first = (uint64_t)run->logical * VOLUME_EXTENT;
    uint64_t place = (uint64_t)run->physical * VOLUME_EXTENT + (at - first);
    uint32_t logical = run->logical + run->count, physical = run->physical + run->count;
    while (logical * (uint64_t)VOLUME_EXTENT < *until && (run = map_next(&node->map, &cursor)) &&
           run->logical == logical && run->physical == physical) {
        logical += run->count;
        physical += run->count;
    }
    if ((uint64_t)logical * VOLUME_EXTENT < *until)
        *until = (uint64_t)logical * VOLUME_EXTENT;
    return place;
}

static int plan_fill(struct volume_image *image, struct io *io, struct extent part)
{
    uint64_t until = part.end, place = place_of(image->node, part.start, &until);
    return pieces_fill(image->volume, io, part, place);
}

static int plan_pieces(struct volume_image *image, struct io *io)
{
    struct volume_node *node = image->node;
    struct extent rest = io->extent;
    uint64_t first = rest.start / VOLUME_BLOCK, last = (rest.end - 1) / VOLUME_BLOCK;
    bool first_part = rest.start % VOLUME_BLOCK != 0 || (first == last && rest.end % VOLUME_BLOCK != 0);
    bool last_part = last != first && rest.end % VOLUME_BLOCK != 0;
    int error = 0;
    if (first_part && !node_written(node, first)) {
        struct extent part = {rest.start, first == last ? rest.end : (first + 1) * VOLUME_BLOCK};
        error = plan_fill(image, io, part);
        rest.start = part.end;
    }
    if (!error && last_part && !node_written(node, last)) {
        error = plan_fill(image, io, (struct extent){last * VOLUME_BLOCK, rest.end});
        rest.end = last * VOLUME_BLOCK;
    }
    while (!error && !extent_empty(rest)) {
        uint64_t until = rest.end, place = place_of(node, rest.start, &until);
        error = pieces_data(image->volume, io, (struct extent){rest.start, until}, place);
        rest.start = until;
    }
    return error;
}

static bool must_wait_for_filling(const struct volume_node *node, struct extent extent)
{
    uint64_t first = extent.start / VOLUME_BLOCK, last = (extent.end - 1) / VOLUME_BLOCK;
    return !list_empty(&node->filling) && (is_filling(node, first) || is_filling(node, last));
}

static bool all_written(const struct volume_node *node, struct extent extent)
{
    uint64_t block = extent.start / VOLUME_BLOCK, end = up(extent.end, VOLUME_BLOCK), until, place;
    while (block < end) {
        if (!map_written(&node->map, block, end, &until, &place))
            return false;
        block = until;
    }
    return true;
}

static int plan_write(struct volume_image *image, struct io *io)
{
    struct volume *volume = image->volume;
    struct volume_node *node = image->node;
    struct request *request = request_of(io);
    uint64_t size = size_of(node);
    int error;
    if (io->extent.end > SIZE_MAX_)
        return -EFBIG;
    bool at_tail = io->extent.end > size - size % VOLUME_BLOCK;
    if (at_tail && (error = clean_tail(image, io)))
        return error;
    if (must_wait_for_filling(node, io->extent))
        return park(&node->parked, io);
    error = node_allocate(volume, node, (uint32_t)down(io->extent.start, VOLUME_EXTENT),
        (uint32_t)up(io->extent.end, VOLUME_EXTENT), false);
    if (error == -EAGAIN) {
        commit_want(volume, NULL);
        release_ready(volume);
        return park(&volume->releaser.hungry, io);
    }
    request->fresh = !all_written(node, io->extent);
    request->growing = io->extent.end > size;
    if (!error)
        error = plan_pieces(image, io);
    if (error)
        return error;
    node->growing += request->growing;
    return PLAN_SEND;
}

static int ended_write(struct volume_image *image, struct io *io)
{
    struct volume *volume = image->volume;
    struct volume_node *node = image->node;
    struct request *request = request_of(io);
    int error = 0;
    node->growing -= request->growing;
    if (request->result < 0)
        return request->result;
    if (request->fresh)
        error = node_mark(volume, node, down(io->extent.start, VOLUME_BLOCK), up(io->extent.end, VOLUME_BLOCK), true);
    if (!error && io->extent.end > size_of(node)) {
        node->st.st_size = (off_t)io->extent.end;
        nodes_dirty(&volume->tree, node, DIRTY_NODE);
    }
    touch(volume, node);
    return error;
}

/* ---- ZERO ---- */

static int plan_edge(struct volume_image *image, struct io *io, struct extent part)
{
    struct volume_node *node = image->node;
    if (extent_empty(part) || !node_written(node, part.start / VOLUME_BLOCK))
        return 0;
    uint64_t until = part.end, place = place_of(node, part.start, &until);
    return pieces_data(image->volume, io, part, place);
}

/* Whole blocks [from, to) lose their bits; whole extents their place. */
static int clear_blocks(struct volume_image *image, uint64_t from, uint64_t to, bool at_end, bool unmap)
{
    struct volume *volume = image->volume;
    struct volume_node *node = image->node;
    uint32_t start = (uint32_t)up(from, VOLUME_BLOCKS);
    /* the rest of the last extent may be what a write that makes the file longer is writing now */
    uint32_t end = (uint32_t)(at_end && !node->growing ? up(to, VOLUME_BLOCKS) : down(to, VOLUME_BLOCKS));
    int error = unmap && start < end ? node_punch(volume, node, start, end) : 0;
    if (!error)
        error = node_mark(volume, node, from, to, false);
    if (!error && !unmap)
        error = node_reserve(volume, node, (uint32_t)down(from, VOLUME_BLOCKS), (uint32_t)up(to, VOLUME_BLOCKS));
    return error;
}

static int plan_zero(struct volume_image *image, struct io *io)
{
    struct volume *volume = image->volume;
    struct volume_node *node = image->node;
    uint64_t size = size_of(node), start = io->extent.start, end = io->extent.end < size ? io->extent.end : size;
    bool at_end = end == size, unmap = io->flags & IO_MAY_UNMAP;
    int error = 0;
    if (start >= end)
        return 0;
    if (end > size - size % VOLUME_BLOCK && (error = clean_tail(image, io)))
        return error;
    if (must_wait_for_filling(node, (struct extent){start, end}))
        return park(&node->parked, io);
    if (!unmap)
        error = node_allocate(
            volume, node, (uint32_t)down(start, VOLUME_EXTENT), (uint32_t)up(end, VOLUME_EXTENT), true);
    if (error == -EAGAIN) {
        commit_want(volume, NULL);
        release_ready(volume);
        return park(&volume->releaser.hungry, io);
    }
    uint64_t from = up(start, VOLUME_BLOCK), to = at_end ? up(end, VOLUME_BLOCK) : down(end, VOLUME_BLOCK);
    if (from > to) { /* within one block */
        error = error ? error : plan_edge(image, io, (struct extent){start, end});
    } else {
        uint64_t first = from * VOLUME_BLOCK < end ? from * VOLUME_BLOCK : end;
        if (!error)
            error = plan_edge(image, io, (struct extent){start, first});
        if (!error && to * VOLUME_BLOCK < end)
            error = plan_edge(image, io, (struct extent){to * VOLUME_BLOCK, end});
        if (!error && from < to)
            error = clear_blocks(image, from, to, at_end, unmap);
    }
    touch(volume, node);
    return error ? error : list_empty(&request_of(io)->pieces) ? 0 : PLAN_SEND;
}

/* ---- RESIZE, ALLOCATE, MAP ---- */

static int plan_resize(struct volume_image *image, struct io *io)
{
    struct volume *volume = image->volume;
    struct volume_node *node = image->node;
    uint64_t size = size_of(node), wanted = io->extent.end;
    int error = 0;
    if (wanted > SIZE_MAX_)
        return -EFBIG;
    if (wanted > size && (error = clean_tail(image, io)))
        return error;
    if (wanted < size) {
        uint32_t cut = (uint32_t)up(wanted, VOLUME_EXTENT);
        error = node_punch(volume, node, cut, UINT32_MAX);
        if (!error)
            error = node_mark(volume, node, up(wanted, VOLUME_BLOCK), (uint64_t)cut * VOLUME_BLOCKS, false);
        if (error)
            return error;
        node->tail_dirty = wanted % VOLUME_BLOCK != 0 && node_written(node, wanted / VOLUME_BLOCK);
    }
    if (wanted == size)
        return 0;
    node->st.st_size = (off_t)wanted;
    nodes_dirty(&volume->tree, node, DIRTY_NODE);
    touch(volume, node);
    return 0;
}

static int plan_allocate(struct volume_image *image, struct io *io)
{
    struct volume *volume = image->volume;
    struct volume_node *node = image->node;
    uint32_t start = (uint32_t)down(io->extent.start, VOLUME_EXTENT);
    if (io->extent.end > SIZE_MAX_)
        return -EFBIG;
    uint32_t end = (uint32_t)up(io->extent.end, VOLUME_EXTENT);
    int error = node_allocate(volume, node, start, end, true);
    if (error == -EAGAIN) {
        commit_want(volume, NULL);
        release_ready(volume);
        return park(&volume->releaser.hungry, io);
    }
    return error ? error : node_reserve(volume, node, start, end);
}

static int plan_map(struct volume_image *image, struct io *io)
{
    struct volume_node *node = image->node;
    uint64_t size = size_of(node), start = io->extent.start, end = io->extent.end, until, place;
    io->map_data = false;
    if (start >= size)
        return 0;
    uint64_t block = start / VOLUME_BLOCK, last = up(end, VOLUME_BLOCK);
    bool data = map_written(&node->map, block, last, &until, &place);
    for (uint64_t beyond; until < last; until = beyond)
        if (map_written(&node->map, until, last, &beyond, &place) != data)
            break;
    io->map_data = data;
    if (until * VOLUME_BLOCK < end)
        io->extent.end = until * VOLUME_BLOCK;
    if (data && io->extent.end > size)
        io->extent.end = size;
    return 0;
}

/* ---- FLUSH ---- */

static void committed(struct waiter *waiter, int result)
{
    finish(container_of((uint64_t(*)[12])(void *)waiter, struct io, scratch), result);
}

/* An answered change outlives this process: true: it is answered when it is on the raw image. */
static bool kept_later(struct volume *volume, struct io *io)
{
    if (!fence_counts(io->verb) || !commit_lacks(volume, volume_image_of(io)->node))
        return false;
    request_of(io)->waiter = (struct waiter){.done = committed};
    commit_want(volume, &request_of(io)->waiter);
    commit_later(volume);
    return true;
}

/* Nothing of the file's metadata changed since the last commit: the raw image's flush is all. */
static int plan_flush(struct volume_image *image, struct io *io)
{
    struct volume *volume = image->volume;
    const struct volume_node *node = image->node;
    if (atomic_load(&volume->failed))
        return -EIO;
    if (!node->unlinked && node->change > volume->committer.durable) {
        request_of(io)->waiter = (struct waiter){.done = committed, .durable = true};
        commit_want(volume, &request_of(io)->waiter);
        return PLAN_PARKED;
    }
    int error = pieces_flush(volume, io);
    return error ? error : PLAN_SEND;
}

/* ---- all ---- */

static int plan(struct volume_image *image, struct io *io)
{
    if (fence_counts(io->verb) && atomic_load(&image->volume->failed))
        return -EIO;
    switch (io->verb) {
    case VERB_READ:
        return plan_read(image, io);
    case VERB_WRITE:
        return plan_write(image, io);
    case VERB_ZERO:
        return plan_zero(image, io);
    case VERB_ALLOCATE:
        return plan_allocate(image, io);
    case VERB_FLUSH:
        return plan_flush(image, io);
    case VERB_RESIZE:
        return plan_resize(image, io);
    case VERB_MAP:
        return plan_map(image, io);
    }
    abort();
}

static void finish(struct io *io, int result)
{
    if (fence_counts(io->verb))
        fence_leave(&volume_image_of(io)->fence, request_of(io)->fence_epoch);
    io_finish(io, result);
}

static void put_pieces(struct volume *volume, struct request *request)
{
    while (!list_empty(&request->pieces))
        piece_put(volume, container_of(request->pieces.next, struct piece, link));
}

void request_ended(struct io *io)
{
    struct volume_image *image = volume_image_of(io);
    struct volume *volume = image->volume;
    struct request *request = request_of(io);
    struct list retry;
    list_init(&retry);
    pthread_mutex_lock(&volume->mutex);
    int result = io->verb == VERB_WRITE ? ended_write(image, io) : request->result;
    put_pieces(volume, request);
    transfer_leave(volume, request->transfer_epoch);
    if (list_empty(&image->node->filling) && !image->node->tail_busy)
        list_splice(&retry, &image->node->parked);
    bool later = result == 0 && kept_later(volume, io);
    pthread_mutex_unlock(&volume->mutex);
    if (!later)
        finish(io, result);
    image_retry(&retry);
}

static void dispatch(struct io *io)
{
    struct volume_image *image = volume_image_of(io);
    struct volume *volume = image->volume;
    struct request *request = request_of(io);
    list_init(&request->pieces);
    request->result = 0;
    request->left = 0;
    pthread_mutex_lock(&volume->mutex);
    int result = plan(image, io);
    if (result == PLAN_SEND)
        request->transfer_epoch = (uint8_t)transfer_enter(volume);
    else if (result <= 0)
        put_pieces(volume, request);
    if (result == 0 && kept_later(volume, io))
        result = PLAN_PARKED;
    pthread_mutex_unlock(&volume->mutex);
    if (result == PLAN_SEND)
        pieces_send(io);
    else if (result <= 0)
        finish(io, result);
}

static void submit(struct image *base, struct io *io)
{
    struct volume_image *image = container_of(base, struct volume_image, image);
    if (fence_counts(io->verb)) {
        request_of(io)->fence_epoch = (uint8_t)fence_enter(&image->fence);
        if (!image->writable) {
            finish(io, -EBADF);
            return;
        }
    }
    dispatch(io);
}

/* ---- fence: our own writes, then whatever the raw image knows of ---- */

struct fencing {
    struct image *carrier;
    void (*fenced)(void *argument);
    void *argument;
};

static void own_fenced(void *argument)
{
    struct fencing *fencing = argument, own = *fencing;
    free(fencing);
    image_fence(own.carrier, own.fenced, own.argument);
}

static void fence(struct image *base, void (*fenced)(void *argument), void *argument)
{
    struct volume_image *image = container_of(base, struct volume_image, image);
    struct fencing *fencing = malloc(sizeof(*fencing));
    if (!fencing)
        return; /* a ghost that keeps its lock is the safe side */
    *fencing = (struct fencing){image->volume->carrier.image, fenced, argument};
    fence_wait(&image->fence, base->datastore->pool, own_fenced, fencing);
}

static void close_image(struct image *base)
{
    struct volume_image *image = container_of(base, struct volume_image, image);
    struct volume *volume = image->volume;
    pthread_mutex_lock(&volume->mutex);
    image->node->opens--;
    node_release(volume, image->node);
    pthread_mutex_unlock(&volume->mutex);
    fence_destroy(&image->fence);
    free(image);
}

static const struct image_ops image_ops = {.submit = submit, .fence = fence, .close = close_image};

int volume_open_image(struct datastore *datastore, const char *path, bool writable, struct image **out)
{
    struct volume *volume = volume_enter(datastore);
    struct volume_image *image = volume ? calloc(1, sizeof(*image)) : NULL;
    if (!volume)
        return -EIO;
    int error = image ? nodes_find(&volume->tree, path, &image->node) : -ENOMEM;
    if (!error && !S_ISREG(image->node->st.st_mode))
        error = S_ISDIR(image->node->st.st_mode) ? -EISDIR : S_ISLNK(image->node->st.st_mode) ? -ELOOP : -EINVAL;
    if (!error && writable && !(volume->flags & VOLUME_WRITABLE))
        error = -EROFS;
    if (error) {
        free(image);
        return volume_leave(volume, error);
    }
    image->node->opens++;
    image_init(&image->image, &image_ops, datastore, size_of(image->node));
    image->volume = volume;
    image->writable = writable;
    fence_init(&image->fence);
    image->image.limits = (struct image_limits){.block = volume->carrier.block,
        .max_transfer = MAX_TRANSFER,
        .can_zero = true,
        .can_punch = true,
        .can_allocate = true,
        .can_map = true};
    *out = &image->image;
    return volume_leave(volume, 0);
}
