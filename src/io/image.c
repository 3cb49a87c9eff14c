/* The checked middle: every io of svmfs passes here on its way to a backend and on its way back. On the way in the
 * contract is asserted and what the backend lacks is emulated; on the way back the size is kept and the owner's done
 * runs as a task of the reactor that submitted, so that no caller is ever re-entered. */
#include "io/image.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/datastore.h"

#define STEP (1u << 20) /* of an emulated verb */

static bool has_memory(enum verb verb)
{
    switch (verb) {
    case VERB_READ:
    case VERB_WRITE:
        return true;
    case VERB_ZERO:
    case VERB_ALLOCATE:
    case VERB_FLUSH:
    case VERB_RESIZE:
    case VERB_MAP:
        return false;
    }
    abort();
}

const char *verb_name(enum verb verb)
{
    switch (verb) {
    case VERB_READ:
        return "read";
    case VERB_WRITE:
        return "write";
    case VERB_ZERO:
        return "zero";
    case VERB_ALLOCATE:
        return "allocate";
    case VERB_FLUSH:
        return "flush";
    case VERB_RESIZE:
        return "resize";
    case VERB_MAP:
        return "map";
    }
    abort();
}

void image_init(struct image *image, const struct image_ops *ops, struct datastore *datastore, uint64_t size)
{
    image->ops = ops;
    image->datastore = datastore;
    atomic_init(&image->size, size);
    atomic_init(&image->in_flight, 0);
    atomic_init(&image->references, 1);
}

static void check(const struct image *image, const struct io *io)
{
    assert(io->done && io->extent.end <= INT64_MAX);
    assert(io->verb == VERB_FLUSH || io->verb == VERB_RESIZE || !extent_empty(io->extent));
    assert(atomic_load_explicit(&image->references, memory_order_relaxed) > 0);
    if (!has_memory(io->verb))
        return;
    uint64_t length = 0;
    for (int i = 0; i < io->iov_count; i++)
        length += io->iov[i].iov_len;
    assert(length == extent_length(io->extent) && length <= image->limits.max_transfer);
}

/* An emulated ZERO or ALLOCATE: the same extent in steps, by WRITE, or by READ and WRITE of the same bytes. The caller
 * holds the region lock, as for every verb. */
struct emulation {
    struct io inner;
    struct io *outer;
    struct extent rest;
    struct iovec iov;
    void *buffer;
};

static void emulation_step(struct emulation *emulation)
{
    struct io *inner = &emulation->inner;
    uint64_t length = extent_length(emulation->rest);
    if (length > STEP)
        length = STEP;
    if (length == 0 || inner->result < 0) {
        int result = inner->result;
        struct io *outer = emulation->outer;
        free(emulation->buffer);
        free(emulation);
        io_finish(outer, result);
        return;
    }
    inner->verb = emulation->outer->verb == VERB_ALLOCATE && inner->verb == VERB_WRITE ? VERB_READ : VERB_WRITE;
    inner->extent = (struct extent){emulation->rest.start, emulation->rest.start + length};
    emulation->iov = (struct iovec){emulation->buffer, length};
    if (inner->verb == VERB_WRITE)
        emulation->rest.start += length;
    image_submit(emulation->outer->image, inner);
}

static void emulation_done(struct io *inner)
{
    emulation_step(container_of(inner, struct emulation, inner));
}

static void emulate(struct image *image, struct io *io)
{
    struct emulation *emulation = calloc(1, sizeof(*emulation));
    if (!emulation || posix_memalign(&emulation->buffer, 4096, STEP) != 0) {
        free(emulation);
        io_finish(io, -ENOMEM);
        return;
    }
    memset(emulation->buffer, 0, STEP);
    emulation->outer = io;
    emulation->rest = extent_intersect(io->extent, (struct extent){0, atomic_load(&image->size)});
    emulation->inner = (struct io){.verb = VERB_WRITE,
        .flags = io->flags & (IO_DIRECT | IO_COPY),
        .iov = &emulation->iov,
        .iov_count = 1,
        .done = emulation_done};
    emulation_step(emulation);
}

static bool must_emulate(const struct image_limits *limits, struct io *io)
{
    switch (io->verb) {
    case VERB_ZERO:
        if (!limits->can_punch)
            io->flags &= ~(unsigned)IO_MAY_UNMAP;
        return !limits->can_zero && !(io->flags & IO_MAY_UNMAP);
    case VERB_ALLOCATE:
        return !limits->can_allocate;
    case VERB_READ:
    case VERB_WRITE:
    case VERB_FLUSH:
    case VERB_RESIZE:
    case VERB_MAP:
        return false;
    }
    abort();
}

/* What a volume sends to the image below it was counted above. */
static void count(const struct image *image, const struct io *io, int change)
{
    if (image->datastore->above)
        return;
    if (io->flags & IO_COPY) {
        atomic_fetch_add_explicit(&image->datastore->copies, (uint32_t)change, memory_order_relaxed);
    } else if (!(io->flags & IO_OWN)) {
        atomic_fetch_add_explicit(&image->datastore->guests, (uint32_t)change, memory_order_relaxed);
        reactor_guest(io->reactor, change);
    }
}

static void finished(struct task *task)
{
    struct io *io = container_of(task, struct io, task);
    struct image *image = io->image;
    uint64_t end = io->extent.end;
    if (io->result == 0 && io->verb == VERB_RESIZE)
        atomic_store(&image->size, end);
    if (io->result == 0 && io->verb == VERB_WRITE) {
        uint64_t size = atomic_load_explicit(&image->size, memory_order_relaxed);
        while (size < end && !atomic_compare_exchange_weak(&image->size, &size, end))
            ;
    }
    io->image = NULL;
    count(image, io, -1);
    atomic_fetch_sub(&image->in_flight, 1);
    struct behalf before = behalf_set(io->behalf);
    struct reactor *reactor = io->reactor;
    io->done(io);
    behalf_set(before);
    reactor_sent(reactor, -1); /* after what it has led to */
}

void image_submit(struct image *image, struct io *io)
{
    check(image, io);
    io->image = image;
    io->reactor = reactor_current();
    io->task.run = finished;
    io->behalf = behalf_now;
    io->result = 0;
    atomic_fetch_add(&image->in_flight, 1);
    count(image, io, 1);
    reactor_sent(io->reactor, 1);
    if (must_emulate(&image->limits, io)) {
        emulate(image, io);
    } else if (io->verb == VERB_MAP && !image->limits.can_map) {
        io->map_data = true;
        io_finish(io, 0);
    } else {
        image->ops->submit(image, io);
    }
}

void io_finish(struct io *io, int result)
{
    assert(io->image); /* exactly once */
    io->result = result;
    reactor_post(io->reactor, &io->task);
}

void image_fence(struct image *image, void (*fenced)(void *argument), void *argument)
{
    image->ops->fence(image, fenced, argument);
}

struct image *image_get(struct image *image)
{
    atomic_fetch_add(&image->references, 1);
    return image;
}

static void close_image(struct work *work)
{
    struct image *image = container_of(work, struct image, closing);
    image->ops->close(image);
}

void image_put(struct image *image)
{
    if (!image || atomic_fetch_sub(&image->references, 1) != 1)
        return;
    assert(atomic_load(&image->in_flight) == 0);
    image->closing.run = close_image;
    pool_run(image->datastore->pool, &image->closing);
}

void image_close(struct image *image)
{
    assert(atomic_load(&image->references) == 1 && atomic_load(&image->in_flight) == 0);
    image->ops->close(image);
}
