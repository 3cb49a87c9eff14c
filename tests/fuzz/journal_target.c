#include "journal_target.h"

#include <endian.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "../power/power_files.h"
#include "fuzz.h"
#include "migrate/journal.h"
#include "migrate/journal_record.h"
#include "migrate/journal_replay.h"

#define AGAIN_REGIONS (1u << 18) /* more are not written out again: it takes long and says no more */
#define STEPS         12

static bool lies_below(const struct bits *bits, uint64_t end)
{
    return bits_next(bits, end, (uint64_t)bits->count * 64, true) >= (uint64_t)bits->count * 64;
}

static bool same(const struct bits *a, const struct bits *b)
{
    uint64_t most = (a->count > b->count ? a->count : b->count) * 64, n = 0;
    while (n < most && bits_has(a, n) == bits_has(b, n))
        n++;
    return n == most;
}

static void write_again(const struct journal_state *state)
{
    struct power_files *power = power_files_new();
    struct journal *journal;
    struct journal_state again;
    int error = journal_create(&journal, power_files_of(power), 1, state);
    if (error)
        fuzz_broken("what was read cannot be written: %s\n", error_text(error));
    journal_close(journal);
    error = journal_read(power_files_of(power), 1, &again);
    if (error)
        fuzz_broken("what was written cannot be read: %s\n", error_text(error));
    if (again.key != state->key || again.epoch != state->epoch || again.regions != state->regions ||
        strcmp(again.partial, state->partial) != 0 || !same(&again.copied, &state->copied) ||
        !same(&again.marked, &state->marked) || !same(&again.touched, &state->touched))
        fuzz_broken("a journal is another when it is read again\n");
    journal_state_free(&again);
    power_files_free(power);
}

void journal_target(const uint8_t *bytes, size_t size, struct journal_sums *sums)
{
    struct journal_state state;
    uint64_t end = 0;
    uint8_t *own = malloc(size + !size); /* so that a sanitizer sees its end */
    if (size)
        memcpy(own, bytes, size);
    int error = journal_replay(own, size, &state, &end);
    free(own);
    if (error != 0 && error != -EBADMSG && error != -EPROTO)
        fuzz_broken("refused by %s\n", error_name(error));
    sums->taken += error == 0;
    sums->refused += error == -EBADMSG;
    sums->later += error == -EPROTO;
    if (error) {
        if (state.copied.words || state.marked.words || state.touched.words || state.regions)
            fuzz_broken("something was read of a journal that is refused\n");
        return;
    }
    if (end > size || state.regions > JOURNAL_REGIONS_MAX || !memchr(state.partial, 0, sizeof(state.partial)))
        fuzz_broken("it ends at %llu of %zu, with %llu regions\n", (unsigned long long)end, size,
            (unsigned long long)state.regions);
    if (!lies_below(&state.copied, state.regions) || !lies_below(&state.marked, state.regions) ||
        !lies_below(&state.touched, journal_groups(state.regions)))
        fuzz_broken("a number lies past its bounds\n");
    if (state.regions <= AGAIN_REGIONS)
        write_again(&state);
    journal_state_free(&state);
}

void journal_seal(uint8_t *bytes, size_t size)
{
    uint64_t key = size < 56 ? 0 : htole64(journal_get64(bytes + 32)), salt = 0;
    uint64_t next = size < 56 ? 0 : journal_get64(bytes + 48);
    for (size_t at = 0, length, sequence = 1; size - at >= JOURNAL_HEAD; at += length, salt = next, sequence++) {
        uint64_t number = htole64(sequence), sum;
        length = journal_get32(bytes + at + 16);
        if (length < JOURNAL_HEAD || length % 8 != 0 || length > size - at)
            return;
        memcpy(bytes + at + 24, &number, 8);
        memcpy(bytes + at + 32, &key, 8);
        sum = htole64(XXH3_64bits_withSeed(bytes + at + 8, length - 8, salt));
        memcpy(bytes + at, &sum, 8);
    }
}

/* ---- examples ---- */

static struct extent some_range(struct random *random, uint64_t end)
{
    uint64_t start = random_below(random, end);
    return (struct extent){start, start + 1 + random_below(random, end - start)};
}

static void set(struct bits *bits, struct extent range)
{
    if (bits_grow(bits, range.end))
        abort();
    for (uint64_t n = range.start; n < range.end; n++)
        bits_set(bits, n);
}

static int step(struct random *random, struct journal *journal, struct journal_state *state, uint64_t kind)
{
    struct extent range = some_range(random, state->regions);
    struct extent groups = some_range(random, journal_groups(state->regions));
    struct bits before = {NULL, 0};
    if (kind == 0)
        return journal_touch(journal, &groups, 1);
    if (kind < 3)
        return journal_mark(journal, &range, 1);
    if (bits_copy(&before, &state->copied))
        return -ENOMEM;
    if (random_below(random, 4) == 0)
        bits_clear_all(&state->copied);
    set(&state->copied, range);
    bits_clear_all(&state->marked);
    set(&state->marked, some_range(random, state->regions));
    state->epoch++;
    int error = journal_epoch(journal, &before, state);
    bits_free(&before);
    return error;
}

void journal_example(uint64_t number, uint8_t **bytes, size_t *size)
{
    struct random random = {number};
    struct power_files *power = power_files_new();
    struct journal *journal = NULL;
    struct journal_state state = {.key = number, .regions = 1 + random_below(&random, number % 4 ? 300 : 5000)};
    strcpy(state.partial, number % 2 ? "vms/.partial-1" : "p");
    for (uint64_t n = 0; number % 3 == 0 && n < state.regions; n += 2)
        set(&state.copied, (struct extent){n, n + 1});
    int error = journal_create(&journal, power_files_of(power), 1, &state);
    for (unsigned i = 0; i < number % STEPS && !error; i++)
        error = step(&random, journal, &state, random_below(&random, 5));
    if (error)
        fuzz_broken("no journal to start from: %s\n", error_text(error));
    size_t length;
    const uint8_t *from = power_files_get(power, "1.journal", &length);
    *size = journal_length(journal) + random_below(&random, 2) * 64;
    *bytes = malloc(*size);
    memcpy(*bytes, from, *size < length ? *size : length);
    journal_close(journal);
    journal_state_free(&state);
    power_files_free(power);
}
