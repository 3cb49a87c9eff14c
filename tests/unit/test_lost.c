/* Pages that could not be read: against a model of one byte a page. */
#include <criterion/criterion.h>

#include <errno.h>

#include "io/lost.h"

#define PAGES (4 * (unsigned)(REGION_SIZE / LOST_PAGE))

static struct extent pages(uint64_t first, uint64_t end)
{
    return (struct extent){first * LOST_PAGE, end * LOST_PAGE};
}

Test(lost, a_run_goes_on_over_the_borders_of_regions)
{
    struct lost lost = {0};
    struct extent run;
    uint64_t runs;
    cr_expect(!lost_run(&lost, 0, &run));
    cr_assert_eq(lost_add(&lost, pages(250, 600)), 0);
    cr_assert_eq(lost_add(&lost, pages(700, 701)), 0);
    cr_assert(lost_run(&lost, 0, &run));
    cr_expect(run.start == 250 * LOST_PAGE && run.end == 600 * LOST_PAGE);
    cr_assert(lost_run(&lost, 300 * LOST_PAGE + 7, &run));
    cr_expect(run.start == 300 * LOST_PAGE + 7 && run.end == 600 * LOST_PAGE);
    cr_expect_eq(lost_bytes(&lost, UINT64_MAX, &runs), 351 * LOST_PAGE);
    cr_expect_eq(runs, 2);
    cr_expect_eq(lost_bytes(&lost, 599 * LOST_PAGE + 100, &runs), 349 * LOST_PAGE + 100, "the disk's end cuts");
    cr_expect_eq(runs, 1);
    lost_free(&lost);
}

Test(lost, what_is_touched_is_lost_and_only_whole_pages_are_known_again)
{
    struct lost lost = {0};
    uint64_t runs;
    lost_add(&lost, (struct extent){5 * LOST_PAGE + 511, 6 * LOST_PAGE + 1});
    cr_expect_eq(lost_bytes(&lost, UINT64_MAX, &runs), 2 * LOST_PAGE);
    lost_remove(&lost, (struct extent){5 * LOST_PAGE + 1, 7 * LOST_PAGE - 1});
    cr_expect_eq(lost_bytes(&lost, UINT64_MAX, &runs), 2 * LOST_PAGE);
    lost_remove(&lost, (struct extent){5 * LOST_PAGE, 7 * LOST_PAGE - 1});
    cr_expect_eq(lost_bytes(&lost, UINT64_MAX, &runs), LOST_PAGE);
    cr_expect(lost_overlaps(&lost, (struct extent){7 * LOST_PAGE - 1, 7 * LOST_PAGE}));
    cr_expect(!lost_overlaps(&lost, (struct extent){0, 6 * LOST_PAGE}));
    cr_expect(!lost_overlaps(&lost, (struct extent){7 * LOST_PAGE, UINT64_MAX}));
    lost_remove(&lost, (struct extent){6 * LOST_PAGE, UINT64_MAX});
    cr_expect_eq(lost.count, 0);
    lost_free(&lost);
}

Test(lost, agrees_with_a_model)
{
    static bool model[PAGES];
    struct lost lost = {0}, copy;
    srand48(7);
    for (int step = 0; step < 3000; step++) {
        uint64_t first = (uint64_t)lrand48() % PAGES, end = first + 1 + (uint64_t)lrand48() % 300, expected = 0, runs;
        bool add = lrand48() % 2;
        end = end > PAGES ? PAGES : end;
        if (add)
            cr_assert_eq(lost_add(&lost, pages(first, end)), 0);
        else
            lost_remove(&lost, pages(first, end));
        memset(model + first, add, end - first);
        uint64_t at = (uint64_t)lrand48() % PAGES, next = at;
        struct extent run;
        while (next < PAGES && !model[next])
            next++;
        bool any = lost_run(&lost, at * LOST_PAGE, &run);
        cr_assert_eq(any, next < PAGES, "step %d", step);
        cr_assert(!any || run.start == next * LOST_PAGE);
        cr_assert_eq(lost_overlaps(&lost, pages(at, at + 1)), model[at]);
        for (unsigned i = 0; i < PAGES; i++)
            expected += model[i] ? LOST_PAGE : 0;
        cr_assert_eq(lost_bytes(&lost, UINT64_MAX, &runs), expected, "step %d", step);
        for (size_t i = 1; i < lost.count; i++)
            cr_assert_lt(lost.list[i - 1].region, lost.list[i].region);
    }
    cr_assert_eq(lost_copy(&copy, &lost), 0);
    cr_expect(copy.count == lost.count && memcmp(copy.list, lost.list, lost.count * sizeof(*lost.list)) == 0);
    lost_free(&copy);
    lost_free(&lost);
}
