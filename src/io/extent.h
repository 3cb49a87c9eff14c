/* A byte range, half open: [start, end). Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define REGION_SIZE (1ull << 20) /* the unit of bookkeeping */

struct extent {
    uint64_t start, end;
};

static inline uint64_t extent_length(struct extent e)
{
    return e.end - e.start;
}

static inline bool extent_empty(struct extent e)
{
    return e.start >= e.end;
}

static inline bool extent_overlaps(struct extent a, struct extent b)
{
    return a.start < b.end && b.start < a.end;
}

static inline struct extent extent_intersect(struct extent a, struct extent b)
{
    struct extent e = {a.start > b.start ? a.start : b.start, a.end < b.end ? a.end : b.end};
    if (e.end < e.start)
        e.end = e.start;
    return e;
}

/* Rounded out to multiples of block (a power of two). The end saturates. */
static inline struct extent extent_round_out(struct extent e, uint64_t block)
{
    uint64_t end = e.end > UINT64_MAX - block ? UINT64_MAX - block + 1 : (e.end + block - 1) & ~(block - 1);
    return (struct extent){e.start & ~(block - 1), end};
}

static inline bool extent_aligned(struct extent e, uint64_t block)
{
    return ((e.start | e.end) & (block - 1)) == 0;
}

static inline uint64_t region_of(uint64_t offset)
{
    return offset / REGION_SIZE;
}
