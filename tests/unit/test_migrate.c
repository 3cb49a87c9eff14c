/* The pure parts of the migrate room: throttle, zeroes, the table of states. */
#include <criterion/criterion.h>

#include "base/clock.h"
#include "migrate/job.h"
#include "migrate/throttle.h"
#include "migrate/zeroes.h"

Test(throttle, holds_the_rate)
{
    struct throttle throttle;
    uint64_t now = 1000 * NS_PER_S, begin = now, bytes = 0;
    throttle_set(&throttle, now, 100 << 20);
    while (now < begin + 10 * NS_PER_S) {
        uint64_t wait = throttle_ask(&throttle, now, 1 << 20);
        if (wait)
            now += wait;
        else
            bytes += 1 << 20;
    }
    cr_expect(bytes >= 1000ull << 20 && bytes <= 1012ull << 20, "%llu MiB in 10 s at 100 MiB/s",
        (unsigned long long)bytes >> 20);
}

Test(throttle, none_is_none)
{
    struct throttle throttle;
    throttle_set(&throttle, 5, 0);
    for (int i = 0; i < 1000; i++)
        cr_expect_eq(throttle_ask(&throttle, 5, 1ull << 40), 0);
}

Test(throttle, idle_time_is_not_saved_up)
{
    struct throttle throttle;
    uint64_t now = NS_PER_S;
    throttle_set(&throttle, now, 1 << 20);
    now += 3600 * NS_PER_S;
    cr_expect_eq(throttle_ask(&throttle, now, 1 << 20), 0);
    cr_expect_gt(throttle_ask(&throttle, now, 1 << 20), 0);
}

Test(throttle, a_new_rate_is_felt_at_once)
{
    struct throttle throttle;
    uint64_t now = NS_PER_S;
    throttle_set(&throttle, now, 1); /* a byte a second: a MiB is paid for in twelve days */
    throttle_ask(&throttle, now, 1 << 20);
    cr_expect_gt(throttle_ask(&throttle, now, 1), 1000 * NS_PER_S);
    throttle_set(&throttle, now, 1 << 30);
    cr_expect_eq(throttle_ask(&throttle, now, 1 << 20), 0);
}

Test(states, ends_are_ends)
{
    for (int to = 0; to < JOB_STATES; to++) {
        bool goes_on = to == JOB_OPENING || to == JOB_CANCELLED || to == JOB_FAILED; /* the reverse of what is kept */
        cr_expect_eq(job_may_move(JOB_DONE, (enum job_state)to), goes_on);
        cr_expect(!job_may_move(JOB_CANCELLED, (enum job_state)to));
        cr_expect(!job_may_move(JOB_FAILED, (enum job_state)to));
        cr_expect(!job_may_move(JOB_RESCUED, (enum job_state)to));
    }
}

Test(states, only_the_switchover_leads_to_done)
{
    for (int from = 0; from < JOB_STATES; from++) {
        cr_expect_eq(job_may_move((enum job_state)from, JOB_DONE), from == JOB_SWITCHING);
        cr_expect_eq(job_may_move((enum job_state)from, JOB_RESCUED), from == JOB_SWITCHING);
        cr_expect_eq(job_may_move((enum job_state)from, JOB_SWITCHING), from == JOB_MIRRORED || from == JOB_QUEUED);
        cr_expect_eq(job_may_move((enum job_state)from, JOB_MIRRORED), from == JOB_COPYING || from == JOB_VERIFYING);
    }
}

Test(states, what_is_verified_is_copied_first)
{
    for (int from = 0; from < JOB_STATES; from++)
        cr_expect_eq(job_may_move((enum job_state)from, JOB_VERIFYING), from == JOB_COPYING);
    cr_expect(job_may_move(JOB_VERIFYING, JOB_COPYING), "what differs is copied again");
    cr_expect(job_may_move(JOB_VERIFYING, JOB_PAUSED));
    cr_expect_not(job_may_move(JOB_VERIFYING, JOB_SWITCHING));
}

Test(states, every_state_has_a_name_and_a_way_to_end)
{
    for (int from = 0; from < JOB_DONE; from++) {
        cr_expect_not_null(job_state_name((enum job_state)from));
        cr_expect(job_may_move((enum job_state)from, JOB_CANCELLED));
        cr_expect(job_may_move((enum job_state)from, JOB_FAILED));
    }
}

Test(zeroes, runs_by_pages)
{
    static uint8_t bytes[5 * ZEROES_PAGE];
    bool zero = false;
    cr_expect_eq(zeroes_run(bytes, 0, sizeof(bytes), &zero), sizeof(bytes));
    cr_expect(zero);
    bytes[2 * ZEROES_PAGE - 1] = 1; /* the last byte of page one */
    cr_expect_eq(zeroes_run(bytes, 0, sizeof(bytes), &zero), ZEROES_PAGE);
    cr_expect(zero);
    cr_expect_eq(zeroes_run(bytes, ZEROES_PAGE, sizeof(bytes), &zero), 2 * ZEROES_PAGE);
    cr_expect(!zero);
    cr_expect_eq(zeroes_run(bytes, 2 * ZEROES_PAGE, sizeof(bytes) - 5, &zero), sizeof(bytes) - 5);
    cr_expect(zero, "a short last page");
    bytes[4 * ZEROES_PAGE] = 1;
    cr_expect_eq(zeroes_run(bytes, 4 * ZEROES_PAGE, 4 * ZEROES_PAGE + 1, &zero), 4 * ZEROES_PAGE + 1);
    cr_expect(!zero, "a page of one byte");
}
