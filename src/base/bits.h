/* bits: a growing set of small numbers, a bit each. Not locked: its owner is. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bits {
    uint64_t *words;
    size_t count; /* words; what lies past them is clear */
};

/* Room for the numbers below wanted; never shrinks. 0 or -ENOMEM. */
int bits_grow(struct bits *bits, uint64_t wanted);
void bits_free(struct bits *bits);
/* Room, and the same content. 0 or -ENOMEM. */
int bits_copy(struct bits *to, const struct bits *from);
void bits_clear_all(struct bits *bits);

static inline bool bits_has(const struct bits *bits, uint64_t n)
{
    return n / 64 < bits->count && bits->words[n / 64] >> n % 64 & 1;
}

/* There is room. */
static inline void bits_set(struct bits *bits, uint64_t n)
{
    bits->words[n / 64] |= 1ull << n % 64;
}

static inline void bits_clear(struct bits *bits, uint64_t n)
{
    if (n / 64 < bits->count)
        bits->words[n / 64] &= ~(1ull << n % 64);
}

/* The first number in [from, end) that is (value) or is not in the set; end: none. */
uint64_t bits_next(const struct bits *bits, uint64_t from, uint64_t end, bool value);
/* How many of those below end are in the set. */
uint64_t bits_count(const struct bits *bits, uint64_t end);
/* The next run of numbers in the set that begins at or after *start, below end: [*start, *stop). False: none. */
bool bits_run(const struct bits *bits, uint64_t *start, uint64_t *stop, uint64_t end);
