/* Is what was read and written linearizable? Per place (a block of 512 bytes) a history of operations, judged at the end.
 * See linear.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The end of a write that failed: it may take effect at any time, or never. */
#define LINEAR_NEVER UINT64_MAX
/* The value of a write whose content no read can name. */
#define LINEAR_NAMELESS (UINT64_MAX - 7)
/* As initial value: this place is not recorded. */
#define LINEAR_UNKNOWN (UINT64_MAX - 8)

struct linear;

struct linear_report {
    uint64_t places, operations; /* that were judged */
    uint64_t skipped;            /* reads that prove nothing: of a value that was written twice */
    uint64_t violations;
    bool full; /* there was no room for all: what was recorded until then was judged */
    char first[256];
};

/* `places` registers; initial(opaque, place) is the value of each before its first write. Room for so many operations.
 * NULL: no memory. */
struct linear *linear_new(
    uint64_t places, uint64_t (*initial)(void *opaque, uint64_t place), void *opaque, size_t room);
void linear_free(struct linear *linear);

/* Times come from one clock that no two events share, and are above 0. The caller sees to it that calls do not meet. */
void linear_write(struct linear *linear, uint64_t place, uint64_t begin, uint64_t end, uint64_t value);
void linear_read(struct linear *linear, uint64_t place, uint64_t begin, uint64_t end, uint64_t value);

/* What was recorded of this place is dropped, and nothing more is. */
void linear_forget(struct linear *linear, uint64_t place);

/* Writes and reads that have not been recorded by now are not there. */
struct linear_report linear_check(const struct linear *linear);
