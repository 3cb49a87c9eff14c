/* Law 14 as arithmetic: what a datastore that hangs may hold, and what the others still find. */
#include <criterion/criterion.h>

#include "fs/budget.h"

#define SLOTS  64u
#define CHUNKS 64u
#define S      1000000000ull

static struct budget make(unsigned datastores)
{
    struct budget budget;
    budget_init(&budget, SLOTS, CHUNKS, datastores);
    return budget;
}

static unsigned take_all(struct budget *budget, unsigned datastore, unsigned chunks, uint64_t now)
{
    unsigned taken = 0;
    while (taken < 2 * SLOTS && budget_take(budget, datastore, chunks, now))
        taken++;
    return taken;
}

Test(budget, one_that_works_is_not_refused)
{
    struct budget budget = make(2);
    for (uint64_t i = 0; i < SLOTS; i++)
        cr_assert(budget_take(&budget, 0, 0, S + i));
}

Test(budget, a_stalled_one_stops_at_half)
{
    struct budget budget = make(2);
    cr_assert(budget_take(&budget, 0, 0, S));
    cr_assert_not(budget_stalled(&budget, 0, S + BUDGET_STALL_NS - 1));
    cr_assert(budget_stalled(&budget, 0, S + BUDGET_STALL_NS));
    cr_assert_eq(1 + take_all(&budget, 0, 0, 3 * S), SLOTS / 2);
    cr_assert(budget_take(&budget, 1, 0, 3 * S), "the other one is served");
}

Test(budget, chunks_count_as_slots_do)
{
    struct budget budget = make(2);
    cr_assert(budget_take(&budget, 0, 0, S));
    cr_assert_eq(take_all(&budget, 0, 16, 3 * S), CHUNKS / 2 / 16);
    cr_assert_not(budget_take_chunks(&budget, 0, 1, 3 * S));
    cr_assert(budget_take_chunks(&budget, 0, 0, 3 * S));
}

Test(budget, what_comes_back_ends_the_stall)
{
    struct budget budget = make(2);
    for (int i = 0; i < 40; i++)
        cr_assert(budget_take(&budget, 0, 0, S));
    cr_assert_not(budget_take(&budget, 0, 0, 3 * S));
    budget_put(&budget, 0, 0, 3 * S);
    cr_assert(budget_take(&budget, 0, 0, 3 * S));
    cr_assert_not(budget_take(&budget, 0, 0, 5 * S));
}

Test(budget, an_idle_one_is_not_stalled)
{
    struct budget budget = make(2);
    cr_assert(budget_take(&budget, 0, 0, S));
    budget_put(&budget, 0, 0, S);
    cr_assert_not(budget_stalled(&budget, 0, 100 * S));
    cr_assert(budget_take(&budget, 0, 0, 100 * S));
    cr_assert_not(budget_stalled(&budget, 0, 100 * S + 1));
}

Test(budget, all_but_one_stalled_leave_the_last_one_its_part)
{
    for (unsigned n = 2; n <= 8; n++) {
        struct budget budget = make(n);
        for (unsigned i = 0; i + 1 < n; i++)
            cr_assert(budget_take(&budget, i, 0, S));
        for (unsigned i = 0; i + 1 < n; i++)
            take_all(&budget, i, 0, 3 * S);
        cr_expect_leq(
            budget.slots_held, SLOTS - SLOTS / 4 / n, "%u datastores: %u slots are held", n, budget.slots_held);
        cr_expect_not(budget_pauses(&budget, 3 * S));
        cr_expect(budget_take(&budget, n - 1, 0, 3 * S));
    }
}

Test(budget, reading_pauses_for_a_flood_until_it_moves_or_stalls)
{
    struct budget budget = make(2);
    for (unsigned i = 0; i < SLOTS / 4 * 3; i++) {
        cr_assert_not(budget_pauses(&budget, S));
        cr_assert(budget_take(&budget, 0, 0, S));
    }
    cr_assert(budget_pauses(&budget, S));
    cr_assert_not(budget_pauses(&budget, S + BUDGET_STALL_NS), "stalled: the others are read, its own are refused");
    cr_assert_not(budget_take(&budget, 0, 0, S + BUDGET_STALL_NS));
    budget_put(&budget, 0, 0, S + BUDGET_STALL_NS);
    cr_assert_not(budget_pauses(&budget, S + BUDGET_STALL_NS));
}

Test(budget, alone_there_is_nobody_to_protect)
{
    struct budget budget = make(1);
    cr_assert(budget_take(&budget, 0, 0, S));
    for (unsigned i = 1; i < SLOTS; i++)
        cr_assert(budget_take(&budget, 0, 0, 9 * S));
    cr_assert_not(budget_pauses(&budget, 9 * S));
}
