/* The judge of histories, judged: against a search through all orders, and by histories that each break one rule. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>

#include "tests/tools/linear.h"

#define MOST 7

struct op {
    bool write;
    uint64_t begin, end, value;
};

static uint64_t zero(void *opaque, uint64_t place)
{
    return 0;
}

static uint64_t violations(const struct op *ops, unsigned count)
{
    struct linear *linear = linear_new(1, zero, NULL, 1000);
    for (unsigned i = 0; i < count; i++)
        (ops[i].write ? linear_write : linear_read)(linear, 0, ops[i].begin, ops[i].end, ops[i].value);
    struct linear_report report = linear_check(linear);
    linear_free(linear);
    cr_assert(!report.full && report.skipped == 0);
    return report.violations;
}

/* Is there an order? The next one is any that no other, still to come, ended before. */
static bool search(const struct op *ops, unsigned count, unsigned taken, uint64_t value)
{
    bool over = true;
    for (unsigned i = 0; i < count; i++)
        over &= taken >> i & 1 || ops[i].end == LINEAR_NEVER; /* a write that failed may never happen */
    if (over)
        return true;
    for (unsigned i = 0; i < count; i++) {
        bool first = !(taken >> i & 1) && (ops[i].write || ops[i].value == value);
        for (unsigned j = 0; j < count; j++)
            first &= taken >> j & 1 || j == i || ops[j].end > ops[i].begin;
        if (first && search(ops, count, taken | 1u << i, ops[i].write ? ops[i].value : value))
            return true;
    }
    return false;
}

Test(linear, says_the_same_as_a_search_through_all_orders)
{
    unsigned good = 0, bad = 0;
    srand(4711);
    for (unsigned round = 0; round < 60000; round++) {
        struct op ops[MOST];
        unsigned count = 1 + (unsigned)rand() % MOST, writes = 0;
        uint64_t times[2 * MOST];
        for (unsigned i = 0; i < 2 * count; i++) {
            unsigned at = (unsigned)rand() % (i + 1);
            times[i] = times[at];
            times[at] = i + 1;
        }
        for (unsigned i = 0; i < count; i++) {
            uint64_t a = times[2 * i], b = times[2 * i + 1];
            ops[i] = (struct op){.write = rand() % 2, .begin = a < b ? a : b, .end = a < b ? b : a};
            if (ops[i].write) {
                ops[i].value = ++writes;
                if (rand() % 6 == 0)
                    ops[i].end = LINEAR_NEVER;
            }
        }
        for (unsigned i = 0; i < count; i++)
            if (!ops[i].write)
                ops[i].value = (uint64_t)rand() % (writes + 1);
        bool expected = search(ops, count, 0, 0);
        cr_assert_eq(violations(ops, count) == 0, expected, "round %u", round);
        good += expected;
        bad += !expected;
    }
    cr_assert(good > 10000 && bad > 10000, "%u good, %u bad: these histories show nothing", good, bad);
}

Test(linear, two_readers_one_after_the_other_must_not_go_back)
{
    /* both beside the write: each alone may see the old or the new value */
    struct op ops[] = {{true, 1, 10, 1}, {false, 2, 3, 1}, {false, 4, 5, 0}};
    cr_assert_eq(violations(ops, 3), 1);
    ops[1].end = 6; /* they overlap */
    cr_assert_eq(violations(ops, 3), 0);
}

Test(linear, what_was_acknowledged_is_read)
{
    struct op ops[] = {{true, 1, 2, 1}, {true, 3, 4, 2}, {false, 5, 6, 1}};
    cr_assert_eq(violations(ops, 3), 1);
    struct op early[] = {{false, 1, 2, 1}, {true, 3, 4, 1}};
    cr_assert_eq(violations(early, 2), 1);
}

Test(linear, a_failed_write_may_come_late_but_not_twice)
{
    struct op ops[] = {
        {true, 1, LINEAR_NEVER, 1}, {true, 3, 4, 2}, {false, 5, 6, 2}, {false, 7, 8, 1}, {false, 9, 10, 2}};
    cr_assert_eq(violations(ops, 4), 0);
    cr_assert_neq(violations(ops, 5), 0);
}

Test(linear, a_value_that_was_written_twice_names_no_write)
{
    struct linear *linear = linear_new(1, zero, NULL, 1000);
    linear_write(linear, 0, 1, 2, 5);
    linear_write(linear, 0, 3, 4, 0);
    linear_read(linear, 0, 5, 6, 0);
    struct linear_report report = linear_check(linear);
    cr_assert_eq(report.violations, 0);
    cr_assert_eq(report.skipped, 1);
    linear_read(linear, 0, 7, 8, 5); /* the write of zeroes stands between all the same */
    cr_assert_eq(linear_check(linear).violations, 1);
    linear_free(linear);
}

Test(linear, without_room_it_watches_fewer_places)
{
    struct linear *linear = linear_new(8, zero, NULL, 150);
    for (uint64_t i = 1; i < 60; i++)
        for (uint64_t place = 0; place < 8; place++)
            linear_write(linear, place, 20 * i + 2 * place, 20 * i + 2 * place + 1, i);
    linear_read(linear, 0, 2000, 2001, 59);
    struct linear_report report = linear_check(linear);
    cr_assert(report.places >= 1 && report.places <= 2, "%d places", (int)report.places);
    cr_assert(!report.full && report.violations == 0);
    linear_read(linear, 0, 2002, 2003, 58);
    cr_assert_eq(linear_check(linear).violations, 1);
    linear_free(linear);
}

Test(linear, without_any_room_it_says_so)
{
    struct linear *linear = linear_new(1, zero, NULL, 40);
    for (uint64_t i = 1; i < 100; i++)
        linear_write(linear, 0, 2 * i, 2 * i + 1, i);
    linear_read(linear, 0, 1000, 1001, 99);
    struct linear_report report = linear_check(linear);
    cr_assert(report.full);
    cr_assert_eq(report.violations, 0);
    linear_free(linear);
}
