#include <criterion/criterion.h>

#include "base/clock.h"
#include "migrate/pace.h"

#define MIB (1ull << 20)

/* A disk whose guest is late as soon as the copy takes more than `bears`; the copy uses what it is allowed, up to `most`. */
struct trial {
    struct pace pace;
    struct pace_figures figures;
    uint64_t bears, most, served, late, steps;
};

static uint64_t rate_of(const struct trial *trial)
{
    uint64_t rate = trial->pace.rate ? trial->pace.rate : trial->most;
    return rate < trial->most ? rate : trial->most;
}

static void step(struct trial *trial, unsigned requests)
{
    uint64_t rate = rate_of(trial), bytes = rate / 10;
    trial->figures.now += PACE_PERIOD_NS;
    trial->figures.served += requests;
    trial->figures.busy = requests > 0;
    trial->figures.late += rate > trial->bears ? requests / 20 : 0;
    trial->figures.copied += bytes < trial->figures.left ? bytes : trial->figures.left;
    trial->figures.left -= bytes < trial->figures.left ? bytes : trial->figures.left;
    trial->steps++;
    pace_step(&trial->pace, &trial->figures);
}

static struct trial begin(uint64_t latency, uint64_t until, uint64_t bears, uint64_t left)
{
    struct trial trial = {.pace = {.latency_ns = latency, .until_ns = until}, .bears = bears, .most = 1000 * MIB};
    trial.figures = (struct pace_figures){.now = 5 * NS_PER_S, .left = left, .busy = true};
    pace_step(&trial.pace, &trial.figures);
    return trial;
}

Test(pace, what_the_guest_bears_is_found_and_kept)
{
    for (uint64_t bears = 6 * MIB; bears <= 600 * MIB; bears *= 10) {
        struct trial trial = begin(2 * NS_PER_MS, 0, bears, UINT64_MAX / 2);
        for (unsigned i = 0; i < 100; i++)
            step(&trial, 1000);
        uint64_t copied = trial.figures.copied;
        for (unsigned i = 0; i < 3000; i++)
            step(&trial, 1000);
        cr_assert_leq(trial.figures.late * 100, trial.figures.served, "bears %llu MiB/s: %llu of %llu are late",
            (unsigned long long)(bears / MIB), (unsigned long long)trial.figures.late,
            (unsigned long long)trial.figures.served);
        cr_assert_geq((trial.figures.copied - copied) / 300, bears / 2, "bears %llu MiB/s: only %llu",
            (unsigned long long)(bears / MIB), (unsigned long long)((trial.figures.copied - copied) / 300 / MIB));
    }
}

Test(pace, a_guest_that_is_always_late_does_not_stop_it)
{
    struct trial trial = begin(NS_PER_MS, 0, 0, 100 * MIB);
    while (trial.figures.left && trial.steps < 10000)
        step(&trial, 1000);
    cr_assert_eq(trial.figures.left, 0);
}

Test(pace, a_guest_that_asks_for_nothing_is_in_nobodys_way)
{
    struct trial trial = begin(NS_PER_MS, 0, 8 * MIB, UINT64_MAX / 2);
    for (unsigned i = 0; i < 100; i++)
        step(&trial, 1000);
    cr_assert_neq(trial.pace.rate, 0);
    for (unsigned i = 0; i < 11; i++)
        step(&trial, 0);
    cr_assert_eq(trial.pace.rate, 0);
    cr_assert_not(trial.pace.gentle);
    step(&trial, 1000);
    cr_assert_neq(trial.pace.rate, 0, "it is back");
    cr_assert(trial.pace.gentle);
}

Test(pace, a_deadline_is_met_without_haste)
{
    uint64_t begun = 5 * NS_PER_S, until = begun + 60 * NS_PER_S;
    struct trial trial = begin(0, until, UINT64_MAX, 6000 * MIB);
    while (trial.figures.left && trial.steps < 10000)
        step(&trial, 1000);
    cr_assert_leq(trial.figures.now, until);
    cr_assert_geq(trial.figures.now, begun + 40 * NS_PER_S, "after %llu s", (unsigned long long)trial.steps / 10);
}

