/* lost: pages of a disk that could not be read. A bitmap for each region that has any, so that a disk of which every
 * other page is gone costs 40 bytes a MiB. Not locked: its owner is. */
#pragma once

#include <stddef.h>

#include "io/extent.h"

#define LOST_PAGE 4096u /* the smallest unit that is given up */

struct lost_region {
    uint64_t region;
    uint64_t pages[REGION_SIZE / LOST_PAGE / 64];
};

/* Zero-filled: none. */
struct lost {
    struct lost_region *list; /* ascending */
    size_t count, room;
};

/* Does the error of a read say that the medium cannot be read there? What says that nobody answers does not count. */
bool lost_by(int error);

/* Every page that the extent touches. 0 or -ENOMEM: nothing is added. */
int lost_add(struct lost *lost, struct extent extent);
/* Every page that lies wholly in the extent, which may end at UINT64_MAX: these bytes are known again. */
void lost_remove(struct lost *lost, struct extent extent);
bool lost_overlaps(const struct lost *lost, struct extent extent);
/* The first run of lost pages that ends after from, from its beginning or from; false: none. */
bool lost_run(const struct lost *lost, uint64_t from, struct extent *out);
/* How many bytes below size, in how many runs. */
uint64_t lost_bytes(const struct lost *lost, uint64_t size, uint64_t *runs);
int lost_copy(struct lost *to, const struct lost *from); /* 0 or -ENOMEM */
void lost_free(struct lost *lost);
