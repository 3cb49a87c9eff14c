/* Maps of a volume's files against a plain array, and the space that they are taken from. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "backends/volume/map.h"
#include "backends/volume/records.h"
#include "backends/volume/space.h"

#define EXTENTS 300u

struct plain {
    uint32_t physical; /* 0: hole */
    bool bits[VOLUME_BLOCKS];
};

static unsigned random_state;

static unsigned pick(unsigned count)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % count;
}

static void compare(const struct map *map, const struct plain *plain)
{
    struct cursor cursor;
    uint64_t runs = 0, extents = 0;
    uint32_t last = 0;
    for (const struct run *run = map_from(map, 0, &cursor); run; run = map_next(map, &cursor)) {
        cr_assert(runs == 0 || run->logical >= last, "runs overlap");
        last = run->logical + run->count;
        runs++;
        extents += run->count;
    }
    cr_assert_eq(runs, map->runs);
    cr_assert_eq(extents, map->extents);
    for (uint32_t i = 0; i < EXTENTS; i++) {
        const struct run *run = map_at(map, i);
        cr_assert_eq(run != NULL, plain[i].physical != 0);
        if (!run)
            continue;
        cr_assert_eq(run->physical + (i - run->logical), plain[i].physical);
        for (uint32_t block = 0; block < VOLUME_BLOCKS; block += 1 + pick(40)) {
            uint64_t until, place;
            bool written = map_written(map, (uint64_t)i * VOLUME_BLOCKS + block, UINT64_MAX, &until, &place);
            cr_assert_eq(written, plain[i].bits[block]);
            cr_assert_eq(place, (uint64_t)plain[i].physical * VOLUME_BLOCKS + block);
            cr_assert_gt(until, (uint64_t)i * VOLUME_BLOCKS + block);
            uint64_t end = until < (i + 1ull) * VOLUME_BLOCKS ? until - (uint64_t)i * VOLUME_BLOCKS : VOLUME_BLOCKS;
            for (uint64_t b = block; b < end; b++)
                cr_assert_eq(plain[i].bits[b], written);
        }
    }
}

static void change(struct map *map, struct plain *plain)
{
    uint32_t start = pick(EXTENTS), count = 1 + pick(pick(2) ? 3 : EXTENTS - start);
    count = count > EXTENTS - start ? EXTENTS - start : count;
    struct run run = {.logical = start, .count = count, .physical = 1000 + start * (1 + pick(2) * 5)};
    switch (pick(4)) {
    case 0:
        run.state = RUN_HOLE;
        break;
    case 1:
        run.state = RUN_UNWRITTEN;
        break;
    case 2:
        run.state = RUN_WRITTEN;
        break;
    default: {
        uint32_t from = pick(VOLUME_BLOCKS), to = from + 1 + pick(VOLUME_BLOCKS - from);
        bool written = pick(2);
        int changed = map_mark(map, start, from, to, written);
        bool any = false;
        for (uint32_t b = from; plain[start].physical && b < to; b++) {
            any |= plain[start].bits[b] != written;
            plain[start].bits[b] = written;
        }
        cr_assert_eq(changed, any);
        return;
    }
    }
    cr_assert_eq(map_set(map, &run), 0);
    for (uint32_t i = 0; i < count; i++) {
        plain[start + i].physical = run.state == RUN_HOLE ? 0 : run.physical + i;
        memset(plain[start + i].bits, run.state == RUN_WRITTEN, sizeof(plain[0].bits));
    }
}

Test(volume_map, is_as_an_array)
{
    struct plain *plain = calloc(EXTENTS, sizeof(*plain));
    for (unsigned seed = 1; seed < 6; seed++) {
        struct map map = {0};
        random_state = seed;
        memset(plain, 0, EXTENTS * sizeof(*plain));
        for (unsigned i = 0; i < 1500; i++) {
            change(&map, plain);
            if (i % 50 == 0)
                compare(&map, plain);
        }
        compare(&map, plain);
        map_clear(&map);
        compare(&map, memset(plain, 0, EXTENTS * sizeof(*plain)));
    }
    free(plain);
}

