/* A job's journal: what is written comes back; what is torn ends it, what is damaged is refused, what cannot be is too. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../power/power_files.h"
#include "migrate/journal.h"
#include "migrate/journal_record.h"
#include "migrate/journal_replay.h"

#define JOB     7
#define NAME    "7.journal"
#define KEY     0x1122334455667788ull
#define REGIONS 3000

static struct power_files *power;
static struct journal_files *files;
static struct journal *journal;
static struct journal_state state, got;

static void set(struct bits *bits, uint64_t start, uint64_t end)
{
    cr_assert_eq(bits_grow(bits, end), 0);
    for (uint64_t n = start; n < end; n++)
        bits_set(bits, n);
}

static void begin(void)
{
    power = power_files_new();
    files = power_files_of(power);
    state = (struct journal_state){.key = KEY, .epoch = 3, .regions = REGIONS};
    strcpy(state.partial, "vms/.svmfs-partial-7");
    set(&state.copied, 10, 900);
    set(&state.marked, 20, 21);
    set(&state.touched, 0, 4);
    cr_assert_eq(journal_create(&journal, files, JOB, &state), 0);
}

static void end(void)
{
    journal_close(journal);
    journal_state_free(&state);
    journal_state_free(&got);
    power_files_free(power);
}

static bool same(const struct bits *a, const struct bits *b, uint64_t end)
{
    for (uint64_t n = 0; n < end; n++)
        if (bits_has(a, n) != bits_has(b, n))
            return false;
    return true;
}

static void expect(const struct journal_state *wanted)
{
    int error = journal_read(files, JOB, &got);
    cr_assert_eq(error, 0, "%d", error);
    cr_expect(got.key == wanted->key && got.epoch == wanted->epoch && got.regions == wanted->regions);
    cr_expect_str_eq(got.partial, wanted->partial);
    cr_expect(same(&got.copied, &wanted->copied, wanted->regions), "copied");
    cr_expect(same(&got.marked, &wanted->marked, wanted->regions), "marked");
    cr_expect(same(&got.touched, &wanted->touched, journal_groups(wanted->regions)), "touched");
    journal_state_free(&got);
}

static void mark(uint64_t start, uint64_t stop)
{
    struct extent range = {start, stop};
    cr_assert_eq(journal_mark(journal, &range, 1), 0);
    set(&state.marked, start, stop);
}

static void touch(uint64_t start, uint64_t stop)
{
    struct extent range = {start, stop};
    cr_assert_eq(journal_touch(journal, &range, 1), 0);
    set(&state.touched, start, stop);
}

/* Copied loses [lose, lose + 5) and gets [get, get + 5). */
static void epoch(uint64_t lose, uint64_t gain)
{
    struct bits before = {NULL, 0};
    bits_copy(&before, &state.copied);
    for (uint64_t n = lose; n < lose + 5; n++)
        bits_clear(&state.copied, n);
    set(&state.copied, gain, gain + 5);
    bits_clear_all(&state.marked);
    set(&state.marked, lose / 2, lose / 2 + 1);
    set(&state.touched, 6, 7);
    state.epoch++;
    cr_assert_eq(journal_epoch(journal, &before, &state), 0);
    bits_free(&before);
}

static uint8_t *take(size_t *length)
{
    const uint8_t *bytes = power_files_get(power, NAME, length);
    uint8_t *own = malloc(*length);
    memcpy(own, bytes, *length);
    return own;
}

/* What was said of a file of just these bytes. */
static int replay(const uint8_t *bytes, size_t length)
{
    uint8_t *own = malloc(length + !length); /* so that a sanitizer sees its end */
    memcpy(own, bytes, length);
    int error = journal_replay(own, length, &got, NULL);
    free(own);
    return error;
}

