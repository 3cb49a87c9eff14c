/* parsers: each reader of texts and bytes from outside, with what to begin from. A parser is called with anything; what does
 * not hold ends by fuzz_broken. */
#pragma once

#include <stddef.h>

#include "base/error.h"

#define PARSER_ROOM 4096

struct parser {
    const char *name;
    void (*fuzz)(char *text, size_t size); /* text ends with a zero behind size; there may be some before */
    const char *seeds[4];
    const char *words[24];
};

extern const struct parser parsers[];
extern const size_t parser_count;

const struct parser *parser_named(const char *name);

/* A folder, a datastore and a catalog, which some of them need. */
int parsers_open(struct sentence *why);
int parsers_close(unsigned long *taken, unsigned long *refused);