Test(volume_map, joins_what_is_written_one_after_the_other)
{
    struct map map = {0};
    for (uint32_t i = 0; i < 100000; i++)
        cr_assert_eq(
            map_set(&map, &(struct run){.logical = i, .physical = 50 + i, .count = 1, .state = RUN_WRITTEN}), 0);
    cr_assert_eq(map.runs, 1);
    cr_assert_eq(map.blocks, 100000ull * VOLUME_BLOCKS);
    map_clear(&map);
}

Test(volume_map, goes_through_records_and_back)
{
    struct plain *plain = calloc(EXTENTS, sizeof(*plain));
    struct tree tree, other;
    struct stream stream = {0};
    struct stat st = {.st_mode = S_IFREG | 0640};
    cr_assert_eq(nodes_open(&tree, false), 0);
    cr_assert_eq(nodes_open(&other, true), 0);
    struct volume_node *node = nodes_new(&tree, 0);
    node->st.st_mode = st.st_mode;
    node->st.st_size = 123456789;
    cr_assert_eq(nodes_set_name(node, "disk", 4), 0);
    nodes_attach(&tree, tree.root, node);
    random_state = 77;
    for (unsigned i = 0; i < 4000; i++)
        change(&node->map, plain);
    uint64_t nodes, runs, id = node->id;
    record_all(&stream, &tree, &nodes, &runs);
    cr_assert_eq(nodes, 2);
    cr_assert_eq(runs, node->map.runs);
    struct reader reader = {stream.memory, stream.size, 0};
    struct sentence why = {""};
    int error;
    for (const struct disk_record *record; (record = reader_next(&reader, &error));)
        cr_assert_eq(record_apply(&other, record, &why), 0, "%s", why.text);
    cr_assert_eq(error, 0);
    struct volume_node *back = nodes_by_id(&other, id);
    cr_assert(back && back->st.st_size == 123456789 && back->map.blocks == node->map.blocks);
    compare(&back->map, plain);
    stream_free(&stream);
    nodes_close(&tree);
    nodes_close(&other);
    free(plain);
}

Test(volume_space, gives_long_runs_and_takes_them_back)
{
    struct space space;
    uint32_t start, other;
    cr_assert_eq(space_open(&space, 1000), 0);
    cr_assert(space_take(&space, 0, 10));
    cr_assert_not(space_take(&space, 5, 10), "twice");
    cr_assert_not(space_take(&space, 990, 20), "behind the end");
    cr_assert_eq(space.free, 1000 - 15 - 10);
    cr_assert_eq(space_find(&space, 0, 20, 100, &start), 20);
    cr_assert_eq(space_find(&space, 0, 20, 100, &other), 20);
    cr_assert_geq(other, start + 100, "the next one leaves room to grow");
    uint32_t more;
    cr_assert_eq(space_find(&space, start + 20, 5, 100, &more), 5);
    cr_assert_eq(more, start + 20, "a file goes on where it ended");
    uint32_t total = 45, count;
    while ((count = space_find(&space, 0, 64, 100, &start)) > 0)
        total += count;
    cr_assert_eq(total, 1000 - 25);
    cr_assert_eq(space.free, 0);
    space_give(&space, 700, 3);
    cr_assert_eq(space_find(&space, 0, 64, 100, &start), 3);
    cr_assert_eq(start, 700);
    space_close(&space);
}

Test(volume_ranges, are_settled)
{
    struct ranges ranges = {0};
    bool set[4096] = {false};
    random_state = 3;
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t start = pick(4000), end = start + 1 + pick(8);
        cr_assert_eq(ranges_add(&ranges, start, end), 0);
        memset(set + start, true, end - start);
    }
    cr_assert_lt(ranges.room, 4096, "it does not grow with what is told twice");
    ranges_settle(&ranges);
    uint32_t at = 0;
    for (uint32_t i = 0; i < ranges.count; i++) {
        for (; at < ranges.list[i].start; at++)
            cr_assert_not(set[at]);
        for (; at < ranges.list[i].end; at++)
            cr_assert(set[at]);
    }
    for (; at < 4096; at++)
        cr_assert_not(set[at]);
    ranges_clear(&ranges);
}
