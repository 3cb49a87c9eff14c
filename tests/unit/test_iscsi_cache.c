/* The gate of law 10: what may be sent while a LUN's cache may have been lost. */
#include <criterion/criterion.h>
#include <errno.h>

#include "backends/iscsi_cache.h"

static struct lun_cache cache;
static char one, two; /* sessions are only names here */
#define ONE ((struct lun_session *)&one)
#define TWO ((struct lun_session *)&two)

static void make(void)
{
    cr_assert_eq(lun_cache_init(&cache, true), 0);
}

static void end(void)
{
    lun_cache_destroy(&cache);
}

TestSuite(iscsi_cache, .init = make, .fini = end);

Test(iscsi_cache, open)
{
    cr_assert(lun_cache_enter(&cache, true, false));
    cr_assert(lun_cache_enter(&cache, false, false));
    cr_assert_null(lun_cache_leave(&cache));
    cr_assert_not(lun_cache_begin(&cache, ONE));
}

Test(iscsi_cache, replay_waits_for_what_is_out)
{
    cr_assert(lun_cache_enter(&cache, true, false));
    cr_assert(lun_cache_enter(&cache, true, false));
    uint64_t before = cache.stamp;
    lun_cache_lose(&cache, ONE, true);
    cr_assert_neq(cache.stamp, before);
    cr_assert_not(lun_cache_enter(&cache, true, false));
    cr_assert_not(lun_cache_enter(&cache, false, false));
    cr_assert_not(lun_cache_begin(&cache, ONE));
    cr_assert_null(lun_cache_leave(&cache));
    cr_assert_not(lun_cache_begin(&cache, ONE));
    cr_assert_eq(lun_cache_leave(&cache), ONE);
    cr_assert(lun_cache_duty(&cache, ONE));
    cr_assert_not(lun_cache_begin(&cache, TWO));
    cr_assert(lun_cache_begin(&cache, ONE));
    cr_assert_not(lun_cache_begin(&cache, ONE));
    cr_assert_not(lun_cache_enter(&cache, true, false));
    cr_assert(lun_cache_end(&cache, cache.stamp, 0));
    cr_assert(lun_cache_enter(&cache, true, false));
    cr_assert_not(lun_cache_duty(&cache, ONE));
}

Test(iscsi_cache, lost_again_meanwhile)
{
    lun_cache_lose(&cache, ONE, true);
    cr_assert(lun_cache_begin(&cache, ONE));
    uint64_t stamp = cache.stamp;
    lun_cache_lose(&cache, TWO, true);
    cr_assert_not(lun_cache_end(&cache, stamp, 0));
    cr_assert_not(lun_cache_enter(&cache, false, false));
    cr_assert(lun_cache_end(&cache, stamp + 1, 0));
    cr_assert(lun_cache_enter(&cache, false, false));
}

/* A change that was answered in the life before is kept while the replay goes on, maybe behind it: once more. */
Test(iscsi_cache, more_is_kept_behind_the_replay)
{
    lun_cache_lose(&cache, ONE, true);
    cr_assert(lun_cache_begin(&cache, ONE));
    lun_cache_lose(&cache, TWO, false);
    cr_assert_not(lun_cache_end(&cache, cache.stamp, 0));
    cr_assert_not(lun_cache_enter(&cache, false, false));
    cr_assert(lun_cache_end(&cache, cache.stamp, 0));
    cr_assert(lun_cache_enter(&cache, false, false));
}

Test(iscsi_cache, same_life)
{
    uint64_t stamp = cache.stamp;
    lun_cache_lose(&cache, ONE, false);
    cr_assert_eq(cache.stamp, stamp);
    cr_assert_not(lun_cache_enter(&cache, true, false));
}

Test(iscsi_cache, failure_is_kept_for_the_flush)
{
    lun_cache_lose(&cache, ONE, true);
    cr_assert(lun_cache_begin(&cache, ONE));
    cr_assert(lun_cache_end(&cache, cache.stamp, -EIO));
    cr_assert_eq(cache.failed, -EIO);
}

/* Somebody may have read what the target carried out of it: older bytes, written again, are not to be seen before it is there. */
Test(iscsi_cache, what_is_owed_goes_before_all_others_after_a_replay)
{
    lun_cache_owe(&cache);
    lun_cache_owe(&cache);
    cr_assert(lun_cache_enter(&cache, false, false), "nothing was written over it");
    lun_cache_lose(&cache, ONE, true);
    cr_assert_not(lun_cache_enter(&cache, true, true));
    cr_assert(lun_cache_begin(&cache, ONE));
    cr_assert(lun_cache_end(&cache, cache.stamp, 0));
    cr_assert_not(lun_cache_enter(&cache, false, false));
    cr_assert_not(lun_cache_enter(&cache, true, false));
    cr_assert(lun_cache_enter(&cache, true, true));
    cr_assert_not(lun_cache_paid(&cache));
    cr_assert_not(lun_cache_enter(&cache, false, false));
    cr_assert(lun_cache_paid(&cache));
    cr_assert(lun_cache_enter(&cache, false, false));
}

Test(iscsi_cache, what_was_paid_before_the_replay_is_not_waited_for)
{
    lun_cache_owe(&cache);
    lun_cache_lose(&cache, ONE, true);
    cr_assert_not(lun_cache_paid(&cache));
    cr_assert(lun_cache_begin(&cache, ONE));
    cr_assert(lun_cache_end(&cache, cache.stamp, 0));
    cr_assert(lun_cache_enter(&cache, false, false));
}
