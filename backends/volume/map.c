#include "backends/volume/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LEAF_RUNS  64u
#define LEAF_FIRST 4u

struct leaf {
    uint32_t count, room;
    struct run runs[];
};

bool run_bit(const struct run *run, uint32_t block)
{
    return run->bits[block / 64] >> (block % 64) & 1;
}

static uint32_t bits_set(const struct run *run)
{
    uint32_t set = 0;
    for (unsigned i = 0; i < VOLUME_BLOCKS / 64; i++)
        set += (uint32_t)__builtin_popcountll(run->bits[i]);
    return set;
}

static uint64_t blocks_of(const struct run *run)
{
    if (run->state == RUN_PARTIAL && !(run->flags & RUN_RESERVED))
        return bits_set(run);
    return (uint64_t)run->count * VOLUME_BLOCKS;
}

static void count_in(struct map *map, const struct run *run)
{
    map->runs++;
    map->extents += run->count;
    map->blocks += blocks_of(run);
}

static void count_out(struct map *map, const struct run *run)
{
    map->runs--;
    map->extents -= run->count;
    map->blocks -= blocks_of(run);
}

void map_clear(struct map *map)
{
    for (uint32_t i = 0; i < map->leaf_count; i++)
        free(map->leaves[i]);
    free(map->leaves);
    *map = (struct map){0};
}

static struct run *run_at(const struct map *map, const struct cursor *cursor)
{
    return cursor->leaf < map->leaf_count ? &map->leaves[cursor->leaf]->runs[cursor->at] : NULL;
}

static uint32_t end_of(const struct run *run)
{
    return run->logical + run->count;
}

struct run *map_from(const struct map *map, uint32_t logical, struct cursor *cursor)
{
    uint32_t low = 0, high = map->leaf_count;
    while (low < high) { /* the first leaf whose last run ends behind logical */
        uint32_t middle = low + (high - low) / 2;
        const struct leaf *leaf = map->leaves[middle];
        if (end_of(&leaf->runs[leaf->count - 1]) > logical)
            high = middle;
        else
            low = middle + 1;
    }
    *cursor = (struct cursor){.leaf = low};
    if (low == map->leaf_count)
        return NULL;
    const struct leaf *leaf = map->leaves[low];
    uint32_t from = 0, to = leaf->count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (end_of(&leaf->runs[middle]) > logical)
            to = middle;
        else
            from = middle + 1;
    }
    cursor->at = from;
    return run_at(map, cursor);
}

struct run *map_next(const struct map *map, struct cursor *cursor)
{
    if (cursor->leaf < map->leaf_count && ++cursor->at == map->leaves[cursor->leaf]->count)
        *cursor = (struct cursor){.leaf = cursor->leaf + 1};
    return run_at(map, cursor);
}

struct run *map_at(const struct map *map, uint32_t logical)
{
    struct cursor cursor;
    struct run *run = map_from(map, logical, &cursor);
    return run && run->logical <= logical ? run : NULL;
}

struct run *map_last(const struct map *map)
{
    if (map->leaf_count == 0)
        return NULL;
    struct leaf *leaf = map->leaves[map->leaf_count - 1];
    return &leaf->runs[leaf->count - 1];
}

/* ---- changes ---- */

static struct leaf *new_leaf(struct map *map, uint32_t at, uint32_t room)
{
    if (map->leaf_count == map->leaf_room) {
        uint32_t wanted = map->leaf_room ? map->leaf_room * 2 : 1;
        struct leaf **leaves = realloc(map->leaves, wanted * sizeof(struct leaf *));
        if (!leaves)
            return NULL;
        map->leaves = leaves;
        map->leaf_room = wanted;
    }
    struct leaf *leaf = malloc(sizeof(*leaf) + room * sizeof(struct run));
    if (!leaf)
        return NULL;
    leaf->count = 0;
    leaf->room = room;
    memmove(map->leaves + at + 1, map->leaves + at, (map->leaf_count - at) * sizeof(struct leaf *));
    map->leaves[at] = leaf;
    map->leaf_count++;
    return leaf;
}

