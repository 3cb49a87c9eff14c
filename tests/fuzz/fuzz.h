/* fuzz: what the fuzzers share: cases that each have a seed, a random sequence, and a last word when one ends the
 * process. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* --cases N, --seed S; case n has seed S + n. Prints the sum "N passed, 0 failed, 0 skipped" when all came to their end;
 * what does not (a crash, a sanitizer's report, fuzz_broken, longer than FUZZ_CASE_S) ends the process with the command
 * that runs this case alone. Returns main's status. */
#define FUZZ_CASE_S 60
int fuzz_run(int argc, char **argv, unsigned cases, void (*one)(uint64_t seed));

/* What the log says of each case is not wanted; what a sanitizer says is. */
void fuzz_silence(void);

/* A property does not hold. */
void fuzz_broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

struct random {
    uint64_t state;
};

uint64_t random_next(struct random *random);
/* 0 … count - 1; 0 when count is 0. */
uint64_t random_below(struct random *random, uint64_t count);
/* A number that is often at an edge: 0, 1, powers of two and their neighbours, all ones. */
uint64_t random_edge(struct random *random);

/* Changes some bytes of text, which has size bytes of room room; the new size. parts: NULL-terminated words that are put
 * in at times. */
size_t fuzz_text(struct random *random, char *text, size_t size, size_t room, const char *const *parts);
