/* fuzz-journal: journals are changed, in their bytes, their numbers and the order of their records, and mostly get
 * checksums that are right again. None may crash, hang, leak or reach beyond what it was given; none may say what cannot
 * be.
 *
 *   fuzz-journal [--cases N] [--seed S] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "journal_target.h"
#include "migrate/journal_record.h"

#define EXAMPLES 48
#define ROOM     32768

static struct {
    uint8_t *bytes;
    size_t size;
} examples[EXAMPLES];
static struct journal_sums sums;

/* A random record: [from, *to). */
static size_t some_record(struct random *random, const uint8_t *bytes, size_t size, size_t *to)
{
    size_t from = 0;
    *to = size;
    for (uint64_t skip = random_below(random, 8); size - from >= JOURNAL_HEAD; skip--) {
        size_t length = journal_get32(bytes + from + 16);
        if (length < JOURNAL_HEAD || length > size - from)
            break;
        *to = from + length;
        if (skip == 0 || *to == size)
            break;
        from = *to;
    }
    return from;
}

static void change_number(struct random *random, uint8_t *bytes, size_t size)
{
    if (size < 8)
        return;
    /* mostly numbers are small: lengths, counts, ranges near others */
    uint64_t at = random_below(random, size / 8) * 8, value = journal_get64(bytes + at);
    switch (random_below(random, 6)) {
    case 0:
        value = random_edge(random) & (JOURNAL_REGIONS_MAX / 256 - 1);
        break;
    case 1:
        value = random_below(random, 4096);
        break;
    case 2:
        value ^= 1ull << random_below(random, 64);
        break;
    case 3:
        value = random_edge(random);
        break;
    default:
        value += random_below(random, 5) - 2;
    }
    for (int i = 0; i < 8; i++)
        bytes[at + (size_t)i] = (uint8_t)(value >> 8 * i);
}

static size_t change(struct random *random, uint8_t *bytes, size_t size)
{
    size_t to, from = some_record(random, bytes, size, &to), length = to - from;
    switch (random_below(random, 8)) {
    case 0: /* one is gone */
        memmove(bytes + from, bytes + to, size - to);
        return size - length;
    case 1: /* or there twice */
        if (size + length > ROOM)
            return size;
        memmove(bytes + to, bytes + from, size - from);
        return size + length;
    case 2:
        return random_below(random, size + 1);
    case 3: /* its type */
        if (length > 16)
            bytes[from + 12 + random_below(random, 4)] = (uint8_t)random_below(random, 8);
        return size;
    case 4:
        if (size)
            bytes[random_below(random, size)] ^= (uint8_t)(1u << random_below(random, 8));
        return size;
    default:
        change_number(random, bytes + from, length);
        return size;
    }
}

static void one(uint64_t seed)
{
    static uint8_t bytes[ROOM];
    struct random random = {seed};
    uint64_t which = random_below(&random, EXAMPLES);
    size_t size = examples[which].size;
    memcpy(bytes, examples[which].bytes, size);
    for (uint64_t i = random_below(&random, 6); i > 0; i--)
        size = change(&random, bytes, size);
    if (random_below(&random, 8))
        journal_seal(bytes, size);
    journal_target(bytes, size, &sums);
}

int main(int argc, char **argv)
{
    for (unsigned i = 0; i < EXAMPLES; i++) {
        journal_example(i, &examples[i].bytes, &examples[i].size);
        if (examples[i].size > ROOM)
            return 1;
    }
    int status = fuzz_run(argc, argv, 50000, one);
    printf("%lu taken, %lu refused, %lu of a newer program\n", sums.taken, sums.refused, sums.later);
    for (unsigned i = 0; i < EXAMPLES; i++)
        free(examples[i].bytes);
    return status;
}
