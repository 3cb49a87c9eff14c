/* unflushed: what was written to an image and answered since its server last made it durable, with the bytes (law 10):
 * a server that loses its cache gets it again. Every byte is held once, the newest; bounded: what is above the budget
 * must be flushed before more is answered. For backends whose server has a cache that can be lost. Thread-safe. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "io/extent.h"

struct unflushed;

/* One run of bytes that must be written again. memory NULL: zeroes. */
struct unflushed_run {
    struct extent extent;
    const void *memory; /* until unflushed_put */
    void *handle;
};

int unflushed_new(struct unflushed **out, uint64_t budget);
void unflushed_free(struct unflushed *unflushed);

/* A write, or (iov NULL) a zeroing, was answered by the server under stamp: the verifier of that answer, or the number
 * of the session's cache. Call before the io is finished, and in the order in which overlapping writes were answered.
 * What it overlaps is replaced. 0; -ENOMEM: it is not held, the caller flushes before it answers. */
int unflushed_add(
    struct unflushed *unflushed, struct extent extent, const struct iovec *iov, int iov_count, uint64_t stamp);

/* The same; the extent's bytes begin skip bytes into the iov, which may go on behind them. */
int unflushed_add_from(struct unflushed *unflushed, struct extent extent, const struct iovec *iov, int iov_count,
    uint64_t skip, uint64_t stamp);

/* The image ends there now. */
void unflushed_truncate(struct unflushed *unflushed, uint64_t size);

/* Held bytes; above the budget? */
uint64_t unflushed_bytes(struct unflushed *unflushed);
bool unflushed_full(struct unflushed *unflushed);

/* A flush is about to be sent: returns the mark that settles what was added before. */
uint64_t unflushed_mark(struct unflushed *unflushed);
/* The flush was answered under stamp. What was added before mark bearing that stamp is durable and forgotten. True: all
 * that was added before mark bore it; false: the rest was lost by the server and must be written again. */
bool unflushed_settle(struct unflushed *unflushed, uint64_t mark, uint64_t stamp);

/* The next run at or after offset that does not bear stamp, at most most bytes; false: there is none. It stays as it is
 * until a write of the same extent is added (with the new stamp) or it is settled. put gives the memory back. */
bool unflushed_lost(
    struct unflushed *unflushed, uint64_t offset, uint64_t stamp, uint64_t most, struct unflushed_run *run);
void unflushed_put(struct unflushed *unflushed, struct unflushed_run *run);
