/* What one block of 512 bytes bears: seed, counter of the write, its own offset, a checksum, and bytes that follow from
 * them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { BLOCK = 512 };

/* No counter. 0 is a block of zeroes. */
#define PATTERN_NONE UINT64_MAX

struct pattern_claim {
    bool is_ours;
    uint64_t counter, offset;
};

void pattern_fill(uint64_t seed, uint64_t counter, uint64_t offset, uint8_t out[BLOCK]);

/* The counter that these bytes prove at this offset, or PATTERN_NONE. */
uint64_t pattern_recognise(uint64_t seed, const uint8_t *data, uint64_t offset);

/* What the head of the block says, unproven: for messages. */
struct pattern_claim pattern_claim(const uint8_t *data);
