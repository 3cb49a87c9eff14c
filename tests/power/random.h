/* random: what a seed chooses. */
#pragma once

#include <stdint.h>

/* Less than count. */
uint32_t random_pick(uint64_t *state, uint32_t count);
/* Bytes of a file of so many, in words of 8, near the borders of extents and blocks. */
void random_range(uint64_t *state, uint64_t size, uint64_t *start, uint64_t *end);
