/* io: one verb on one image. Embedded in its owner; nothing is allocated for it on the way. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "io/extent.h"
#include "io/reactor.h"
#include "io/pool.h"

struct image;

/* Adding a verb breaks the build in every exhaustive switch until each has decided (law 11). */
enum verb {
    VERB_READ,     /* extent → iov; bytes past the image's end read as zero */
    VERB_WRITE,    /* iov → extent, whole or error; grows the image when extent.end is past its end */
    VERB_ZERO,     /* extent reads as zero afterwards; IO_MAY_UNMAP: as a hole if it can; never changes the size */
    VERB_ALLOCATE, /* space is reserved for extent; contents unchanged; never changes the size */
    VERB_FLUSH,    /* what was completed before is durable, size included */
    VERB_RESIZE,   /* the size becomes extent.end; what is uncovered reads as zero; extent.start is ignored */
    VERB_MAP,      /* is the byte at extent.start data? → map_data; extent.end shrinks to where that changes */
};

#define VERB_COUNT (VERB_MAP + 1)

enum io_flags {
    IO_DIRECT = 1 << 0,    /* bypass the page cache where the extent and the memory allow it */
    IO_MAY_UNMAP = 1 << 1, /* ZERO may punch a hole */
    IO_DATA_ONLY = 1 << 2, /* FLUSH: fdatasync will do */
    IO_COPY = 1 << 4,      /* a copier's: no request of a guest may wait while it is sent */
    IO_OWN = 1 << 3,       /* FLUSH: not the guest's: if it fails, the disk's next FLUSH by the guest fails with it */
};

struct io {
    enum verb verb;
    unsigned flags;
    struct extent extent;
    struct iovec *iov; /* READ, WRITE: its lengths add up to the extent's; memory stays until done */
    int iov_count;
    int result;    /* set before done: 0 or -errno */
    bool map_data; /* VERB_MAP's answer */
    /* Called exactly once, on the reactor that submitted; never from within image_submit. */
    void (*done)(struct io *io);

    /* Set by image_submit, used by the checked middle and the backend while in flight. */
    struct image *image;
    struct reactor *reactor;
    struct list link;
    struct task task;
    struct work work;
    struct behalf behalf;
    uint64_t scratch[12];
};

/* "read", "write" …; for sentences and the log. */
const char *verb_name(enum verb verb);
