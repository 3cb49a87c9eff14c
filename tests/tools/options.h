/* The command line of verify-load. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { LARGEST = 1 << 20 };

struct options {
    const char *file, *save, *check, *load;
    bool direct, map, odd, until_eof, tolerate, keep, fill, no_final;
    unsigned writers, readers, seconds, flush_every, sparse, punch, think_us, align, smallest, largest;
    int status_fd;
    uint64_t size, range_offset, range_length, seed;
};

/* Exits with the usage when the command line is wrong. */
void options_parse(struct options *options, int argc, char **argv);
