/* image: one copy of a disk's bytes on one datastore, behind the one checked submit. Nobody calls image_ops but
 * io/image.c, which asserts the contract of every verb (range, state, capability, exactly-once completion) and emulates
 * zero, punch and allocate where a backend lacks them, so that a disk's contract is constant for its life (law 11). */
#pragma once

#include <stdatomic.h>

#include "io/io.h"

struct datastore;
struct image;

/* Asked once at open. */
struct image_limits {
    uint32_t block;        /* alignment that IO_DIRECT needs to be honoured, a power of two; others take the slow way */
    uint32_t max_transfer; /* bytes in one READ or WRITE; submit splits nothing: callers stay below 1 MiB, backends take
                              that */
    bool can_zero, can_punch, can_allocate, can_map;
};

struct image_ops {
    /* Starts io and returns; io_finish(io, result) is called later, once, from any thread, never from within submit.
     * Must not block: what can block goes to the datastore's pool. */
    void (*submit)(struct image *image, struct io *io);

    /* Proof for law 6: calls fenced(argument) on a thread of its choice once no write that an earlier process sent to
     * this image, or that this process gave up on, can land any more. */
    void (*fence)(struct image *image, void (*fenced)(void *argument), void *argument);

    /* No io is in flight. May block; called from the datastore's pool. */
    void (*close)(struct image *image);
};

struct image {
    const struct image_ops *ops;
    struct datastore *datastore;
    struct image_limits limits;
    _Atomic uint64_t size;      /* bytes; kept by the checked middle after RESIZE and growing WRITEs */
    _Atomic uint32_t in_flight; /* ios submitted and not done */
    _Atomic uint32_t references;
    struct work closing;
};

/* For backends: fills the parts that the middle owns. */
void image_init(struct image *image, const struct image_ops *ops, struct datastore *datastore, uint64_t size);

/* From a reactor's thread. io->done is called on the same reactor. Never blocks, never calls done itself. */
void image_submit(struct image *image, struct io *io);

/* For backends: io has ended. Any thread. */
void io_finish(struct io *io, int result);

void image_fence(struct image *image, void (*fenced)(void *argument), void *argument);

/* References; the last put closes the image on its datastore's pool. Any thread, never blocks. */
struct image *image_get(struct image *image);
void image_put(struct image *image);

/* As the last image_put, on this thread: returns when it is closed. For who has the only reference and will end the
 * reactor that it was used from. Blocks. */
void image_close(struct image *image);
