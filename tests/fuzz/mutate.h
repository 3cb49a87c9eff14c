/* mutate: damage to a volume, from single bits to records that are well formed and cannot be true. */
#pragma once

#include "base.h"
#include "fuzz.h"
#include "ram.h"

/* Changes ram, which holds base; *size becomes the image's, at most ram's. What was done, for people. */
const char *mutate(struct random *random, const struct base *base, struct ram *ram, uint64_t *size);

/* The same page in the other copy: of an object with the same place. */
uint64_t twin_of(const struct base *base, uint64_t at);
/* With a checksum that is right again. */
void seal_page(const struct base *base, struct page *page);
