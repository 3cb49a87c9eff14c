#include "backends/volume/space.h"

#include <errno.h>
#include <stdlib.h>

int space_open(struct space *space, uint32_t extents)
{
    *space = (struct space){.extents = extents, .free = extents};
    space->used = calloc((size_t)extents / 64 + 1, sizeof(uint64_t));
    return space->used ? 0 : -ENOMEM;
}

void space_close(struct space *space)
{
    free(space->used);
    *space = (struct space){0};
}

bool space_is_free(const struct space *space, uint32_t extent)
{
    return extent < space->extents && !(space->used[extent / 64] >> (extent % 64) & 1);
}

bool space_take(struct space *space, uint32_t start, uint32_t count)
{
    bool all = true;
    for (uint64_t i = start; i < (uint64_t)start + count; i++) {
        if (i >= space->extents)
            return false;
        if (space_is_free(space, (uint32_t)i)) {
            space->used[i / 64] |= 1ull << (i % 64);
            space->free--;
        } else {
            all = false;
        }
    }
    return all;
}

void space_give(struct space *space, uint32_t start, uint32_t count)
{
    for (uint32_t i = start; i < start + count; i++)
        if (i < space->extents && !space_is_free(space, i)) {
            space->used[i / 64] &= ~(1ull << (i % 64));
            space->free++;
        }
}

/* The first extent at or behind from whose bit is value; the end when there is none. */
static uint32_t seek(const struct space *space, uint32_t from, bool value)
{
    while (from < space->extents) {
        uint64_t word = space->used[from / 64];
        word = (value ? word : ~word) >> (from % 64);
        if (word) {
            uint32_t at = from + (uint32_t)__builtin_ctzll(word);
            return at < space->extents ? at : space->extents;
        }
        from = (from / 64 + 1) * 64;
    }
    return space->extents;
}

/* The first free run of at least least extents in [from, to); else the longest that was seen. */
static bool look(
    const struct space *space, uint32_t from, uint32_t to, uint32_t least, uint32_t *best, uint32_t *best_count)
{
    while (from < to) {
        uint32_t start = seek(space, from, false);
        if (start >= to)
            return false;
        uint32_t end = seek(space, start, true);
        if (end - start > *best_count) {
            *best = start;
            *best_count = end - start;
        }
        if (end - start >= least)
            return true;
        from = end;
    }
    return false;
}

uint32_t space_find(struct space *space, uint32_t goal, uint32_t want, uint32_t ahead, uint32_t *start)
{
    uint32_t best = 0, count = 0, least = want > ahead ? want : ahead;
    if (space->free == 0 || want == 0)
        return 0;
    if (goal && space_is_free(space, goal)) {
        best = goal;
        count = seek(space, goal, true) - goal;
    } else {
        if (!look(space, space->next, space->extents, least, &best, &count))
            look(space, 0, space->next, least, &best, &count);
        /* the next file that grows begins behind the room that this one was given */
        space->next = count > least ? best + least : best + count;
        if (space->next >= space->extents)
            space->next = 0;
    }
    if (count > want)
        count = want;
    space_take(space, best, count);
    *start = best;
    return count;
}
