#include "base/bits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int bits_grow(struct bits *bits, uint64_t wanted)
{
    size_t count = (size_t)((wanted + 63) / 64);
    if (count <= bits->count)
        return 0;
    uint64_t *words = realloc(bits->words, count * sizeof(*words));
    if (!words)
        return -ENOMEM;
    memset(words + bits->count, 0, (count - bits->count) * sizeof(*words));
    bits->words = words;
    bits->count = count;
    return 0;
}

void bits_free(struct bits *bits)
{
    free(bits->words);
    *bits = (struct bits){NULL, 0};
}

int bits_copy(struct bits *to, const struct bits *from)
{
    if (bits_grow(to, (uint64_t)from->count * 64))
        return -ENOMEM;
    if (from->count)
        memcpy(to->words, from->words, from->count * sizeof(*to->words));
    if (to->count > from->count)
        memset(to->words + from->count, 0, (to->count - from->count) * sizeof(*to->words));
    return 0;
}

void bits_clear_all(struct bits *bits)
{
    if (bits->count)
        memset(bits->words, 0, bits->count * sizeof(*bits->words));
}

uint64_t bits_next(const struct bits *bits, uint64_t from, uint64_t end, bool value)
{
    uint64_t n = from;
    while (n < end) {
        uint64_t word = n / 64 < bits->count ? bits->words[n / 64] : 0;
        uint64_t wanted = (value ? word : ~word) >> n % 64;
        if (wanted) {
            n += (uint64_t)__builtin_ctzll(wanted);
            break;
        }
        n = (n / 64 + 1) * 64;
    }
    return n < end ? n : end;
}

uint64_t bits_count(const struct bits *bits, uint64_t end)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < bits->count && (uint64_t)i * 64 < end; i++) {
        uint64_t word = bits->words[i];
        if (end - (uint64_t)i * 64 < 64)
            word &= (1ull << (end - (uint64_t)i * 64)) - 1;
        sum += (uint64_t)__builtin_popcountll(word);
    }
    return sum;
}

bool bits_run(const struct bits *bits, uint64_t *start, uint64_t *stop, uint64_t end)
{
    *start = bits_next(bits, *start, end, true);
    *stop = bits_next(bits, *start, end, false);
    return *start < end;
}
