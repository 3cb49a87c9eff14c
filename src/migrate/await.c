#include "migrate/await.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"

/* Shared by the thread that waits and the reactor; the last of the two frees it. */
struct wait {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool done, left;
    int result;
    struct reactor *reactor;
    struct task task;
    struct image *image;
    struct io io;
    struct disk_io flush;
    struct disk *disk;
    struct mirror *mirror;
    struct lock_request tail;
};

static struct wait *wait_new(struct reactor *reactor)
{
    struct wait *wait = calloc(1, sizeof(*wait));
    if (!wait)
        return NULL;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&wait->mutex, NULL);
    pthread_cond_init(&wait->ended, &attributes);
    pthread_condattr_destroy(&attributes);
    wait->reactor = reactor;
    return wait;
}

static void wait_free(struct wait *wait)
{
    image_put(wait->image);
    disk_put(wait->disk);
    mirror_put(wait->mirror);
    pthread_cond_destroy(&wait->ended);
    pthread_mutex_destroy(&wait->mutex);
    free(wait);
}

static void wait_end(struct wait *wait, int result)
{
    pthread_mutex_lock(&wait->mutex);
    wait->done = true;
    wait->result = result;
    bool left = wait->left;
    pthread_cond_signal(&wait->ended);
    pthread_mutex_unlock(&wait->mutex);
    if (left)
        wait_free(wait);
}

static int wait_for(struct wait *wait, uint64_t timeout_ns)
{
    uint64_t until = clock_now() + timeout_ns;
    struct timespec at = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    int error = 0;
    pthread_mutex_lock(&wait->mutex);
    while (!wait->done && !error)
        error = pthread_cond_timedwait(&wait->ended, &wait->mutex, &at);
    bool done = wait->done;
    int result = done ? wait->result : -ETIMEDOUT;
    wait->left = !done;
    pthread_mutex_unlock(&wait->mutex);
    if (done)
        wait_free(wait);
    return result;
}

static void io_ended(struct io *io)
{
    wait_end(container_of(io, struct wait, io), io->result);
}

static void io_start(struct task *task)
{
    struct wait *wait = container_of(task, struct wait, task);
    image_submit(wait->image, &wait->io);
}

int await_io(struct reactor *reactor, struct image *image, enum verb verb, struct extent extent, uint64_t timeout_ns)
{
    struct wait *wait = wait_new(reactor);
    if (!wait)
        return -ENOMEM;
    wait->image = image_get(image);
    wait->io = (struct io){.verb = verb, .extent = extent, .done = io_ended};
    wait->task.run = io_start;
    reactor_post(reactor, &wait->task);
    return wait_for(wait, timeout_ns);
}

/* On any thread of the backend. */
static void fenced(void *argument)
{
    wait_end(argument, 0);
}

static void fence_start(struct task *task)
{
    struct wait *wait = container_of(task, struct wait, task);
    image_fence(wait->image, fenced, wait);
}

int await_fence(struct reactor *reactor, struct image *image, uint64_t timeout_ns)
{
    struct wait *wait = wait_new(reactor);
    if (!wait)
        return -ENOMEM;
    wait->image = image_get(image);
    wait->task.run = fence_start;
    reactor_post(reactor, &wait->task);
    return wait_for(wait, timeout_ns);
}

static void flush_answered(struct disk_io *io)
{
}

static void flush_released(struct disk_io *io)
{
    wait_end(container_of(io, struct wait, flush), io->result);
}

static void flush_start(struct task *task)
{
    struct wait *wait = container_of(task, struct wait, task);
    disk_submit(wait->disk, &wait->flush);
}

int await_flush(struct reactor *reactor, struct disk *disk, uint64_t timeout_ns)
{
    struct wait *wait = wait_new(reactor);
    if (!wait)
        return -ENOMEM;
    wait->disk = disk_get(disk);
    wait->flush = (struct disk_io){
        .verb = VERB_FLUSH, .flags = IO_OWN, .answered = flush_answered, .released = flush_released};
    wait->task.run = flush_start;
    reactor_post(reactor, &wait->task);
    return wait_for(wait, timeout_ns);
}

static void attach_granted(struct lock_request *request)
{
    struct wait *wait = container_of(request, struct wait, tail);
    pthread_mutex_lock(&wait->mutex);
    bool left = wait->left;
    pthread_mutex_unlock(&wait->mutex);
    int result = -ETIMEDOUT;
    if (!left && disk_size(wait->disk) != atomic_load(&mirror_target(wait->mirror)->size))
        result = -EAGAIN;
    else if (!left)
        result = disk_attach(wait->disk, wait->mirror);
    region_lock_release(disk_lock(wait->disk), &wait->tail);
    wait_end(wait, result);
}

static void attach_start(struct task *task)
{
    struct wait *wait = container_of(task, struct wait, task);
    wait->tail = (struct lock_request){
        .mode = LOCK_MODE_COPY, .extent = {disk_size(wait->disk), UINT64_MAX}, .granted = attach_granted};
    if (region_lock_acquire(disk_lock(wait->disk), &wait->tail))
        attach_granted(&wait->tail);
}

int await_attach(struct reactor *reactor, struct disk *disk, struct mirror *mirror, uint64_t timeout_ns)
{
    struct wait *wait = wait_new(reactor);
    if (!wait)
        return -ENOMEM;
    wait->disk = disk_get(disk);
    wait->mirror = mirror_get(mirror);
    wait->task.run = attach_start;
    reactor_post(reactor, &wait->task);
    return wait_for(wait, timeout_ns);
}