Test(journal, comes_back, .init = begin, .fini = end)
{
    expect(&state);
    mark(0, 1);
    mark(1200, REGIONS);
    touch(11, 12);
    expect(&state);
    epoch(30, 2000);
    expect(&state);
    epoch(500, 30);
    mark(63, 65);
    touch(5, 6);
    expect(&state);
    cr_expect_eq(journal_mark(journal, NULL, 0), 0);
    expect(&state);
}

Test(journal, many_ranges, .init = begin, .fini = end)
{
    struct extent ranges[REGIONS / 2];
    for (uint64_t i = 0; i < REGIONS / 2; i++) {
        ranges[i] = (struct extent){i * 2, i * 2 + 1};
        set(&state.marked, i * 2, i * 2 + 1);
    }
    cr_assert_eq(journal_mark(journal, ranges, REGIONS / 2), 0);
    cr_assert_eq(journal_mark(journal, ranges, REGIONS / 2), 0);
    expect(&state);
}

Test(journal, resumed, .init = begin, .fini = end)
{
    mark(40, 50);
    journal_close(journal);
    journal = NULL;
    cr_assert_eq(journal_read(files, JOB, &got), 0);
    cr_assert_eq(journal_create(&journal, files, JOB, &got), 0);
    journal_state_free(&got);
    expect(&state);
    mark(60, 61);
    expect(&state);
}

Test(journal, more_regions, .init = begin, .fini = end)
{
    state.regions = REGIONS + 2000;
    epoch(30, REGIONS + 1990);
    expect(&state);
    mark(REGIONS + 1999, REGIONS + 2000);
    expect(&state);
    state.regions = REGIONS + 1990; /* fewer are not less: nothing is forgotten */
    epoch(REGIONS + 1990, 1);
    state.regions = REGIONS + 2000;
    cr_assert_eq(journal_read(files, JOB, &got), 0);
    cr_expect_eq(got.regions, REGIONS + 2000);
    journal_state_free(&got);
}

Test(journal, torn_tail, .init = begin, .fini = end)
{
    uint64_t at[3];
    size_t length;
    for (int kind = 0; kind < 3; kind++) {
        struct journal_state before = state;
        before.copied = before.marked = before.touched = (struct bits){NULL, 0};
        bits_copy(&before.copied, &state.copied);
        bits_copy(&before.marked, &state.marked);
        bits_copy(&before.touched, &state.touched);
        at[kind] = journal_length(journal);
        if (kind == 0)
            mark(100, 200);
        else if (kind == 1)
            touch(9, 10);
        else
            epoch(50, 2500);
        uint8_t *bytes = take(&length);
        uint64_t stop = journal_length(journal);
        /* the rest of it never came: zeroes, the file's end, or something else */
        for (uint64_t cut = at[kind]; cut < stop; cut++) {
            for (int rest = 0; rest < 3; rest++) {
                uint8_t *torn = malloc(length);
                memcpy(torn, bytes, length);
                memset(torn + cut, rest == 2 ? 0xa5 : 0, stop - cut);
                bool whole = rest == 0 && memcmp(torn, bytes, length) == 0;
                int error = replay(torn, rest == 1 ? cut : length);
                cr_assert_eq(error, 0, "kind %d cut at %llu: %d", kind, (unsigned long long)(cut - at[kind]), error);
                const struct journal_state *wanted = whole ? &state : &before;
                cr_assert(same(&got.marked, &wanted->marked, REGIONS) && got.epoch == wanted->epoch &&
                          same(&got.copied, &wanted->copied, REGIONS) && same(&got.touched, &wanted->touched, 12));
                journal_state_free(&got);
                free(torn);
            }
            bytes[cut] ^= 0x10; /* or each of its bytes is another */
            cr_assert_eq(replay(bytes, length), 0);
            cr_assert(same(&got.marked, &before.marked, REGIONS) && got.epoch == before.epoch);
            journal_state_free(&got);
            bytes[cut] ^= 0x10;
        }
        free(bytes);
        journal_state_free(&before);
    }
}

