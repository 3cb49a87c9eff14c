#include <criterion/criterion.h>

#include <semaphore.h>
#include <stdatomic.h>

#include "backends/fence.h"

static struct pool *pool;
static struct fence fence;

static void setup(void)
{
    cr_assert_eq(pool_open(&pool, "fence", 1), 0);
    fence_init(&fence);
}

static sem_t ran;

static void run_barrier(struct work *work)
{
    sem_post(&ran);
}

/* Whatever is to be told has been told: the pool has one thread and keeps the order. */
static void settle(void)
{
    struct work barrier = {.run = run_barrier};
    sem_init(&ran, 0, 0);
    pool_run(pool, &barrier);
    sem_wait(&ran);
}

static void teardown(void)
{
    pool_close(pool);
    fence_destroy(&fence);
}

static void count(void *argument)
{
    atomic_fetch_add((_Atomic unsigned *)argument, 1);
}

TestSuite(fence, .init = setup, .fini = teardown);

Test(fence, nothing_in_flight)
{
    _Atomic unsigned told = 0;
    fence_wait(&fence, pool, count, &told);
    settle();
    cr_assert_eq(told, 1);
}

Test(fence, waits_for_the_older_not_for_the_newer)
{
    _Atomic unsigned told = 0;
    unsigned old = fence_enter(&fence), older = fence_enter(&fence);
    fence_wait(&fence, pool, count, &told);
    unsigned newer = fence_enter(&fence);
    fence_leave(&fence, old);
    settle();
    cr_assert_eq(told, 0);
    fence_leave(&fence, older);
    settle();
    cr_assert_eq(told, 1);
    fence_leave(&fence, newer);
    settle();
    cr_assert_eq(told, 1);
}

Test(fence, a_second_waiter_waits_for_what_the_first_need_not)
{
    _Atomic unsigned first = 0, second = 0, third = 0;
    unsigned a = fence_enter(&fence);
    fence_wait(&fence, pool, count, &first);
    unsigned b = fence_enter(&fence);
    fence_wait(&fence, pool, count, &second);
    unsigned c = fence_enter(&fence);
    fence_wait(&fence, pool, count, &third);
    fence_leave(&fence, b);
    settle();
    cr_assert(first == 0 && second == 0 && third == 0);
    fence_leave(&fence, a);
    settle();
    cr_assert_eq(first, 1);
    fence_leave(&fence, c);
    settle();
    cr_assert(first == 1 && second == 1 && third == 1);
}

/* Writes that never cease, in every order of leaving, hold no waiter for ever, and none is told before its writes
 * ended. */
Test(fence, never_early_never_never)
{
    enum { WRITES = 8, STEPS = 20000, WAITERS = 1000 };
    static _Atomic unsigned told[WAITERS];
    static unsigned must[WAITERS]; /* writes of before, as bits, still in flight */
    unsigned epochs[WRITES], in_flight = 0, waiters = 0, random = 7;
    for (unsigned i = 0; i < STEPS; i++) {
        random = random * 1664525u + 1013904223u;
        unsigned n = random >> 20 & (WRITES - 1);
        if (in_flight & 1u << n) {
            in_flight &= ~(1u << n);
            for (unsigned w = 0; w < waiters; w++) {
                if (must[w])
                    cr_assert_eq(told[w], 0);
                must[w] &= ~(1u << n);
            }
            fence_leave(&fence, epochs[n]);
        } else {
            epochs[n] = fence_enter(&fence);
            in_flight |= 1u << n;
        }
        if (i % 20 == 0 && waiters < WAITERS) {
            must[waiters] = in_flight;
            fence_wait(&fence, pool, count, &told[waiters++]);
        }
    }
    for (unsigned n = 0; n < WRITES; n++)
        if (in_flight & 1u << n)
            fence_leave(&fence, epochs[n]);
    settle();
    for (unsigned w = 0; w < waiters; w++)
        cr_assert_eq(told[w], 1);
}

Test(fence, every_verb_is_decided)
{
    static const bool counts[VERB_COUNT] = {
        [VERB_WRITE] = true, [VERB_ZERO] = true, [VERB_ALLOCATE] = true, [VERB_RESIZE] = true};
    for (unsigned verb = 0; verb < VERB_COUNT; verb++)
        cr_assert_eq(fence_counts((enum verb)verb), counts[verb]);
}
