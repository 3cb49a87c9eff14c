/* journal_target: a journal's file that may be anything: what it says lies within its bounds, and is the same when it is
 * written out and read again. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct journal_sums {
    unsigned long taken, refused, later; /* later: said to be of a newer program */
};

/* Replays the bytes; ends by fuzz_broken when something does not hold. */
void journal_target(const uint8_t *bytes, size_t size, struct journal_sums *sums);
/* Gives each record the sequence, key and checksum that it should have, as far as their lengths lead. */
void journal_seal(uint8_t *bytes, size_t size);
/* A journal with records of each type; *bytes is the caller's. The number chooses which. */
void journal_example(uint64_t number, uint8_t **bytes, size_t *size);
