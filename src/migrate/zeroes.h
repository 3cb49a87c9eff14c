/* zeroes: finds what need not be written. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define ZEROES_PAGE 4096u

/* The end of the run that begins at position: of pages that are all zero, or of pages that are not; position and the
 * pages count from the start of bytes, the last page may be short. */
uint64_t zeroes_run(const uint8_t *bytes, uint64_t position, uint64_t length, bool *zero);
