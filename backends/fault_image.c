/* An image that goes wrong by rules. Each io is wrapped in one of its own, which is allocated: this backend is for
 * tests.
 *
 * A ghost (action "late") is a write that was answered with an error and is done later all the same, with a copy of its
 * bytes, by the fault's own reactor; the fence waits for it, and it keeps the image's parts alive after its close. What
 * hangs is in flight for the layer above, and the fence waits for it, too. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backends/backends.h"
#include "backends/fault.h"
#include "backends/fence.h"
#include "base/clock.h"
#include "base/log.h"

struct fault_image {
    struct image image;
    struct fault *fault;
    struct image *inner;
    char *path;
    struct fence fence;
    _Atomic unsigned references; /* open, and a ghost each */
    pthread_mutex_t mutex;
    struct list in_flight; /* of fault_io.link, while rules check; under mutex */
};

struct fault_io {
    struct io inner;
    struct io *outer; /* NULL: a ghost */
    struct fault_image *image;
    struct fault_verdict verdict;
    struct fault_waiting waiting;
    struct list link;
    struct task task;
    struct timer timer;
    unsigned epoch;
    void *payload;
    struct iovec iov;
};

static _Atomic unsigned overlaps;

unsigned backend_fault_overlaps(void)
{
    return atomic_load(&overlaps);
}

static void release(struct fault_image *image)
{
    if (atomic_fetch_sub(&image->references, 1) != 1)
        return;
    image_put(image->inner);
    fence_destroy(&image->fence);
    pthread_mutex_destroy(&image->mutex);
    free(image->path);
    free(image);
}

/* ---- the checker ---- */

/* The bytes that io is about: all beyond the smaller size for RESIZE, none for FLUSH. */
static struct extent touched(const struct io *io)
{
    if (io->verb == VERB_FLUSH)
        return (struct extent){0, 0};
    if (io->verb != VERB_RESIZE)
        return io->extent;
    uint64_t size = atomic_load(&io->image->size);
    return (struct extent){size < io->extent.end ? size : io->extent.end, UINT64_MAX};
}

static void check_enter(struct fault_io *f)
{
    struct io *io = f->outer;
    struct extent extent = touched(io);
    pthread_mutex_lock(&f->image->mutex);
    list_for_each (link, &f->image->in_flight) {
        struct io *other = container_of(link, struct fault_io, link)->outer;
        if (!fence_counts(io->verb) || !fence_counts(other->verb) || !extent_overlaps(extent, touched(other)))
            continue;
        atomic_fetch_add(&overlaps, 1);
        log_error("datastore %s: image %s: overlapping requests in flight: %s [%llu, %llu) while %s [%llu, %llu)",
            f->image->image.datastore->name, f->image->path, verb_name(io->verb), (unsigned long long)io->extent.start,
            (unsigned long long)io->extent.end, verb_name(other->verb), (unsigned long long)other->extent.start,
            (unsigned long long)other->extent.end);
    }
    list_append(&f->image->in_flight, &f->link);
    pthread_mutex_unlock(&f->image->mutex);
}

static void check_leave(struct fault_io *f)
{
    pthread_mutex_lock(&f->image->mutex);
    list_remove(&f->link);
    pthread_mutex_unlock(&f->image->mutex);
}

/* ---- an io's ways ---- */

static void finish(struct fault_io *f, int result)
{
    struct io *io = f->outer;
    check_leave(f);
    if (fence_counts(io->verb))
        fence_leave(&f->image->fence, f->epoch);
    free(f->payload);
    free(f);
    io_finish(io, result);
}

/* Changes the byte at offset of what is at extent.start on. */
static void corrupt(struct iovec *iov, int count, struct extent extent, uint64_t offset)
{
    uint64_t skip = offset - extent.start;
    for (int i = 0; i < count; skip -= iov[i].iov_len, i++)
        if (skip < iov[i].iov_len) {
            ((unsigned char *)iov[i].iov_base)[skip] ^= 0x20;
            return;
        }
}

