#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "backends/unflushed.h"

static struct unflushed *unflushed;

static void setup(void)
{
    cr_assert_eq(unflushed_new(&unflushed, 64 << 10), 0);
}

static void teardown(void)
{
    unflushed_free(unflushed);
}

TestSuite(unflushed, .init = setup, .fini = teardown);

static void add(uint64_t start, uint64_t end, int value, uint64_t stamp)
{
    char memory[128];
    memset(memory, value, sizeof(memory));
    struct iovec iov[2] = {{memory, 1}, {memory + 1, end - start - 1}};
    cr_assert_eq(unflushed_add(unflushed, (struct extent){start, end}, value ? iov : NULL, 2, stamp), 0);
}

/* The next lost run is [start, end) and all value. */
static void lost(uint64_t from, uint64_t stamp, uint64_t start, uint64_t end, int value)
{
    struct unflushed_run run;
    cr_assert(unflushed_lost(unflushed, from, stamp, 100, &run));
    cr_assert_eq(run.extent.start, start);
    cr_assert_eq(run.extent.end, end);
    cr_assert_eq(run.memory == NULL, value == 0);
    for (uint64_t i = 0; run.memory && i < end - start; i++)
        cr_assert_eq(((const char *)run.memory)[i], value);
    unflushed_put(unflushed, &run);
}

static void none(uint64_t from, uint64_t stamp)
{
    struct unflushed_run run;
    cr_assert_not(unflushed_lost(unflushed, from, stamp, 100, &run));
}

Test(unflushed, settled_by_its_own_stamp)
{
    add(0, 100, 1, 7);
    uint64_t mark = unflushed_mark(unflushed);
    add(200, 300, 2, 7);
    cr_assert(unflushed_settle(unflushed, mark, 7));
    none(0, 7);
    lost(0, 8, 200, 300, 2);
    cr_assert_eq(unflushed_bytes(unflushed), 100);
    cr_assert(unflushed_settle(unflushed, unflushed_mark(unflushed), 7));
    cr_assert_eq(unflushed_bytes(unflushed), 0);
}

Test(unflushed, another_stamp_is_a_loss_until_written_again)
{
    add(0, 100, 1, 7);
    add(100, 200, 2, 8);
    cr_assert_not(unflushed_settle(unflushed, unflushed_mark(unflushed), 8));
    lost(0, 8, 0, 100, 1);
    lost(50, 8, 50, 100, 1);
    none(100, 8);
    add(0, 100, 1, 8);
    none(0, 8);
    cr_assert(unflushed_settle(unflushed, unflushed_mark(unflushed), 8));
    cr_assert_eq(unflushed_bytes(unflushed), 0);
}

Test(unflushed, the_newest_bytes_are_held)
{
    add(0, 100, 1, 7);
    add(20, 30, 2, 7);
    add(90, 120, 0, 7);
    lost(0, 8, 0, 20, 1);
    lost(20, 8, 20, 30, 2);
    lost(30, 8, 30, 90, 1);
    lost(90, 8, 90, 120, 0);
    none(120, 8);
    unflushed_truncate(unflushed, 25);
    lost(20, 8, 20, 25, 2);
    none(25, 8);
}

/* W1 was lost, W2 covers it and was answered after the flush was sent: that flush proves nothing for W2's bytes. */
Test(unflushed, what_covers_a_loss_owes_it)
{
    add(0, 100, 1, 7);
    uint64_t mark = unflushed_mark(unflushed);
    add(0, 100, 2, 8);
    cr_assert_not(unflushed_settle(unflushed, mark, 8));
    none(0, 8);
    cr_assert(unflushed_settle(unflushed, unflushed_mark(unflushed), 8));
    cr_assert_eq(unflushed_bytes(unflushed), 0);
}

Test(unflushed, what_covers_the_durable_owes_nothing)
{
    add(0, 100, 1, 7);
    uint64_t mark = unflushed_mark(unflushed);
    add(50, 100, 2, 7);
    cr_assert(unflushed_settle(unflushed, mark, 7));
    lost(0, 8, 50, 100, 2);
    cr_assert(unflushed_settle(unflushed, mark, 8)); /* an older mark's answer, late: all before it is durable */
    cr_assert_not(unflushed_settle(unflushed, unflushed_mark(unflushed), 8));
}

/* W1 lost with the first server, W2 with the second. */
Test(unflushed, debts_are_inherited)
{
    add(0, 100, 1, 7);
    uint64_t mark = unflushed_mark(unflushed);
    add(0, 100, 2, 8);
    add(0, 50, 3, 8);
    cr_assert_not(unflushed_settle(unflushed, mark, 8));
    cr_assert_not(unflushed_settle(unflushed, unflushed_mark(unflushed), 9));
    lost(0, 9, 0, 50, 3);
    lost(50, 9, 50, 100, 2);
}

Test(unflushed, a_pinned_run_outlives_its_cover)
{
    struct unflushed_run run;
    add(0, 100, 1, 7);
    cr_assert(unflushed_lost(unflushed, 10, 8, 20, &run));
    cr_assert(run.extent.start == 10 && run.extent.end == 30);
    add(0, 100, 2, 7);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(((const char *)run.memory)[i], 1);
    cr_assert_eq(unflushed_bytes(unflushed), 200);
    unflushed_put(unflushed, &run);
    cr_assert_eq(unflushed_bytes(unflushed), 100);
}

