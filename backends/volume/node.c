/* Changes of where a file's bytes lie. */
#include <errno.h>

#include "backends/volume/node.h"

#define AHEAD_MAX 1024u /* extents that a file which grows may find in one run, where there is that much */

int node_punch(struct volume *volume, struct volume_node *node, uint32_t start, uint32_t end)
{
    struct cursor cursor;
    struct run *run;
    while ((run = map_from(&node->map, start, &cursor)) && run->logical < end) {
        uint32_t from = run->logical > start ? run->logical : start;
        uint32_t to = run->logical + run->count < end ? run->logical + run->count : end;
        uint32_t physical = run->physical + (from - run->logical);
        int error = nodes_dirty_runs(&volume->tree, node, from, to);
        if (!error)
            error = map_set(&node->map, &(struct run){.logical = from, .count = to - from, .state = RUN_HOLE});
        if (error)
            return error;
        release_extents(volume, node, physical, to - from);
        start = to;
    }
    return 0;
}

void node_release(struct volume *volume, struct volume_node *node)
{
    struct cursor cursor;
    if (!node->unlinked || node->opens > 0)
        return;
    for (const struct run *run = map_from(&node->map, 0, &cursor); run; run = map_next(&node->map, &cursor))
        release_extents(volume, node, run->physical, run->count);
    nodes_drop(&volume->tree, node);
    release_ready(volume);
}

/* Extents of [start, end) that are in no run. */
static uint64_t holes(const struct map *map, uint32_t start, uint32_t end)
{
    struct cursor cursor;
    uint64_t count = 0;
    for (const struct run *run = map_from(map, start, &cursor); run && run->logical < end;
         run = map_next(map, &cursor)) {
        if (run->logical > start)
            count += run->logical - start;
        start = run->logical + run->count;
    }
    return count + (start < end ? end - start : 0);
}

static int fill_hole(struct volume *volume, struct volume_node *node, uint32_t start, uint32_t end, uint8_t state)
{
    while (start < end) {
        const struct run *before = start > 0 ? map_at(&node->map, start - 1) : NULL;
        uint32_t goal = before ? before->physical + (start - before->logical) : 0, place;
        uint32_t ahead = volume->space.extents / 16 < AHEAD_MAX ? volume->space.extents / 16 : AHEAD_MAX;
        uint32_t count = space_find(&volume->space, goal, end - start, ahead, &place);
        int error = count ? nodes_dirty_runs(&volume->tree, node, start, start + count) : -ENOSPC;
        if (!error && state == RUN_UNWRITTEN)
            error = map_set(
                &node->map, &(struct run){.logical = start, .physical = place, .count = count, .state = state});
        for (uint32_t i = 0; !error && state == RUN_PARTIAL && i < count; i++)
            error = map_set(
                &node->map, &(struct run){.logical = start + i, .physical = place + i, .count = 1, .state = state});
        if (error)
            return error; /* -ENOMEM: what was taken is free again when the volume is opened */
        start += count;
    }
    return 0;
}

int node_allocate(struct volume *volume, struct volume_node *node, uint32_t start, uint32_t end, bool reserved)
{
    uint64_t needed = holes(&node->map, start, end);
    if (needed == 0)
        return 0;
    if (needed > volume->space.free)
        return needed > volume->space.free + volume->releaser.extents ? -ENOSPC : -EAGAIN;
    while (start < end) {
        struct cursor cursor;
        const struct run *run = map_from(&node->map, start, &cursor);
        uint32_t until = run && run->logical < end ? run->logical : end;
        if (start < until) {
            int error = fill_hole(volume, node, start, until, reserved ? RUN_UNWRITTEN : RUN_PARTIAL);
            if (error)
                return error;
        }
        run = map_from(&node->map, until, &cursor);
        start = until < end && run ? run->logical + run->count : end;
    }
    return 0;
}

int node_reserve(struct volume *volume, struct volume_node *node, uint32_t start, uint32_t end)
{
    struct cursor cursor;
    const struct run *run;
    while ((run = map_from(&node->map, start, &cursor)) && run->logical < end) {
        struct run own = *run;
        start = own.logical + own.count;
        if (own.state != RUN_PARTIAL || (own.flags & RUN_RESERVED))
            continue;
        own.flags |= RUN_RESERVED;
        int error = nodes_dirty_runs(&volume->tree, node, own.logical, own.logical + 1);
        if (!error)
            error = map_set(&node->map, &own);
        if (error)
            return error;
    }
    return 0;
}

int node_mark(struct volume *volume, struct volume_node *node, uint64_t from, uint64_t to, bool written)
{
    while (from < to) {
        uint32_t logical = (uint32_t)(from / VOLUME_BLOCKS);
        uint64_t first = (uint64_t)logical * VOLUME_BLOCKS;
        uint64_t until = first + VOLUME_BLOCKS < to ? first + VOLUME_BLOCKS : to;
        int changed = map_mark(&node->map, logical, (uint32_t)(from - first), (uint32_t)(until - first), written);
        if (changed > 0)
            changed = nodes_dirty_runs(&volume->tree, node, logical, logical + 1);
        if (changed < 0)
            return changed;
        from = until;
    }
    return 0;
}

bool node_written(const struct volume_node *node, uint64_t block)
{
    uint64_t until, place;
    return map_written(&node->map, block, UINT64_MAX, &until, &place);
}
