#include <criterion/criterion.h>
#include <errno.h>

#include "fs/sparse.h"

#include <fcntl.h>
#include <linux/falloc.h>

#define KEEP  FALLOC_FL_KEEP_SIZE
#define PUNCH FALLOC_FL_PUNCH_HOLE
#define ZERO  FALLOC_FL_ZERO_RANGE

static struct sparse_step steps[SPARSE_STEPS];

static int plan(uint32_t mode, uint64_t offset, uint64_t length, uint64_t size)
{
    return sparse_plan(mode, offset, length, size, steps);
}

#define is(i, v, f, s, e)                                                                                              \
    cr_assert(                                                                                                         \
        steps[i].verb == (v) && steps[i].flags == (f) && steps[i].extent.start == (s) && steps[i].extent.end == (e))

Test(sparse, allocate)
{
    cr_assert_eq(plan(0, 10, 90, 100), 1);
    is(0, VERB_ALLOCATE, 0, 10, 100);
    cr_assert_eq(plan(0, 10, 91, 100), 2);
    is(0, VERB_ALLOCATE, 0, 10, 101);
    is(1, VERB_RESIZE, 0, 0, 101);
    cr_assert_eq(plan(KEEP, 10, 1000, 100), 1);
    is(0, VERB_ALLOCATE, 0, 10, 1010);
}

Test(sparse, punch_stays_inside)
{
    cr_assert_eq(plan(PUNCH | KEEP, 10, 20, 100), 1);
    is(0, VERB_ZERO, IO_MAY_UNMAP, 10, 30);
    cr_assert_eq(plan(PUNCH | KEEP, 90, 20, 100), 1);
    is(0, VERB_ZERO, IO_MAY_UNMAP, 90, 100);
    cr_assert_eq(plan(PUNCH | KEEP, 100, 20, 100), 0);
    cr_assert_eq(plan(PUNCH | KEEP, 5000, 20, 100), 0);
}

Test(sparse, zero_range_reserves_first)
{
    cr_assert_eq(plan(ZERO, 90, 20, 100), 3);
    is(0, VERB_ALLOCATE, 0, 90, 110);
    is(1, VERB_ZERO, 0, 90, 100);
    is(2, VERB_RESIZE, 0, 0, 110);
    cr_assert_eq(plan(ZERO | KEEP, 90, 20, 100), 2);
    is(1, VERB_ZERO, 0, 90, 100);
    cr_assert_eq(plan(ZERO | KEEP, 200, 20, 100), 1);
    is(0, VERB_ALLOCATE, 0, 200, 220);
    cr_assert_eq(plan(ZERO, 200, 20, 100), 2);
    is(1, VERB_RESIZE, 0, 0, 220);
}

Test(sparse, refusals)
{
    const uint32_t no[] = {PUNCH, PUNCH | ZERO | KEEP, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE,
        FALLOC_FL_UNSHARE_RANGE, FALLOC_FL_COLLAPSE_RANGE | KEEP, 1u << 20};
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        cr_assert_eq(plan(no[i], 0, 10, 100), -EOPNOTSUPP, "mode %#x", no[i]);
    cr_assert_eq(plan(0, 0, 0, 100), -EINVAL);
    cr_assert_eq(plan(0, UINT64_MAX, 10, 100), -EINVAL);
    cr_assert_eq(plan(0, 10, UINT64_MAX, 100), -EINVAL);
    cr_assert_eq(plan(0, INT64_MAX, 10, 100), -EFBIG);
    cr_assert_eq(plan(0, INT64_MAX - 10, 10, 100), 2);
}