/* The budget bounds memory, not the bytes that are still shown of it. */
Test(unflushed, the_budget_counts_what_is_in_memory)
{
    cr_assert_not(unflushed_full(unflushed));
    for (uint64_t i = 0; i < 1000; i++)
        add(i, i + 100, 1, 7);
    cr_assert(unflushed_full(unflushed));
    cr_assert_eq(unflushed_bytes(unflushed), 1000 * 100);
    cr_assert(unflushed_settle(unflushed, unflushed_mark(unflushed), 7));
    cr_assert_not(unflushed_full(unflushed));
}

/* Against a plain model: which byte is held, with which stamp. */
Test(unflushed, model)
{
    enum { SIZE = 2000, STEPS = 30000 };
    static unsigned char value[SIZE], stamp[SIZE];
    unsigned random = 3;
    uint64_t now = 1;
    for (unsigned step = 0; step < STEPS; step++) {
        random = random * 1664525u + 1013904223u;
        uint64_t start = random >> 8 & 1023, length = 1 + (random >> 20 & 127);
        switch (random >> 28) {
        case 0:
            now++;
            break;
        case 1:
            unflushed_truncate(unflushed, start);
            memset(stamp + start, 0, SIZE - start);
            break;
        case 2: {
            bool all = unflushed_settle(unflushed, unflushed_mark(unflushed), now & 255);
            for (unsigned i = 0; i < SIZE; i++) {
                stamp[i] = stamp[i] == (now & 255) ? 0 : stamp[i];
                all = all && !stamp[i];
            }
            struct unflushed_run run;
            if (all)
                cr_assert_not(unflushed_lost(unflushed, 0, 0, 1, &run));
            break;
        }
        default:
            add(start, start + length, (int)(step & 127), now & 255);
            memset(value + start, (int)(step & 127), length);
            memset(stamp + start, (int)(now & 255), length);
        }
        now = (now & 255) ? now : 1;
        if (step % 16)
            continue;
        struct unflushed_run run;
        uint64_t at = 0;
        while (unflushed_lost(unflushed, at, 0, 50, &run)) {
            for (; at < run.extent.start; at++)
                cr_assert_eq(stamp[at], 0);
            for (; at < run.extent.end; at++) {
                cr_assert_neq(stamp[at], 0);
                cr_assert_eq(run.memory ? ((const unsigned char *)run.memory)[at - run.extent.start] : 0, value[at]);
            }
            unflushed_put(unflushed, &run);
        }
        for (; at < SIZE; at++)
            cr_assert_eq(stamp[at], 0);
    }
}

#define MODEL (1u << 20)

/* Exactly the model's bytes are held. */
static void equals_model(struct unflushed *all, const unsigned char *bytes, const bool *held)
{
    struct unflushed_run run;
    uint64_t at = 0, sum = 0;
    while (unflushed_lost(all, at, UINT64_MAX, MODEL, &run)) {
        for (; at < run.extent.start; at++)
            cr_assert_not(held[at], "%lu is missing", at);
        for (; at < run.extent.end; at++)
            sum += !held[at] || bytes[at] != ((const unsigned char *)run.memory)[at - run.extent.start];
        unflushed_put(all, &run);
    }
    cr_assert_eq(sum, 0);
    for (; at < MODEL; at++)
        cr_assert_not(held[at], "%lu is missing", at);
}

/* Blocks of usual sizes are used again while others of them are still shown. */
Test(unflushed, as_a_model_does, .timeout = 60)
{
    struct unflushed *all;
    unsigned char *bytes = calloc(1, MODEL), *memory = malloc((300 << 10) + 100);
    bool *held = calloc(MODEL, sizeof(*held));
    srandom(1);
    cr_assert_eq(unflushed_new(&all, 4 << 20), 0);
    for (int i = 0; i < 3000; i++) {
        uint64_t size = i % 2 ? 4096ull << random() % 7 : 1 + (uint64_t)random() % (i % 3 ? 5000 : 300 << 10);
        uint64_t skip = (uint64_t)random() % 100;
        uint64_t start = (uint64_t)random() % MODEL, end = start + size < MODEL ? start + size : MODEL;
        memset(memory, i, skip);
        for (uint64_t j = start; j < end; j++)
            bytes[j] = memory[skip % 50 + j - start] = (unsigned char)(j * 31 + (uint64_t)i), held[j] = true;
        struct iovec iov[3] = {
            {memory, skip % 50 / 2}, {memory + skip % 50 / 2, 70}, {memory + skip % 50 / 2 + 70, MODEL}};
        cr_assert_eq(unflushed_add_from(all, (struct extent){start, end}, iov, 3, skip % 50, 7), 0);
        if (i % 100 == 0) {
            unflushed_truncate(all, MODEL / 2);
            memset(held + MODEL / 2, 0, MODEL / 2 * sizeof(*held));
        }
        if (i % 700 == 699) {
            cr_assert(unflushed_settle(all, unflushed_mark(all), 7));
            memset(held, 0, MODEL * sizeof(*held));
        }
        if (i % 50 == 0)
            equals_model(all, bytes, held);
    }
    unflushed_free(all);
    free(held);
    free(memory);
    free(bytes);
}
