#include "random.h"

#define EXTENT (1u << 20)

uint32_t random_pick(uint64_t *state, uint32_t count)
{
    *state += 0x9e3779b97f4a7c15ull;
    uint64_t value = *state;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return (uint32_t)((value ^ value >> 31) % count);
}

void random_range(uint64_t *state, uint64_t size, uint64_t *start, uint64_t *end)
{
    static const uint32_t lengths[] = {8, 64, 512, 1024, 4096, 8192, 12288, 65536, EXTENT - 4096, EXTENT};
    uint64_t at = random_pick(state, (uint32_t)(size / EXTENT)) * (uint64_t)EXTENT;
    uint32_t length = lengths[random_pick(state, random_pick(state, 12) == 0 ? 10 : 8)];
    at += random_pick(state, 2) ? random_pick(state, 4) * 4096 : EXTENT - 4096 * (1 + random_pick(state, 3));
    if (random_pick(state, 2))
        at += random_pick(state, 512) * 8;
    if (random_pick(state, 3) == 0 && length >= 512)
        at &= ~4095ull;
    *start = at;
    *end = at + length < size ? at + length : size;
    if (*start >= *end)
        *start = *end - 8;
}