/* The leaf gets room for more runs, being split when it is too long. The cursor goes with its run. */
static int make_room(struct map *map, struct cursor *cursor, uint32_t more)
{
    if (map->leaf_count == 0)
        return new_leaf(map, 0, LEAF_FIRST) ? 0 : -ENOMEM;
    if (cursor->leaf == map->leaf_count) { /* behind all: at the last leaf's end */
        cursor->leaf--;
        cursor->at = map->leaves[cursor->leaf]->count;
    }
    struct leaf *leaf = map->leaves[cursor->leaf];
    if (leaf->count + more <= leaf->room)
        return 0;
    if (leaf->room < LEAF_RUNS) {
        uint32_t room = leaf->room * 4 < LEAF_RUNS ? leaf->room * 4 : LEAF_RUNS;
        leaf = realloc(leaf, sizeof(*leaf) + room * sizeof(struct run));
        if (!leaf)
            return -ENOMEM;
        leaf->room = room;
        map->leaves[cursor->leaf] = leaf;
        return 0;
    }
    struct leaf *right = new_leaf(map, cursor->leaf + 1, LEAF_RUNS);
    if (!right)
        return -ENOMEM;
    /* a file that is written from its start to its end fills its leaves */
    uint32_t keep = cursor->at == leaf->count ? leaf->count - 2 : leaf->count / 2;
    right->count = leaf->count - keep;
    memcpy(right->runs, leaf->runs + keep, right->count * sizeof(struct run));
    leaf->count = keep;
    if (cursor->at >= keep)
        *cursor = (struct cursor){.leaf = cursor->leaf + 1, .at = cursor->at - keep};
    return 0;
}

static void insert_at(struct map *map, const struct cursor *cursor, const struct run *run)
{
    struct leaf *leaf = map->leaves[cursor->leaf];
    memmove(leaf->runs + cursor->at + 1, leaf->runs + cursor->at, (leaf->count - cursor->at) * sizeof(struct run));
    leaf->runs[cursor->at] = *run;
    leaf->count++;
    count_in(map, run);
}

static void remove_at(struct map *map, const struct cursor *cursor)
{
    struct leaf *leaf = map->leaves[cursor->leaf];
    count_out(map, &leaf->runs[cursor->at]);
    leaf->count--;
    memmove(leaf->runs + cursor->at, leaf->runs + cursor->at + 1, (leaf->count - cursor->at) * sizeof(struct run));
    if (leaf->count > 0)
        return;
    free(leaf);
    map->leaf_count--;
    memmove(map->leaves + cursor->leaf, map->leaves + cursor->leaf + 1,
        (map->leaf_count - cursor->leaf) * sizeof(struct leaf *));
}

static bool joins(const struct run *left, const struct run *right)
{
    return left->state == right->state && left->state != RUN_PARTIAL && end_of(left) == right->logical &&
           left->physical + left->count == right->physical;
}

static struct run canonical(const struct run *run)
{
    struct run own = *run;
    if (own.state == RUN_PARTIAL && bits_set(&own) == VOLUME_BLOCKS)
        own.state = RUN_WRITTEN;
    if (own.state == RUN_PARTIAL && bits_set(&own) == 0 && (own.flags & RUN_RESERVED))
        own.state = RUN_UNWRITTEN;
    if (own.state != RUN_PARTIAL) {
        own.flags = 0;
        memset(own.bits, 0, sizeof(own.bits));
    }
    return own;
}

/* A run that begins before the range stays with its first part; behind the range with its last. */
static void cut(struct map *map, uint32_t start, uint32_t end)
{
    struct cursor cursor;
    struct run *run = map_from(map, start, &cursor);
    if (run && run->logical < start) {
        struct run rest = *run;
        count_out(map, run);
        run->count = start - run->logical;
        count_in(map, run);
        if (end_of(&rest) > end) { /* there is room: map_set made it */
            rest.physical += end - rest.logical;
            rest.count = end_of(&rest) - end;
            rest.logical = end;
            cursor.at++;
            insert_at(map, &cursor, &rest);
            return;
        }
    }
    while ((run = map_from(map, start, &cursor)) && run->logical < end) {
        if (end_of(run) > end) {
            count_out(map, run);
            run->physical += end - run->logical;
            run->count = end_of(run) - end;
            run->logical = end;
            count_in(map, run);
            return;
        }
        remove_at(map, &cursor);
    }
}

