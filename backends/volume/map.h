/* map: what of a file lies where on a volume: runs of extents, sorted by their place in the file, with the written bits
 * of the extents that are partly written. Leaves of up to 64 runs keep an insertion cheap with a million fragments. No
 * locks, no I/O. */
#pragma once

#include "backends/volume/format.h"

struct run {
    uint32_t logical, physical, count; /* extents */
    uint8_t state;                     /* enum run_state */
    uint8_t flags;
    uint64_t bits[VOLUME_BLOCKS / 64]; /* RUN_PARTIAL's */
};

struct leaf;

/* Zero-filled: empty. */
struct map {
    struct leaf **leaves;
    uint32_t leaf_count, leaf_room;
    uint64_t runs, extents; /* how many are there; allocated */
    uint64_t blocks;        /* reserved as whole extents or written: what stat(2) tells */
};

struct cursor {
    uint32_t leaf, at;
};

void map_clear(struct map *map);

/* The run that holds the extent; NULL: a hole. Valid until the map changes. */
struct run *map_at(const struct map *map, uint32_t logical);
/* The first run that ends behind logical, and those that follow it; NULL: no more. */
struct run *map_from(const struct map *map, uint32_t logical, struct cursor *cursor);
struct run *map_next(const struct map *map, struct cursor *cursor);
/* NULL: the map is empty. */
struct run *map_last(const struct map *map);

/* Replaces what is in [logical, logical + count) by the run (RUN_HOLE: by nothing); joins it to its neighbours where it
 * can. Runs without a bit become RUN_UNWRITTEN or stay; with all bits RUN_WRITTEN. 0 or -ENOMEM (unchanged). */
int map_set(struct map *map, const struct run *run);

/* Blocks [from, to) of the extent, which is allocated, are written now, or not any more. 1: something changed, 0, or
 * -ENOMEM. */
int map_mark(struct map *map, uint32_t logical, uint32_t from, uint32_t to, bool written);

/* Is the block written? Where does that change (a block number, at most most)? */
bool map_written(const struct map *map, uint64_t block, uint64_t most, uint64_t *until, uint64_t *physical_block);

bool run_bit(const struct run *run, uint32_t block);
