/* carrier: the raw image that a volume lies on, reached from any thread: a reactor of its own sends what is not a
 * guest's. */
#pragma once

#include "backends/volume/format.h"
#include "io/datastore.h"

struct carrier {
    struct image *image;
    struct reactor *reactor; /* REACTOR_NAMES */
    uint32_t block;
};

/* Takes no reference. 0 or -errno. */
int carrier_open(struct carrier *carrier, struct image *image);
void carrier_close(struct carrier *carrier);

/* One verb, waits for it; not from a reactor. memory: READ's or WRITE's, any length that is a multiple of block. */
int carrier_call(
    struct carrier *carrier, enum verb verb, unsigned flags, uint64_t start, uint64_t length, void *memory);
int carrier_read(struct carrier *carrier, uint64_t start, uint64_t length, void *memory);
int carrier_write(struct carrier *carrier, uint64_t start, uint64_t length, const void *memory);
int carrier_flush(struct carrier *carrier);

/* The same bytes at two places, side by side; on the carrier's reactor, nothing waits. done is called on the reactor
 * once, not from within. Owned by the caller until then. */
struct copies {
    struct carrier *carrier;
    uint64_t at[2];
    const uint8_t *memory;
    uint64_t length;
    void (*done)(struct copies *copies, int result);
    /* own */
    uint64_t sent;
    unsigned in_flight;
    int result;
    struct {
        struct io io;
        struct iovec iov;
    } part[2];
};
void copies_write(struct copies *copies);