static void inner_done(struct io *inner)
{
    struct fault_io *f = container_of(inner, struct fault_io, inner);
    if (inner->verb == VERB_READ && f->verdict.action == FAULT_CORRUPT && inner->result == 0)
        corrupt(f->outer->iov, f->outer->iov_count, inner->extent, f->verdict.offset);
    if (inner->verb == VERB_MAP) {
        f->outer->map_data = inner->map_data;
        f->outer->extent.end = inner->extent.end;
    }
    finish(f, inner->result);
}

static void forward(struct task *task)
{
    struct fault_io *f = container_of(task, struct fault_io, task);
    image_submit(f->image->inner, &f->inner);
}

static void forward_delayed(struct timer *timer)
{
    forward(&container_of(timer, struct fault_io, timer)->task);
}

static void fail(struct task *task)
{
    struct fault_io *f = container_of(task, struct fault_io, task);
    finish(f, f->verdict.error);
}

static void fail_delayed(struct timer *timer)
{
    fail(&container_of(timer, struct fault_io, timer)->task);
}

/* ---- ghosts ---- */

static void landed(struct io *inner)
{
    struct fault_io *f = container_of(inner, struct fault_io, inner);
    struct fault_image *image = f->image;
    struct fault *fault = image->fault;
    fence_leave(&image->fence, f->epoch);
    release(image);
    free(f->payload);
    free(f);
    pthread_mutex_lock(&fault->mutex);
    if (--fault->ghosts == 0)
        pthread_cond_broadcast(&fault->landed);
    pthread_mutex_unlock(&fault->mutex);
}

static void land(struct fault_io *f)
{
    list_remove(&f->link);
    timer_cancel(&f->timer);
    image_submit(f->image->inner, &f->inner);
}

static void land_in_time(struct timer *timer)
{
    land(container_of(timer, struct fault_io, timer));
}

static void haunt(struct task *task)
{
    struct fault_io *f = container_of(task, struct fault_io, task);
    list_append(&f->image->fault->late, &f->link);
    f->timer.fired = land_in_time;
    timer_set(f->image->fault->reactor, &f->timer, f->verdict.ms * NS_PER_MS);
}

void fault_land(struct fault *fault)
{
    while (!list_empty(&fault->late))
        land(container_of(fault->late.next, struct fault_io, link));
}

/* The inner io gets a copy of the bytes; false: no memory. */
static bool copy_payload(struct fault_io *f)
{
    struct io *io = f->outer;
    size_t length = io->iov_count ? extent_length(f->inner.extent) : 0;
    if (posix_memalign(&f->payload, 4096, length + 1))
        return false;
    char *at = f->payload;
    for (int i = 0; i < io->iov_count; at += io->iov[i].iov_len, i++)
        memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
    f->iov = (struct iovec){f->payload, length};
    f->inner.iov = &f->iov;
    f->inner.iov_count = io->iov_count > 0;
    return true;
}

/* On the reactor of the io: answers it and leaves a ghost. */
static void answer_late(struct task *task)
{
    struct fault_io *f = container_of(task, struct fault_io, task);
    struct io *io = f->outer;
    struct fault *fault = f->image->fault;
    if (!fence_counts(io->verb) || !copy_payload(f)) {
        fail(task);
        return;
    }
    f->inner.done = landed;
    f->task.run = haunt;
    check_leave(f);
    atomic_fetch_add(&f->image->references, 1);
    pthread_mutex_lock(&fault->mutex);
    fault->ghosts++;
    pthread_mutex_unlock(&fault->mutex);
    int error = f->verdict.error;
    reactor_post(fault->reactor, &f->task); /* f may be gone after this */
    io_finish(io, error);
}

/* ---- image_ops ---- */

static void go_on(struct fault_waiting *waiting)
{
    struct fault_io *f = container_of(waiting, struct fault_io, waiting);
    reactor_post(f->outer->reactor, &f->task);
}

