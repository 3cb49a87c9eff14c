/* What the tests of a disk stand on: puppet images. An io stays in flight until the test ends it. */
#pragma once

#include <criterion/criterion.h>

#include <errno.h>
#include <unistd.h>

#include "io/datastore.h"
#include "io/disk.h"
#include "io/mirror.h"

#define SIZE (4 * REGION_SIZE)

/* ---- puppets ---- */

struct puppet {
    struct image image;
    struct io *in_flight[16];
    int count;
    bool closed;
};

static inline void puppet_submit(struct image *image, struct io *io)
{
    struct puppet *puppet = container_of(image, struct puppet, image);
    puppet->in_flight[puppet->count++] = io;
}

static inline void puppet_close(struct image *image)
{
    container_of(image, struct puppet, image)->closed = true;
}

static void (*fenced_call)(void *argument);
static void *fenced_argument;

static inline void puppet_fence(struct image *image, void (*fenced)(void *argument), void *argument)
{
    fenced_call = fenced;
    fenced_argument = argument;
}

static const struct image_ops puppet_ops = {puppet_submit, puppet_fence, puppet_close};
static struct datastore store;
static struct puppet source, target;
static struct disk *disk;
static struct mirror *mirror;
static struct reactor *reactor;
static int drops, drop_error;

static inline void puppet_init(struct puppet *puppet)
{
    memset(puppet, 0, sizeof(*puppet));
    image_init(&puppet->image, &puppet_ops, &store, SIZE);
    puppet->image.limits = (struct image_limits){512, 1 << 20, true, true, true, true};
}

static inline void diverged(void *job, struct extent extent, enum verb verb, int error)
{
    drops++;
    drop_error = error;
}

static const struct mirror_hooks hooks = {.diverged = diverged};

static inline void setup(void)
{
    store.timeout_ns = 150000000;
    strcpy(store.name, "store");
    cr_assert_eq(pool_open(&store.pool, "store", 2), 0);
    cr_assert_eq(reactor_start(&reactor, 0), 0);
    puppet_init(&source);
    puppet_init(&target);
    cr_assert_eq(disk_new(&disk, 7, &source.image), 0);
    cr_assert_eq(mirror_new(&mirror, &target.image, SIZE, 50000000, &hooks, &drops), 0);
    cr_assert_eq(disk_attach(disk, mirror), 0);
}

/* ---- requests ---- */

struct asked {
    struct disk_io io;
    struct iovec iov;
    bool answered, released;
};

static uint8_t memory[1 << 20];

static inline void answered(struct disk_io *io)
{
    container_of(io, struct asked, io)->answered = true;
}

static inline void released(struct disk_io *io)
{
    container_of(io, struct asked, io)->released = true;
}

static inline void submit_here(void *argument)
{
    struct asked *asked = argument;
    disk_submit(disk, &asked->io);
}

static inline void ask(struct asked *asked, enum verb verb, uint64_t start, uint64_t end)
{
    memset(asked, 0, sizeof(*asked));
    asked->iov = (struct iovec){memory, verb == VERB_READ || verb == VERB_WRITE ? end - start : 0};
    asked->io = (struct disk_io){.verb = verb,
        .extent = {start, end},
        .iov = &asked->iov,
        .iov_count = 1,
        .answered = answered,
        .released = released};
    reactor_call(reactor, submit_here, asked);
}

static inline void nothing(void *argument)
{
}

/* Ends the oldest io of the puppet and lets the reactor digest it. */
static inline void end(struct puppet *puppet, int result)
{
    cr_assert_gt(puppet->count, 0, "nothing is in flight");
    struct io *io = puppet->in_flight[0];
    memmove(puppet->in_flight, puppet->in_flight + 1, sizeof(io) * (size_t)--puppet->count);
    io_finish(io, result);
    for (int i = 0; i < 4; i++)
        reactor_call(reactor, nothing, NULL);
}

static inline void expire(void *argument)
{
    disk_expire(reactor);
}

static inline void wait_and_expire(useconds_t us)
{
    usleep(us);
    reactor_call(reactor, expire, NULL);
}

static inline void unpark(void *argument)
{
    disk_unpark(reactor);
}

static inline void route_all(void)
{
    mirror_set_routed(mirror, (struct extent){0, SIZE});
}
