/* base: the volumes that a fuzzer starts from: with directories, links, xattrs, files whole, thin, thick and in fragments.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "backends/volume/format.h"

#define BASE_BYTES (24u << 20)

struct base {
    uint8_t *bytes;
    struct superblock superblock;
    struct anchor anchor; /* the one that counts */
    uint32_t page_count;
    uint64_t *pages;      /* where the metadata's pages are */
    uint8_t *stream;      /* the checkpoint's records */
    uint64_t commits;     /* behind the checkpoint */
    uint32_t journal_end; /* the page behind the last commit */
};

/* closed: as it is when it was unmounted; else as a dead worker leaves it, with a journal. Ends the process when it
 * cannot be made. */
void base_make(struct base *base, bool closed);
void base_free(struct base *base);
