#include "call.h"

#include <pthread.h>

struct call {
    struct io io;
    struct image *image;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool done;
};

static void call_done(struct io *io)
{
    struct call *call = container_of(io, struct call, io);
    pthread_mutex_lock(&call->mutex);
    call->done = true;
    pthread_cond_signal(&call->ended);
    pthread_mutex_unlock(&call->mutex);
}

static void call_start(void *argument)
{
    struct call *call = argument;
    image_submit(call->image, &call->io);
}

int call_verb(struct reactor *reactor, struct image *image, enum verb verb, unsigned flags, uint64_t start,
    uint64_t end, void *memory)
{
    struct iovec iov = {memory, end - start};
    struct call call = {.io = {.verb = verb, .flags = flags, .extent = {start, end}, .iov = &iov, .done = call_done},
        .image = image,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .ended = PTHREAD_COND_INITIALIZER};
    call.io.iov_count = memory ? 1 : 0;
    reactor_call(reactor, call_start, &call);
    pthread_mutex_lock(&call.mutex);
    while (!call.done)
        pthread_cond_wait(&call.ended, &call.mutex);
    pthread_mutex_unlock(&call.mutex);
    pthread_cond_destroy(&call.ended);
    pthread_mutex_destroy(&call.mutex);
    return call.io.result;
}