Test(journal, damaged_middle, .init = begin, .fini = end)
{
    size_t length;
    mark(100, 200);
    uint64_t stop = journal_length(journal);
    mark(1, 2);
    uint8_t *bytes = take(&length);
    for (uint64_t at = 0; at < stop; at++) {
        bytes[at] ^= 1;
        cr_assert_eq(replay(bytes, length), -EBADMSG, "byte %llu", (unsigned long long)at);
        bytes[at] ^= 1;
    }
    memset(bytes + stop - 8, 0, 8); /* words that were never written, and one that was */
    cr_assert_eq(replay(bytes, length), -EBADMSG);
    cr_assert(power_files_set(power, NAME, bytes, length));
    cr_assert_eq(journal_read(files, JOB, &got), -EBADMSG);
    free(bytes);
}

Test(journal, no_journal, .init = begin, .fini = end)
{
    cr_expect_eq(journal_read(files, 8, &got), -ENOENT);
    cr_expect_eq(replay((const uint8_t *)"", 0), -EBADMSG);
    uint8_t zeroes[4096] = {0};
    cr_expect_eq(replay(zeroes, sizeof(zeroes)), -EBADMSG);
}

/* A record of any content behind those that are there. */
static int with_record(uint16_t type, uint16_t flags, uint64_t key, int64_t later, const uint64_t *words, size_t count)
{
    struct journal_build build = {NULL, 0, 0, false};
    size_t length;
    uint8_t *bytes = take(&length);
    uint64_t at = journal_length(journal), salt = journal_get64(bytes + JOURNAL_HEAD + 8);
    struct journal_record last = {0};
    for (uint64_t from = 0; from < at; from += last.length)
        cr_assert(journal_record_at(bytes + from, length - from, from ? salt : 0, &last));
    journal_begin(&build, type, flags, key, last.sequence + 1 + (uint64_t)later);
    for (size_t i = 0; i < count; i++)
        journal_put64(&build, words[i]);
    cr_assert_eq(journal_end(&build, salt), 0);
    memcpy(bytes + at, build.bytes, build.length);
    int error = replay(bytes, length);
    free(bytes);
    free(build.bytes);
    return error;
}