int map_set(struct map *map, const struct run *run)
{
    struct run own = canonical(run), *near;
    struct cursor cursor;
    map_from(map, own.logical, &cursor);
    if (make_room(map, &cursor, 2) < 0)
        return -ENOMEM;
    if (map->leaves[cursor.leaf]->count == 0) { /* the first of all: an empty leaf is there for it only */
        if (own.state == RUN_HOLE) {
            map_clear(map);
            return 0;
        }
        insert_at(map, &(struct cursor){0}, &own);
        return 0;
    }
    cut(map, own.logical, end_of(&own));
    if (own.state == RUN_HOLE)
        return 0;
    /* into the leaf where there is room: that of the run before, which cut kept, or of the one behind */
    near = own.logical > 0 ? map_at(map, own.logical - 1) : NULL;
    if (near && joins(near, &own)) {
        own.logical = near->logical;
        own.physical = near->physical;
        own.count += near->count;
        map_from(map, near->logical, &cursor);
        remove_at(map, &cursor);
    }
    near = map_at(map, end_of(&own));
    if (near && joins(&own, near)) {
        own.count += near->count;
        map_from(map, near->logical, &cursor);
        remove_at(map, &cursor);
    }
    map_from(map, own.logical, &cursor);
    int error = make_room(map, &cursor, 1);
    if (!error)
        insert_at(map, &cursor, &own);
    return error;
}

int map_mark(struct map *map, uint32_t logical, uint32_t from, uint32_t to, bool written)
{
    const struct run *found = map_at(map, logical);
    if (!found || found->state == (written ? RUN_WRITTEN : RUN_UNWRITTEN))
        return 0;
    struct run one = {.logical = logical,
        .physical = found->physical + (logical - found->logical),
        .count = 1,
        .state = RUN_PARTIAL,
        .flags = found->state == RUN_UNWRITTEN ? RUN_RESERVED : found->flags};
    for (unsigned i = 0; i < VOLUME_BLOCKS / 64; i++)
        one.bits[i] = found->state == RUN_WRITTEN ? UINT64_MAX : found->bits[i];
    uint64_t changed = 0;
    for (uint32_t block = from; block < to; block++) {
        uint64_t bit = 1ull << (block % 64), *word = &one.bits[block / 64];
        changed |= (written ? ~*word : *word) & bit;
        *word = written ? *word | bit : *word & ~bit;
    }
    if (!changed)
        return 0;
    int error = map_set(map, &one);
    return error ? error : 1;
}

bool map_written(const struct map *map, uint64_t block, uint64_t most, uint64_t *until, uint64_t *physical_block)
{
    uint32_t logical = (uint32_t)(block / VOLUME_BLOCKS);
    struct cursor cursor;
    const struct run *run = map_from(map, logical, &cursor);
    uint64_t end = most;
    bool written = false;
    if (run && run->logical > logical) {
        end = (uint64_t)run->logical * VOLUME_BLOCKS;
    } else if (run) {
        uint64_t first = (uint64_t)run->logical * VOLUME_BLOCKS;
        *physical_block = (uint64_t)run->physical * VOLUME_BLOCKS + (block - first);
        end = first + (uint64_t)run->count * VOLUME_BLOCKS;
        written = run->state == RUN_WRITTEN;
        if (run->state == RUN_PARTIAL) {
            uint32_t at = (uint32_t)(block - first);
            written = run_bit(run, at);
            while (++at < VOLUME_BLOCKS && run_bit(run, at) == written)
                ;
            end = first + at;
        }
    }
    *until = end < most ? end : most;
    return written;
}
