#include "pattern.h"

#include <string.h>

static const char MAGIC[8] = "SVMFSLD1";

struct header {
    char magic[8];
    uint64_t seed, counter, offset, checksum;
};

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void pattern_fill(uint64_t seed, uint64_t counter, uint64_t offset, uint8_t out[BLOCK])
{
    uint64_t words[(BLOCK - sizeof(struct header)) / 8];
    uint64_t state = mix(seed ^ mix(counter) ^ offset);
    uint64_t sum = counter ^ offset;
    struct header header = {.seed = seed, .counter = counter, .offset = offset};
    if (counter == 0) {
        memset(out, 0, BLOCK);
        return;
    }
    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        words[i] = state ^ (state >> 29);
        sum = (sum ^ words[i]) * 0x100000001b3u;
    }
    memcpy(header.magic, MAGIC, sizeof MAGIC);
    header.checksum = sum;
    memcpy(out, &header, sizeof header);
    memcpy(out + sizeof header, words, sizeof words);
}

uint64_t pattern_recognise(uint64_t seed, const uint8_t *data, uint64_t offset)
{
    struct pattern_claim claim = pattern_claim(data);
    uint8_t expected[BLOCK];
    pattern_fill(seed, claim.is_ours ? claim.counter : 0, offset, expected);
    if (memcmp(data, expected, BLOCK) != 0)
        return PATTERN_NONE;
    return claim.is_ours ? claim.counter : 0;
}

struct pattern_claim pattern_claim(const uint8_t *data)
{
    struct header header;
    memcpy(&header, data, sizeof header);
    bool is_ours = memcmp(header.magic, MAGIC, sizeof MAGIC) == 0;
    return (struct pattern_claim){.is_ours = is_ours, .counter = header.counter, .offset = header.offset};
}