#define WITH(type, flags, ...)                                                                                         \
    with_record(type, flags, KEY, 0, (const uint64_t[]){__VA_ARGS__},                                                  \
        sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

Test(journal, unknown_type, .init = begin, .fini = end)
{
    cr_expect_eq(WITH(99, JOURNAL_SKIP, 1, 2), 0);
    cr_expect_eq(got.regions, REGIONS);
    journal_state_free(&got);
    cr_expect_eq(WITH(99, 0, 1, 2), -EPROTO);
    cr_expect_eq(WITH(JOURNAL_STATE, 0, 1, 2), -EBADMSG);
}

Test(journal, later_version, .init = begin, .fini = end)
{
    struct journal_build build = {NULL, 0, 0, false};
    journal_begin(&build, JOURNAL_STATE, 0, KEY, 1);
    journal_put32(&build, JOURNAL_VERSION + 1);
    journal_put32(&build, 0);
    journal_end(&build, 0);
    cr_expect_eq(replay(build.bytes, build.length), -EPROTO);
    free(build.bytes);
}

Test(journal, other_key_or_number, .init = begin, .fini = end)
{
    const uint64_t range[] = {1, 2};
    cr_expect_eq(with_record(JOURNAL_MARK, 0, KEY, 0, range, 2), 0);
    cr_expect(bits_has(&got.marked, 1));
    journal_state_free(&got);
    cr_expect_eq(with_record(JOURNAL_MARK, 0, KEY + 1, 0, range, 2), 0, "another's is none");
    cr_expect_not(bits_has(&got.marked, 1));
    journal_state_free(&got);
    cr_expect_eq(with_record(JOURNAL_MARK, 0, KEY, 1, range, 2), -EBADMSG, "one is missing");
    cr_expect_eq(with_record(JOURNAL_MARK, 0, KEY, -1, range, 2), -EBADMSG, "one is there twice");
}

/* The file's blocks may have been those of the job's journal before: same job, same key. */
Test(journal, older_records_are_none, .init = begin, .fini = end)
{
    size_t length, now;
    mark(100, 200);
    mark(300, 400);
    uint64_t old = journal_length(journal);
    uint8_t *bytes = take(&length);
    journal_close(journal);
    bits_clear_all(&state.marked);
    set(&state.marked, 20, 21);
    cr_assert_eq(journal_create(&journal, files, JOB, &state), 0);
    uint64_t at = journal_length(journal);
    uint8_t *fresh = take(&now);
    memcpy(fresh + at, bytes + at, old - at);
    cr_assert(power_files_set(power, NAME, fresh, now));
    expect(&state);
    free(bytes);
    free(fresh);
}

Test(journal, what_cannot_be, .init = begin, .fini = end)
{
    cr_expect_eq(WITH(JOURNAL_MARK, 0, 0, REGIONS), 0);
    journal_state_free(&got);
    cr_expect_eq(WITH(JOURNAL_MARK, 0, 0, REGIONS + 1), -EBADMSG);
    cr_expect_eq(WITH(JOURNAL_MARK, 0, REGIONS, REGIONS + 1), -EBADMSG);
    cr_expect_eq(WITH(JOURNAL_MARK, 0, 5, 5), -EBADMSG);
    cr_expect_eq(WITH(JOURNAL_MARK, 0, 6, 5), -EBADMSG);
    cr_expect_eq(WITH(JOURNAL_MARK, 0, UINT64_MAX - 1, UINT64_MAX), -EBADMSG);
    cr_expect_eq(WITH(JOURNAL_MARK, 0, 1, 2, 3), -EBADMSG, "half a range");
    cr_expect_eq(WITH(JOURNAL_TOUCH, 0, 0, 12), 0);
    journal_state_free(&got);
    cr_expect_eq(WITH(JOURNAL_TOUCH, 0, 0, 13), -EBADMSG);
    /* epoch, regions, copied, more, less, marked, touched */
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, REGIONS, 890, 0, 0, 0, 0), 0);
    journal_state_free(&got);
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, REGIONS, 889, 0, 0, 0, 0), -EBADMSG, "another count");
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 2, REGIONS, 890, 0, 0, 0, 0), -EBADMSG, "an epoch before");
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, REGIONS - 1, 890, 0, 0, 0, 0), -EBADMSG, "fewer regions");
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, 1ull << 62, 890, 0, 0, 0, 0), -EBADMSG);
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, REGIONS, 890, 1, 0, 0, 0), -EBADMSG, "a range is missing");
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, REGIONS, 890, 1ull << 60, 0, 0, 0), -EBADMSG);
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, REGIONS, 890, 0, 0, 0, 0, 1, 2), -EBADMSG, "a range too many");
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, REGIONS, 891, 1, 0, 0, 0, 2, 3), 0);
    journal_state_free(&got);
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, REGIONS, 890, 0, 0, 1, 0, 0, REGIONS + 1), -EBADMSG);
    cr_expect_eq(WITH(JOURNAL_EPOCH, 0, 4, REGIONS, 890, 0, 0, 0, 1, 0, 13), -EBADMSG);
}

Test(journal, what_cannot_be_is_not_written, .init = begin, .fini = end)
{
    struct extent range = {0, REGIONS + 1};
    struct bits none = {NULL, 0};
    cr_expect_eq(journal_mark(journal, &range, 1), -EINVAL);
    range = (struct extent){0, 1};
    cr_expect_eq(journal_mark(journal, &range, 1), -EIO, "after an error it takes no more");
    expect(&state);
    struct journal *other = NULL;
    set(&state.marked, REGIONS, REGIONS + 1);
    cr_expect_eq(journal_create(&other, files, JOB, &state), -EINVAL);
    bits_clear(&state.marked, REGIONS);
    expect(&state);
    journal_close(journal);
    cr_assert_eq(journal_create(&journal, files, JOB, &state), 0);
    cr_expect_eq(journal_epoch(journal, &none, &state), -EINVAL, "not what was copied before");
    expect(&state);
}

