/* The model itself, without a file: which answers history.c accepts and which it must not. */
#include "history.h"

#include <stdio.h>
#include <string.h>

static int failures;

static void expect(const char *what, unsigned got, unsigned wanted)
{
    if (got != wanted) {
        printf("%s: %u, not %u\n", what, got, wanted);
        failures++;
    }
}

static unsigned judge(struct history *history, const void *data)
{
    struct history_read read = {.length = BLOCK};
    bool torn;
    history_read_begin(history, &read);
    unsigned wrong = history_read_end(history, &read, data, &torn);
    history_read_free(&read);
    return wrong + torn;
}

static void overlapping(void)
{
    struct history *history = history_new(0, 4096, 1, false);
    struct history_write a = {.length = BLOCK}, b = {.length = BLOCK}, c = {.length = BLOCK};
    uint8_t zero[BLOCK] = {0}, da[BLOCK], db[BLOCK], dc[BLOCK];
    expect("zeroes at first", judge(history, zero), 0);
    history_write_begin(history, &a, HISTORY_DATA, 1);
    history_write_begin(history, &b, HISTORY_DATA, 2);
    history_fill(history, &a, da);
    history_fill(history, &b, db);
    history_write_end(history, &b, 0);
    history_write_end(history, &a, 0);
    expect("the one", judge(history, da), 0);
    expect("and then the other", judge(history, db), 1);
    history_free(history);

    history = history_new(0, 4096, 1, false);
    a = (struct history_write){.length = BLOCK};
    b = (struct history_write){.length = BLOCK};
    history_write_begin(history, &a, HISTORY_DATA, 1);
    history_fill(history, &a, da);
    history_write_end(history, &a, 0);
    history_write_begin(history, &b, HISTORY_DATA, 1);
    history_fill(history, &b, db);
    struct history_read beside = {.length = BLOCK};
    bool torn;
    history_read_begin(history, &beside);
    expect("the older beside a write", judge(history, da), 0);
    expect("the newer beside it", judge(history, db), 0);
    history_write_end(history, &b, 0);
    expect("a read that began before it ended", history_read_end(history, &beside, da, &torn), 0);
    expect("the newer", judge(history, db), 0);
    expect("the older once the newer was acknowledged", judge(history, da), 1);
    history_read_free(&beside);
    history_write_begin(history, &c, HISTORY_DATA, 1);
    history_fill(history, &c, dc);
    history_write_end(history, &c, 0);
    expect("the newest", judge(history, dc), 0);
    expect("zeroes", judge(history, zero), 1);
    history_free(history);
}

static void failed_write(void)
{
    struct history *history = history_new(0, 4096, 1, false);
    struct history_write a = {.length = BLOCK};
    uint8_t zero[BLOCK] = {0}, da[BLOCK];
    history_write_begin(history, &a, HISTORY_DATA, 1);
    history_fill(history, &a, da);
    history_write_end(history, &a, -5);
    expect("a failed write may not have landed", judge(history, zero), 0);
    expect("and must not land later", judge(history, da), 1);
    history_free(history);
}

static void odd_edges(void)
{
    struct history *history = history_new(0, 4096, 1, false);
    struct history_write a = {.offset = 10, .length = 50}, b = {.offset = 100, .length = 3};
    uint8_t image[BLOCK] = {0}, lost[BLOCK] = {0};
    history_write_begin(history, &a, HISTORY_DATA, 1);
    history_write_begin(history, &b, HISTORY_DATA, 2);
    history_fill(history, &a, image + 10);
    history_fill(history, &b, image + 100);
    memcpy(lost + 10, image + 10, 50);
    history_write_end(history, &a, 0);
    expect("one of two, the other in flight", judge(history, lost), 0);
    history_write_end(history, &b, 0);
    expect("both", judge(history, image), 0);
    expect("the second lost", judge(history, lost), 1);
    history_free(history);
}

static void write_whole(struct history *history, uint8_t data[BLOCK])
{
    struct history_write write = {.length = BLOCK};
    history_write_begin(history, &write, HISTORY_DATA, 1);
    history_fill(history, &write, data);
    history_write_end(history, &write, 0);
}

static void lost_power(void)
{
    uint8_t data[5][BLOCK];
    for (unsigned found = 0; found < 5; found++) {
        struct history *history = history_new(0, 4096, 1, false);
        history_can_lose(history);
        write_whole(history, data[0]);
        write_whole(history, data[1]);
        uint64_t began = history_flush_begin(history);
        write_whole(history, data[2]); /* beside the flush */
        history_flush_end(history, began);
        write_whole(history, data[3]);
        write_whole(history, data[4]);
        expect("the newest before the loss", judge(history, data[4]), 0);
        history_lose(history);
        expect("what was written over before the flush, and what not", judge(history, data[found]), found == 0);
        if (found > 0 && found < 4)
            expect("it stays so", judge(history, data[4]), 1);
        history_free(history);
    }
}

int main(void)
{
    overlapping();
    failed_write();
    odd_edges();
    lost_power();
    if (!failures)
        printf("history: sound\n");
    return failures != 0;
}
