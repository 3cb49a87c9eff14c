#include "backends/volume/carrier.h"

#include <pthread.h>

#define PIECE (1u << 20)

int carrier_open(struct carrier *carrier, struct image *image)
{
    carrier->image = image;
    carrier->block = image->limits.block < 512 ? 512 : image->limits.block;
    return reactor_start(&carrier->reactor, REACTOR_NAMES);
}

void carrier_close(struct carrier *carrier)
{
    reactor_stop(carrier->reactor);
    carrier->reactor = NULL;
}

/* ---- calls that wait ---- */

struct call {
    struct io io;
    struct task task;
    struct carrier *carrier;
    struct iovec iov;
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

static void call_start(struct task *task)
{
    struct call *call = container_of(task, struct call, task);
    image_submit(call->carrier->image, &call->io);
}

static int call_once(
    struct carrier *carrier, enum verb verb, unsigned flags, uint64_t start, uint64_t length, void *memory)
{
    struct call call = {.io = {.verb = verb, .flags = flags, .extent = {start, start + length}, .done = call_done},
        .task.run = call_start,
        .carrier = carrier,
        .iov = {memory, length},
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .ended = PTHREAD_COND_INITIALIZER};
    call.io.iov = &call.iov;
    call.io.iov_count = memory ? 1 : 0;
    reactor_post(carrier->reactor, &call.task);
    pthread_mutex_lock(&call.mutex);
    while (!call.done)
        pthread_cond_wait(&call.ended, &call.mutex);
    pthread_mutex_unlock(&call.mutex);
    pthread_cond_destroy(&call.ended);
    pthread_mutex_destroy(&call.mutex);
    return call.io.result;
}

int carrier_call(struct carrier *carrier, enum verb verb, unsigned flags, uint64_t start, uint64_t length, void *memory)
{
    int error = 0;
    if (!memory)
        return call_once(carrier, verb, flags, start, length, NULL);
    for (uint64_t at = 0; at < length && !error; at += PIECE) {
        uint64_t part = length - at < PIECE ? length - at : PIECE;
        error = call_once(carrier, verb, flags, start + at, part, (uint8_t *)memory + at);
    }
    return error;
}

int carrier_read(struct carrier *carrier, uint64_t start, uint64_t length, void *memory)
{
    return carrier_call(carrier, VERB_READ, IO_DIRECT, start, length, memory);
}

int carrier_write(struct carrier *carrier, uint64_t start, uint64_t length, const void *memory)
{
    return carrier_call(carrier, VERB_WRITE, IO_DIRECT, start, length, (void *)(uintptr_t)memory);
}

int carrier_flush(struct carrier *carrier)
{
    return carrier_call(carrier, VERB_FLUSH, 0, 0, 0, NULL);
}

/* ---- two copies ---- */

static void send_pieces(struct copies *copies);

static void part_done(struct copies *copies, int result)
{
    if (result < 0 && !copies->result)
        copies->result = result;
    if (--copies->in_flight > 0)
        return;
    if (copies->result || copies->sent == copies->length)
        copies->done(copies, copies->result);
    else
        send_pieces(copies);
}

static void first_done(struct io *io)
{
    part_done(container_of(io, struct copies, part[0].io), io->result);
}

static void second_done(struct io *io)
{
    part_done(container_of(io, struct copies, part[1].io), io->result);
}

static void send_pieces(struct copies *copies)
{
    uint64_t left = copies->length - copies->sent, length = left < PIECE ? left : PIECE;
    void *memory = (void *)(uintptr_t)(copies->memory + copies->sent);
    copies->in_flight = 2;
    for (int i = 0; i < 2; i++) {
        uint64_t start = copies->at[i] + copies->sent;
        copies->part[i].iov = (struct iovec){memory, length};
        copies->part[i].io = (struct io){.verb = VERB_WRITE,
            .flags = IO_DIRECT,
            .extent = {start, start + length},
            .iov = &copies->part[i].iov,
            .iov_count = 1,
            .done = i ? second_done : first_done};
    }
    copies->sent += length;
    for (int i = 0; i < 2; i++)
        image_submit(copies->carrier->image, &copies->part[i].io);
}

void copies_write(struct copies *copies)
{
    copies->sent = 0;
    copies->result = 0;
    send_pieces(copies);
}
