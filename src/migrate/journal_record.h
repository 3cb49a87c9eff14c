/* journal_record: one record of a journal, made and read. docs/JOURNAL.md has the bytes. Pure but for memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bits.h"
#include "io/extent.h"

#define JOURNAL_MAGIC       0x4a6d7673u /* "svmJ" */
#define JOURNAL_VERSION     1u
#define JOURNAL_HEAD        40u /* bytes before a record's payload */
#define JOURNAL_SKIP        1u  /* flag: a reader that does not know the type goes on behind it */
#define JOURNAL_REGIONS_MAX (1ull << 30)
#define JOURNAL_BYTES_MAX   (1ull << 30) /* of a file */

enum journal_record_type { JOURNAL_STATE = 1, JOURNAL_MARK = 2, JOURNAL_TOUCH = 3, JOURNAL_EPOCH = 4 };

/* ---- making: begin, puts, end ---- */

struct journal_build {
    uint8_t *bytes; /* free() is its end */
    size_t length, room;
    bool failed; /* no memory: end says so */
};

void journal_begin(struct journal_build *build, uint16_t type, uint16_t flags, uint64_t key, uint64_t sequence);
void journal_put32(struct journal_build *build, uint32_t value);
void journal_put64(struct journal_build *build, uint64_t value);
/* With zeroes up to a multiple of 8. */
void journal_put_bytes(struct journal_build *build, const void *bytes, size_t length);
void journal_put_range(struct journal_build *build, struct extent range);
/* The runs of the set, while the record has at most so many bytes; how many. */
uint64_t journal_put_runs(struct journal_build *build, const struct bits *bits, uint64_t end, size_t most);
/* The whole set, as runs or as words, whichever is shorter. */
void journal_put_set(struct journal_build *build, const struct bits *bits, uint64_t end);
/* Length and checksum. 0, -ENOMEM, or -EFBIG. */
int journal_end(struct journal_build *build, uint64_t salt);

/* ---- reading ---- */

struct journal_record {
    uint16_t type, flags;
    uint32_t length; /* of all */
    uint64_t sequence, key;
};

/* Is there a whole record of this salt at bytes, of which left are there? */
bool journal_record_at(const uint8_t *bytes, size_t left, uint64_t salt, struct journal_record *out);

uint32_t journal_get32(const uint8_t *bytes);
uint64_t journal_get64(const uint8_t *bytes);

static inline uint64_t journal_groups(uint64_t regions)
{
    return (regions + 255) / 256;
}
