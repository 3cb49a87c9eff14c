/* space: which extents of a volume are free. One bit per extent; who asks gets a run as long and as near as there is.
 * No locks, no I/O. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct space {
    uint64_t *used; /* a bit per extent */
    uint32_t extents;
    uint32_t free; /* how many */
    uint32_t next; /* where a new run is looked for first */
};

/* All free. 0 or -ENOMEM. */
int space_open(struct space *space, uint32_t extents);
void space_close(struct space *space);

/* False: a part of it was taken already, or it is not inside; what was free of it is taken. */
bool space_take(struct space *space, uint32_t start, uint32_t count);
void space_give(struct space *space, uint32_t start, uint32_t count);
bool space_is_free(const struct space *space, uint32_t extent);

/* Takes up to want extents in one run, at goal if that is free (goal 0: anywhere), else where a long run of ahead
 * extents or more is free, else where any is. Returns how many, from *start; 0: there is none. */
uint32_t space_find(struct space *space, uint32_t goal, uint32_t want, uint32_t ahead, uint32_t *start);
