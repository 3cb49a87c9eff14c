/* split: a large read or write sent in pieces, side by side: a disk serves eight requests of 128 KiB sooner than one of
 * 1 MiB. */
#pragma once

#include <sys/uio.h>

#include "backends/aio.h"
#include "io/extent.h"

#define SPLIT_PIECE (128u << 10)

/* As aio_queue for preadv or pwritev with RWF_NOWAIT of the extent. whole->done gets the bytes that were moved from the
 * start without a gap, or the error if there are none. False: nothing was sent. */
bool split_queue(struct aio *aio, struct reactor *reactor, struct aio_request *whole, int fd, bool write,
    const struct iovec *iov, int iov_count, struct extent extent);