Test(pace, a_deadline_goes_before_the_latency)
{
    uint64_t until = 5 * NS_PER_S + 60 * NS_PER_S;
    struct trial trial = begin(NS_PER_MS, until, 8 * MIB, 6000 * MIB);
    while (trial.figures.left && trial.steps < 10000)
        step(&trial, 1000);
    cr_assert_leq(trial.figures.now, until);
    trial = begin(NS_PER_MS, until, 8 * MIB, 240 * MIB);
    while (trial.figures.left && trial.steps < 10000)
        step(&trial, 1000);
    cr_assert_leq(trial.figures.now, until);
    cr_assert_leq(trial.figures.late * 100, trial.figures.served, "there was time enough for the guest");
}

Test(pace, a_deadline_that_has_passed_leaves_no_limit)
{
    struct trial trial = begin(NS_PER_MS, NS_PER_S, 8 * MIB, 6000 * MIB);
    for (unsigned i = 0; i < 10; i++)
        step(&trial, 1000);
    cr_assert_eq(trial.pace.rate, 0);
}

Test(pace, without_a_limit_it_is_gentle_while_the_guest_is_at_work)
{
    struct pace pace = {.latency_ns = 0};
    struct pace_figures figures = {.now = 5 * NS_PER_S, .left = UINT64_MAX / 2};
    pace_step(&pace, &figures);
    cr_assert_not(pace.gentle, "nobody was seen");
    figures.now += PACE_PERIOD_NS;
    figures.served++;
    pace_step(&pace, &figures);
    cr_assert(pace.gentle);
    cr_assert_eq(pace.rate, 0);
    figures.now += 2 * NS_PER_S;
    pace_step(&pace, &figures);
    cr_assert_not(pace.gentle);
    figures.busy = true;
    figures.now += PACE_PERIOD_NS;
    pace_step(&pace, &figures);
    cr_assert(pace.gentle, "a request that hangs is one");
}

Test(pace, a_guest_that_is_seen_makes_it_gentle_at_once)
{
    struct pace pace = {.latency_ns = NS_PER_MS};
    struct pace_figures figures = {.now = 5 * NS_PER_S, .left = UINT64_MAX / 2};
    pace_step(&pace, &figures);
    cr_assert_eq(pace.rate, 0);
    pace_seen(&pace, figures.now + 1, true);
    cr_assert(pace.gentle);
    cr_assert_neq(pace.rate, 0);
    figures.now += NS_PER_S / 2;
    pace_step(&pace, &figures);
    cr_assert(pace.gentle);
    figures.now += NS_PER_S;
    pace_step(&pace, &figures);
    cr_assert_not(pace.gentle);
}

Test(pace, for_others_it_is_gentle_for_a_short_time_and_takes_nothing_from_its_own)
{
    struct pace pace = {.latency_ns = NS_PER_MS};
    struct pace_figures figures = {.now = 5 * NS_PER_S, .left = UINT64_MAX / 2};
    pace_step(&pace, &figures);
    pace_seen(&pace, figures.now, false);
    cr_assert(pace.gentle);
    figures.now += PACE_PERIOD_NS;
    pace_step(&pace, &figures);
    cr_assert(pace.gentle);
    cr_assert_eq(pace.rate, 0, "others have no latency");
    pace_seen(&pace, figures.now, true);
    pace_seen(&pace, figures.now, false);
    figures.now += 5 * PACE_PERIOD_NS;
    pace_step(&pace, &figures);
    cr_assert(pace.gentle, "its own guest was seen half a second ago");
    figures.now += 6 * PACE_PERIOD_NS;
    pace_step(&pace, &figures);
    cr_assert_not(pace.gentle);
    pace_seen(&pace, figures.now, false);
    figures.now += 3 * PACE_PERIOD_NS;
    pace_step(&pace, &figures);
    cr_assert_not(pace.gentle, "the others were a third of a second ago");
}
