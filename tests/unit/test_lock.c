#include <criterion/criterion.h>

#include <stdatomic.h>
#include <unistd.h>

#include "io/lock.h"

struct held {
    struct lock_request request;
    atomic_bool granted;
};

static struct region_lock lock;
static struct reactor *reactor;

static void setup(void)
{
    region_lock_init(&lock, 4096);
    cr_assert_eq(reactor_start(&reactor, 0), 0);
}

static void teardown(void)
{
    reactor_stop(reactor);
}

TestSuite(lock, .init = setup, .fini = teardown, .timeout = 30);

static void granted(struct lock_request *request)
{
    atomic_store(&container_of(request, struct held, request)->granted, true);
}

static void acquire_here(void *argument)
{
    struct held *held = argument;
    if (region_lock_acquire(&lock, &held->request))
        atomic_store(&held->granted, true);
}

static void acquire(struct held *held, enum lock_mode mode, uint64_t start, uint64_t end)
{
    *held = (struct held){.request = {.mode = mode, .extent = {start, end}, .granted = granted}};
    reactor_call(reactor, acquire_here, held);
}

static void nothing(void *argument)
{
}

static void release(struct held *held)
{
    region_lock_release(&lock, &held->request);
    reactor_call(reactor, nothing, NULL); /* grants are tasks: they have run when this has */
}

/* The table of lock.h: does the later one wait for the earlier one? */
Test(lock, modes)
{
    static const bool waits[3][3] = {{false, true, false}, {false, true, true}, {false, true, true}};
    for (int later = 0; later < 3; later++)
        for (int earlier = 0; earlier < 3; earlier++) {
            struct held a, b;
            acquire(&a, (enum lock_mode)earlier, 0, 4096);
            acquire(&b, (enum lock_mode)later, 0, 4096);
            cr_expect(a.granted);
            cr_expect_eq(!b.granted, waits[later][earlier], "%d after %d", later, earlier);
            release(&a);
            cr_expect(b.granted);
            release(&b);
        }
}

Test(lock, extents_are_rounded_out)
{
    struct held a, b, c;
    acquire(&a, LOCK_MODE_WRITE, 0, 1);
    acquire(&b, LOCK_MODE_WRITE, 4095, 4096);
    acquire(&c, LOCK_MODE_WRITE, 4096, 4097);
    cr_expect(!b.granted, "two writes inside one block would tear each other's edges");
    cr_expect(c.granted);
    release(&a);
    release(&b);
    release(&c);
}

Test(lock, first_come_first_served)
{
    struct held writer, copier, second, other;
    acquire(&writer, LOCK_MODE_WRITE, 0, 1 << 20);
    acquire(&copier, LOCK_MODE_COPY, 0, 1 << 20);
    acquire(&second, LOCK_MODE_WRITE, 4096, 8192);
    acquire(&other, LOCK_MODE_WRITE, 2 << 20, 3 << 20);
    cr_expect(other.granted, "what does not overlap does not wait");
    release(&writer);
    cr_expect(copier.granted && !second.granted, "the copier was first: it must not starve");
    release(&copier);
    cr_expect(second.granted);
    release(&second);
    release(&other);
}

static void cancel_here(void *argument)
{
    struct held *held = argument;
    held->granted = region_lock_cancel(&lock, &held->request);
}

Test(lock, cancel_lets_the_next_one_in)
{
    struct held a, b, c;
    acquire(&a, LOCK_MODE_WRITE, 0, 4096);
    acquire(&b, LOCK_MODE_WRITE, 0, 8192);
    acquire(&c, LOCK_MODE_WRITE, 4096, 8192);
    cr_expect(!b.granted && !c.granted);
    reactor_call(reactor, cancel_here, &b);
    cr_expect(b.granted, "it was waiting");
    reactor_call(reactor, nothing, NULL);
    cr_expect(c.granted, "it waited for the cancelled one alone");
    release(&a);
    release(&c);
    cr_expect(!region_lock_busy(&lock, (struct extent){0, UINT64_MAX}));
}

/* No lost wake-up: many requests from two reactors over few blocks, each held for a moment; all are granted, never two
 * at once. */
enum { STORM = 400, BLOCKS = 8 };

struct stormer {
    struct lock_request request;
    struct task task;
};

static atomic_int inside[BLOCKS], overlaps, ended;

static void storm_leave(struct task *task)
{
    struct stormer *stormer = container_of(task, struct stormer, task);
    for (uint64_t b = stormer->request.extent.start / 4096; b < stormer->request.extent.end / 4096; b++)
        atomic_fetch_sub(&inside[b], 1);
    region_lock_release(&lock, &stormer->request);
    atomic_fetch_add(&ended, 1);
}

static void storm_enter(struct lock_request *request)
{
    struct stormer *stormer = container_of(request, struct stormer, request);
    for (uint64_t b = request->extent.start / 4096; b < request->extent.end / 4096; b++)
        if (atomic_fetch_add(&inside[b], 1) != 0)
            atomic_fetch_add(&overlaps, 1);
    stormer->task.run = storm_leave;
    reactor_post(reactor_current(), &stormer->task);
}

static void storm_here(void *argument)
{
    struct stormer *stormers = argument;
    for (int i = 0; i < STORM; i++) {
        uint64_t start = (uint64_t)(i * 7 % BLOCKS), length = 1 + (uint64_t)(i % 3);
        uint64_t end = start + length < BLOCKS ? start + length : BLOCKS;
        stormers[i].request = (struct lock_request){.mode = i % 5 ? LOCK_MODE_WRITE : LOCK_MODE_COPY,
            .extent = {start * 4096, end * 4096},
            .granted = storm_enter};
        if (region_lock_acquire(&lock, &stormers[i].request))
            storm_enter(&stormers[i].request);
    }
}

Test(lock, no_lost_wake_up)
{
    static struct stormer stormers[2][STORM];
    struct reactor *second;
    cr_assert_eq(reactor_start(&second, 1), 0);
    reactor_call(reactor, storm_here, stormers[0]);
    reactor_call(second, storm_here, stormers[1]);
    while (atomic_load(&ended) < 2 * STORM)
        usleep(1000);
    cr_expect_eq(overlaps, 0);
    cr_expect(!region_lock_busy(&lock, (struct extent){0, UINT64_MAX}));
    reactor_stop(second);
}
