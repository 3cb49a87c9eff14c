/* await: one verb on an image, from a thread that may block. */
#pragma once

#include "io/disk.h"
#include "io/mirror.h"

/* Sends it on the reactor and waits. 0 or -errno; -ETIMEDOUT: it was left behind and holds its reference of the image
 * until it ends. Never from a reactor's thread. */
int await_io(struct reactor *reactor, struct image *image, enum verb verb, struct extent extent, uint64_t timeout_ns);

/* Attaches the mirror while nothing that could change the disk's size is in flight. -EAGAIN: the size is not the
 * target's (any more); -EBUSY: a mirror is there; -ETIMEDOUT. */
int await_attach(struct reactor *reactor, struct disk *disk, struct mirror *mirror, uint64_t timeout_ns);

/* Until the image is fenced (law 6). 0 or -ETIMEDOUT. */
int await_fence(struct reactor *reactor, struct image *image, uint64_t timeout_ns);

/* Flushes all legs of the disk, as one of its own flushes (IO_OWN). As await_io. */
int await_flush(struct reactor *reactor, struct disk *disk, uint64_t timeout_ns);