Test(journal, after_an_error, .init = begin, .fini = end)
{
    struct extent range = {0, 1};
    power_files_arm(power, 2, POWER_FILES_STOP, 1); /* the sync */
    cr_expect_eq(journal_mark(journal, &range, 1), -EIO);
    power_files_arm(power, 0, 0, 0);
    cr_expect_eq(journal_mark(journal, &range, 1), -EIO);
    cr_expect_eq(journal_touch(journal, &range, 1), -EIO);
    cr_expect_eq(journal_epoch(journal, &state.copied, &state), -EIO);
    cr_expect_eq(power_files_changes(power), 0, "nothing more is written");
}

/* Every second region is copied: more than a record holds, and words are shorter than ranges. */
Test(journal, made_anew_when_much_changed, .init = begin, .fini = end)
{
    struct bits before = {NULL, 0};
    state.regions = 40000;
    epoch(30, 39000);
    bits_copy(&before, &state.copied);
    for (uint64_t n = 0; n < state.regions; n += 2)
        set(&state.copied, n, n + 1);
    state.epoch++;
    cr_assert_eq(journal_epoch(journal, &before, &state), 0);
    cr_expect(journal_length(journal) > 5000 && journal_length(journal) < 9000, "%llu",
        (unsigned long long)journal_length(journal));
    expect(&state);
    mark(39999, 40000);
    expect(&state);
    bits_free(&before);
}

Test(journal, made_anew_when_long, .init = begin, .fini = end)
{
    struct extent ranges[REGIONS / 2];
    for (uint64_t i = 0; i < REGIONS / 2; i++)
        ranges[i] = (struct extent){i * 2, i * 2 + 1};
    while (journal_length(journal) < 4u << 20)
        cr_assert_eq(journal_mark(journal, ranges, REGIONS / 2), 0);
    cr_expect(journal_length(journal) > 4u << 20);
    epoch(30, 2000);
    cr_expect(journal_length(journal) < 4096);
    expect(&state);
}

Test(journal, made_anew_for_another_partial, .init = begin, .fini = end)
{
    strcpy(state.partial, "vms/.svmfs-partial-8");
    epoch(30, 2000);
    expect(&state);
    state.key++;
    epoch(40, 2100);
    expect(&state);
    mark(1, 2);
    expect(&state);
}

/* What a caller forgot to say again stays touched. */
Test(journal, touched_only_grows, .init = begin, .fini = end)
{
    touch(8, 9);
    bits_clear_all(&state.touched);
    epoch(30, 2000);
    strcpy(state.partial, "another");
    epoch(40, 2100);
    set(&state.touched, 0, 4);
    set(&state.touched, 8, 9);
    expect(&state);
}

static void count(void *argument, uint64_t job)
{
    *(uint64_t *)argument += job;
}

Test(journal, listed_and_removed, .init = begin, .fini = end)
{
    struct journal *other;
    uint64_t sum = 0;
    cr_assert_eq(journal_create(&other, files, 500, &state), 0);
    journal_close(other);
    cr_assert(power_files_set(power, "500.journal.new", (const uint8_t *)"", 0));
    cr_assert(power_files_set(power, "07.journal", (const uint8_t *)"", 0));
    cr_assert_eq(journal_list(files, count, &sum), 0);
    cr_expect_eq(sum, 507);
    cr_expect_eq(journal_remove(files, 500), 0);
    cr_expect_eq(journal_remove(files, 500), 0);
    cr_expect_eq(journal_read(files, 500, &got), -ENOENT);
    size_t length;
    cr_expect_null(power_files_get(power, "500.journal.new", &length));
    power_files_arm(power, 0, 0, 1);
    power_files_return(power);
    cr_expect_eq(journal_read(files, 500, &got), -ENOENT, "durably");
}
