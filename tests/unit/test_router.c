#include <criterion/criterion.h>

#include <errno.h>

#include "io/router.h"

enum { S = LEG_SOURCE, T = LEG_TARGET, B = LEG_SOURCE | LEG_TARGET };

/* Every verb in every phase, routed or not: law 11's table. */
Test(router, every_verb_in_every_phase)
{
    static const struct {
        enum verb verb;
        unsigned unrouted, routed;
    } attached[] = {
        {VERB_READ, S, S},
        {VERB_MAP, S, S},
        {VERB_WRITE, S, B},
        {VERB_ZERO, S, B},
        {VERB_ALLOCATE, S, B},
        {VERB_FLUSH, B, B},
        {VERB_RESIZE, B, B},
    };
    cr_assert_eq(sizeof(attached) / sizeof(*attached), VERB_COUNT, "a verb without a row");
    for (unsigned i = 0; i < VERB_COUNT; i++) {
        enum verb verb = attached[i].verb;
        for (int routed = 0; routed < 2; routed++) {
            unsigned both = routed ? attached[i].routed : attached[i].unrouted;
            cr_expect_eq(route(verb, MIRROR_NONE, routed), S, "%s", verb_name(verb));
            cr_expect_eq(route(verb, MIRROR_ATTACHED, routed), both, "%s", verb_name(verb));
            cr_expect_eq(route(verb, MIRROR_COMMITTING, routed), both, "%s", verb_name(verb));
            cr_expect_eq(route(verb, MIRROR_FLIPPED, routed), T, "%s", verb_name(verb));
            cr_expect_eq(route(verb, MIRROR_DROPPED, routed), S, "%s", verb_name(verb));
        }
    }
}

Test(router, verdict_of_one_leg)
{
    for (int phase = MIRROR_NONE; phase <= MIRROR_DROPPED; phase++) {
        cr_expect_eq(route_verdict(phase, S, S, 0, 0), VERDICT_WAIT);
        cr_expect_eq(route_verdict(phase, S, 0, -EIO, 0), VERDICT_SOURCE);
        cr_expect_eq(route_verdict(phase, T, T, 0, 0), VERDICT_WAIT);
        cr_expect_eq(route_verdict(phase, T, 0, 0, -EIO), VERDICT_TARGET);
    }
}

Test(router, verdict_of_two_legs)
{
    static const struct {
        enum mirror_phase phase;
        unsigned pending;
        int source, target;
        enum verdict verdict;
    } rows[] = {
        {MIRROR_ATTACHED, B, 0, 0, VERDICT_WAIT},
        {MIRROR_ATTACHED, T, 0, 0, VERDICT_WAIT}, /* law 8: not acknowledged by one leg while the other counts */
        {MIRROR_ATTACHED, S, 0, 0, VERDICT_WAIT},
        {MIRROR_ATTACHED, 0, 0, 0, VERDICT_SOURCE},
        {MIRROR_ATTACHED, 0, 0, -EIO, VERDICT_DROP}, /* law 13 */
        {MIRROR_ATTACHED, 0, -EIO, -EIO, VERDICT_DROP},
        {MIRROR_ATTACHED, 0, -EIO, 0, VERDICT_SOURCE}, /* law 1: the source is the truth */
        {MIRROR_ATTACHED, S, 0, -EIO, VERDICT_WAIT},
        {MIRROR_COMMITTING, T, 0, 0, VERDICT_WAIT},
        {MIRROR_COMMITTING, S, 0, 0, VERDICT_WAIT},
        {MIRROR_COMMITTING, 0, 0, 0, VERDICT_SOURCE},
        {MIRROR_COMMITTING, 0, 0, -EIO, VERDICT_PARK}, /* law 1: either answer must be right */
        {MIRROR_COMMITTING, 0, -EIO, 0, VERDICT_PARK},
        {MIRROR_COMMITTING, 0, -EIO, -EIO, VERDICT_SOURCE},
        {MIRROR_FLIPPED, S, 0, 0, VERDICT_TARGET}, /* the source does not count any more */
        {MIRROR_FLIPPED, T, 0, 0, VERDICT_WAIT},
        {MIRROR_FLIPPED, 0, -EIO, 0, VERDICT_TARGET},
        {MIRROR_FLIPPED, 0, 0, -EIO, VERDICT_TARGET},
        {MIRROR_DROPPED, T, 0, 0, VERDICT_SOURCE}, /* a hung target is not waited for */
        {MIRROR_DROPPED, S, 0, 0, VERDICT_WAIT},
        {MIRROR_DROPPED, 0, 0, -EIO, VERDICT_SOURCE},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        cr_expect_eq(route_verdict(rows[i].phase, B, rows[i].pending, rows[i].source, rows[i].target), rows[i].verdict,
            "row %u", i);
}

/* Law 1's only exception: every verb in every phase, and what the source said. */
Test(router, what_the_target_may_be_asked_for)
{
    static const int refused[] = {-EINVAL, -EFAULT, -EOPNOTSUPP, -ECANCELED};
    for (int phase = MIRROR_NONE; phase <= MIRROR_DROPPED; phase++)
        for (unsigned verb = 0; verb < VERB_COUNT; verb++)
            for (int holds = 0; holds < 2; holds++) {
                bool attached = phase == MIRROR_ATTACHED || phase == MIRROR_COMMITTING;
                bool may = verb == VERB_READ && (phase == MIRROR_FLIPPED || (attached && holds));
                cr_expect_eq(route_again(phase, verb, S, -EIO, holds), may, "%s in phase %d", verb_name(verb), phase);
                cr_expect(!route_again(phase, verb, S, 0, holds), "it was answered");
                cr_expect(!route_again(phase, verb, B, -EIO, holds));
                cr_expect(!route_again(phase, verb, T, -EIO, holds));
            }
    for (unsigned i = 0; i < sizeof(refused) / sizeof(*refused); i++)
        cr_expect(!route_again(MIRROR_ATTACHED, VERB_READ, S, refused[i], true), "the request is at fault");
    cr_expect(route_again(MIRROR_ATTACHED, VERB_READ, S, -ETIMEDOUT, true));
    cr_expect(route_again(MIRROR_ATTACHED, VERB_READ, S, -ENODATA, true));
}