static void act(struct fault_io *f)
{
    struct reactor *reactor = f->outer->reactor;
    switch (f->verdict.action) {
    case FAULT_NONE:
    case FAULT_CHECK:
        forward(&f->task);
        return;
    case FAULT_FAIL:
        f->task.run = fail;
        f->timer.fired = fail_delayed;
        if (f->verdict.ms)
            timer_set(reactor, &f->timer, f->verdict.ms * NS_PER_MS);
        else
            reactor_post(reactor, &f->task);
        return;
    case FAULT_DELAY:
        f->timer.fired = forward_delayed;
        timer_set(reactor, &f->timer, f->verdict.ms * NS_PER_MS);
        return;
    case FAULT_HANG:
        return; /* go_on runs it, and may have posted it already */
    case FAULT_LATE:
        f->task.run = answer_late;
        reactor_post(reactor, &f->task);
        return;
    case FAULT_CORRUPT:
        if (f->inner.verb == VERB_WRITE && copy_payload(f))
            corrupt(&f->iov, 1, f->inner.extent, f->verdict.offset);
        forward(&f->task);
        return;
    }
    abort();
}

static void submit(struct image *base, struct io *io)
{
    struct fault_image *image = container_of(base, struct fault_image, image);
    struct fault_io *f = calloc(1, sizeof(*f));
    if (!f) {
        io_finish(io, -ENOMEM);
        return;
    }
    f->outer = io;
    f->image = image;
    f->task.run = forward;
    f->waiting.go = go_on;
    list_init(&f->link);
    f->inner = (struct io){.verb = io->verb,
        .flags = io->flags,
        .extent = io->extent,
        .iov = io->iov,
        .iov_count = io->iov_count,
        .done = inner_done};
    if (fence_counts(io->verb))
        f->epoch = fence_enter(&image->fence);
    if (fault_checks(&image->fault->rules))
        check_enter(f);
    struct fault_verdict verdict = fault_decide(&image->fault->rules, io->verb, &io->extent, image->path, &f->waiting);
    if (verdict.action == FAULT_HANG)
        return; /* f may be on its way by now */
    f->verdict = verdict;
    act(f);
}

struct fence_request {
    struct image *inner;
    void (*fenced)(void *argument);
    void *argument;
};

/* Nothing of ours can land any more; now the inner image's word. */
static void fence_inner(void *argument)
{
    struct fence_request *request = argument;
    image_fence(request->inner, request->fenced, request->argument);
    free(request);
}

static void fence(struct image *base, void (*fenced)(void *argument), void *argument)
{
    struct fault_image *image = container_of(base, struct fault_image, image);
    struct fence_request *request = malloc(sizeof(*request));
    if (!request) {
        log_error("no memory to fence an image: its ghosts keep their locks");
        return;
    }
    *request = (struct fence_request){image->inner, fenced, argument};
    fence_wait(&image->fence, image->fault->inner.pool, fence_inner, request);
}

static void close_image(struct image *base)
{
    release(container_of(base, struct fault_image, image));
}

static const struct image_ops image_ops = {.submit = submit, .fence = fence, .close = close_image};

int fault_wrap_image(struct datastore *datastore, const char *path, struct image *inner, struct image **out)
{
    struct fault_image *image = calloc(1, sizeof(*image));
    char *own_path = strdup(path);
    if (!image || !own_path) {
        free(image);
        free(own_path);
        image_put(inner);
        return -ENOMEM;
    }
    image->fault = datastore->state;
    image->inner = inner;
    image->path = own_path;
    atomic_init(&image->references, 1);
    pthread_mutex_init(&image->mutex, NULL);
    fence_init(&image->fence);
    list_init(&image->in_flight);
    image->image.limits = inner->limits;
    image_init(&image->image, &image_ops, datastore, atomic_load(&inner->size));
    *out = &image->image;
    return 0;
}
