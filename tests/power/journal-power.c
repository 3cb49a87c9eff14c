/* journal-power: journals whose medium loses its power, or whose process dies, at any change: in a mark, a touch, an
 * epoch, while one is made or made anew, while it is removed, and again while it is read and made durable. What is read
 * then is what the last call that was answered left, or what the one that was not was about to leave; never a mixture,
 * never less, and never "damaged".
 *
 *   journal-power [--runs N] [--seed S] [--verbose] */
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/journal.h"
#include "migrate/journal_record.h"
#include "power_files.h"
#include "random.h"

#define JOB    42
#define STEPS  60
#define RANGES 6

struct stand {
    struct power_files *power;
    struct journal_files *files;
    struct journal *journal;         /* NULL: none is open */
    struct journal_state last, next; /* what was answered; with what was not */
    bool there, next_there;          /* is there a journal at all */
    uint64_t seed, random;
    bool verbose;
    unsigned long losses, deaths, records, anew, landed, missing;
};

static struct stand stand;

static void broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void broken(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("run of seed %llu: ", (unsigned long long)stand.seed);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\nagain: journal-power --runs 1 --verbose --seed %llu\n", (unsigned long long)stand.seed);
    exit(1);
}

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void tell(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (stand.verbose)
        vprintf(format, arguments);
    va_end(arguments);
}

static uint32_t pick(uint32_t count)
{
    return random_pick(&stand.random, count);
}

static void must(int error)
{
    if (error)
        broken("%s", error_text(error));
}

/* ---- states ---- */

static void copy_state(struct journal_state *to, const struct journal_state *from)
{
    to->key = from->key;
    to->epoch = from->epoch;
    to->regions = from->regions;
    strcpy(to->partial, from->partial);
    must(bits_copy(&to->copied, &from->copied));
    must(bits_copy(&to->marked, &from->marked));
    must(bits_copy(&to->touched, &from->touched));
}

static bool same_bits(const struct bits *a, const struct bits *b)
{
    size_t most = a->count > b->count ? a->count : b->count;
    for (size_t i = 0; i < most; i++)
        if ((i < a->count ? a->words[i] : 0) != (i < b->count ? b->words[i] : 0))
            return false;
    return true;
}

static bool same_state(const struct journal_state *a, const struct journal_state *b)
{
    return a->key == b->key && a->epoch == b->epoch && a->regions == b->regions &&
           strcmp(a->partial, b->partial) == 0 && same_bits(&a->copied, &b->copied) &&
           same_bits(&a->marked, &b->marked) && same_bits(&a->touched, &b->touched);
}

static void show(const char *name, const struct journal_state *state)
{
    uint64_t groups = journal_groups(state->regions);
    printf("  %s: key %llx epoch %llu, %llu regions, \"%s\", %llu copied, %llu marked, %llu touched\n", name,
        (unsigned long long)state->key, (unsigned long long)state->epoch, (unsigned long long)state->regions,
        state->partial, (unsigned long long)bits_count(&state->copied, state->regions),
        (unsigned long long)bits_count(&state->marked, state->regions),
        (unsigned long long)bits_count(&state->touched, groups));
}

static void set(struct bits *bits, struct extent range, bool value)
{
    must(bits_grow(bits, range.end));
    for (uint64_t n = range.start; n < range.end; n++)
        value ? bits_set(bits, n) : bits_clear(bits, n);
}

static struct extent some_range(uint64_t end)
{
    uint64_t start = pick((uint32_t)end), most = end - start;
    uint64_t length = 1 + pick((uint32_t)(pick(4) ? (most < 8 ? most : 8) : most));
    return (struct extent){start, start + length};
}

/* ---- changes: next is what is asked for, last becomes it when the answer is there ---- */

static void answered(const char *what, int error)
{
    bool lost = power_files_lost(stand.power);
    tell("%s: %s\n", what, error ? error_text(error) : "done");
    if (error && !lost)
        broken("%s failed by itself: %s", what, error_text(error));
    if (!error) {
        copy_state(&stand.last, &stand.next);
        stand.there = stand.next_there;
    }
    stand.records++;
}

static void change_create(void)
{
    stand.next_there = true;
    if (stand.journal)
        journal_close(stand.journal);
    stand.journal = NULL;
    answered("create", journal_create(&stand.journal, stand.files, JOB, &stand.next));
}

static void change_mark(void)
{
    struct extent ranges[RANGES];
    unsigned count = 1 + pick(RANGES);
    for (unsigned i = 0; i < count; i++) {
        ranges[i] = some_range(stand.last.regions);
        set(&stand.next.marked, ranges[i], true);
    }
    answered("mark", journal_mark(stand.journal, ranges, count));
}

static void change_touch(void)
{
    struct extent range = some_range(journal_groups(stand.last.regions));
    set(&stand.next.touched, range, true);
    answered("touch", journal_touch(stand.journal, &range, 1));
}

static void change_epoch(void)
{
    struct journal_state *next = &stand.next;
    uint64_t before = journal_length(stand.journal);
    next->epoch += 1 + pick(3);
    if (pick(8) == 0)
        next->regions += pick(500);
    if (pick(20) == 0)
        next->key++;
    if (pick(20) == 0)
        snprintf(next->partial, sizeof(next->partial), "partial-%u", pick(1000));
    if (pick(16) == 0) /* so many that it is made anew */
        for (uint64_t n = pick(2); n < next->regions; n += 2)
            set(&next->copied, (struct extent){n, n + 1}, !bits_has(&next->copied, n));
    for (unsigned i = pick(RANGES); i > 0; i--)
        set(&next->copied, some_range(next->regions), pick(3) != 0);
    if (pick(12) == 0)
        bits_clear_all(&next->copied);
    bits_clear_all(&next->marked);
    for (unsigned i = pick(3); i > 0; i--)
        set(&next->marked, some_range(next->regions), true);
    if (pick(3) == 0)
        set(&next->touched, some_range(journal_groups(next->regions)), true);
    answered("epoch", journal_epoch(stand.journal, &stand.last.copied, next));
    stand.anew += !power_files_lost(stand.power) && journal_length(stand.journal) <= before;
}

static void change_remove(void)
{
    journal_close(stand.journal);
    stand.journal = NULL;
    stand.next_there = false;
    answered("remove", journal_remove(stand.files, JOB));
}

static void change(void)
{
    copy_state(&stand.next, &stand.last);
    stand.next_there = stand.there;
    uint32_t kind = pick(100);
    if (!stand.journal || kind == 0)
        change_create();
    else if (kind < 60)
        change_mark();
    else if (kind < 75)
        change_touch();
    else if (kind < 99)
        change_epoch();
    else
        change_remove();
}

/* ---- what is there afterwards ---- */

static void sum(void *argument, uint64_t job)
{
    *(uint64_t *)argument += job;
}

static void check(void)
{
    struct journal_state got;
    uint64_t jobs = 0;
    int error = journal_read(stand.files, JOB, &got);
    must(journal_list(stand.files, sum, &jobs));
    if (jobs != (error == -ENOENT ? 0 : JOB))
        broken("the list is not what can be read: %s", error_text(error));
    if (error == -ENOENT) {
        if (stand.there && stand.next_there)
            broken("there is no journal");
        stand.missing++;
        stand.there = stand.next_there = false;
        return;
    }
    if (error)
        broken("it is refused: %s", error_text(error));
    bool is_last = stand.there && same_state(&got, &stand.last);
    bool is_next = stand.next_there && same_state(&got, &stand.next);
    if (!is_last && !is_next) {
        show("read", &got);
        show("last", &stand.last);
        show("next", &stand.next);
        broken("what was read is neither what was answered nor what was asked for");
    }
    stand.landed += is_next && !is_last;
    copy_state(&stand.last, &got);
    copy_state(&stand.next, &got);
    stand.there = stand.next_there = true;
    journal_state_free(&got);
}

/* Reads it and makes it durable; the power may go again meanwhile. */
static void resume(void)
{
    for (unsigned tries = 0;; tries++) {
        power_files_return(stand.power);
        check();
        if (!stand.there)
            return;
        power_files_arm(stand.power, tries < 3 && pick(3) == 0 ? 1 + pick(6) : 0, pick(257), stand.random);
        if (pick(2))
            stand.next.key++;
        change_create();
        if (!power_files_lost(stand.power)) {
            power_files_arm(stand.power, 0, 0, 0);
            return;
        }
        stand.losses++;
    }
}

static void round_of_changes(void)
{
    unsigned share = pick(4) ? pick(257) : 256 * pick(2);
    bool death = pick(4) == 0;
    power_files_arm(stand.power, 1 + pick(pick(3) ? 40 : 200), death ? POWER_FILES_STOP : share, stand.random);
    for (unsigned i = 0; i < STEPS && !power_files_lost(stand.power); i++)
        change();
    power_files_lose(stand.power);
    tell("%s\n", death ? "death" : "power lost");
    stand.losses++;
    stand.deaths += death;
    journal_close(stand.journal);
    stand.journal = NULL;
}

static void run(uint64_t seed)
{
    stand.seed = stand.random = seed;
    stand.power = power_files_new();
    stand.files = power_files_of(stand.power);
    stand.last = (struct journal_state){.key = seed, .regions = 1 + pick(pick(6) ? 700 : 24000), .partial = "partial"};
    copy_state(&stand.next, &stand.last);
    stand.there = stand.next_there = false;
    for (unsigned round = 0, rounds = 1 + pick(4); round < rounds; round++) {
        round_of_changes();
        resume();
    }
    journal_close(stand.journal);
    stand.journal = NULL;
    journal_state_free(&stand.last);
    journal_state_free(&stand.next);
    power_files_free(stand.power);
}

int main(int count, char **arguments)
{
    static const struct option options[] = {{"runs", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'}, {"verbose", no_argument, NULL, 'v'}, {0}};
    uint64_t runs = 2000, seed = 1;
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        if (option == 'r')
            runs = strtoull(optarg, NULL, 10);
        else if (option == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (option == 'v')
            stand.verbose = true;
        else
            return 2;
    }
    for (uint64_t i = 0; i < runs; i++)
        run(seed + i);
    printf("%llu runs passed, seed %llu: %lu losses of power, %lu deaths of the process, %lu calls, %lu made anew, "
           "%lu landed unanswered, %lu times no journal\n",
        (unsigned long long)runs, (unsigned long long)seed, stand.losses - stand.deaths, stand.deaths, stand.records,
        stand.anew, stand.landed, stand.missing);
    return 0;
}
