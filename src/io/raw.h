/* raw: one raw image as a whole, what a volume lies on: a LUN, a block device, a plain file. It has no names. Its
 * image_ops are those of any image, with these differences:
 *
 * - every extent of READ, WRITE, ZERO, ALLOCATE and MAP is a multiple of limits.block, the device's logical block; the
 *   memory may lie anywhere. Who needs less reads, modifies and writes, under a lock of its own.
 * - it has a fixed size: RESIZE is -EINVAL (of a plain file too), writes past the end are -ENOSPC.
 * - ZERO with IO_MAY_UNMAP gives the space back where the device can; what was unmapped is only known to read as zero
 *   where limits.can_punch is set (can_zero: ZERO is cheaper than writing zeroes).
 *
 * image->datastore is the datastore that asked: its name, pool, timeout, options, identity and notes. */
#pragma once

#include "io/datastore.h"

struct raw_ops {
    const char *scheme; /* "iscsi": the url after "volume:" is scheme:rest */

    /* rest: what follows "scheme:". Returns only when no write that an earlier process of this mount sent can land any
     * more (law 6), so that what is read then stays. *out has one reference. Blocks, at most about the datastore's
     * timeout. 0 or -errno with a sentence that says what to do. */
    int (*open)(struct datastore *datastore, const char *rest, bool writable, struct image **out, struct sentence *why);

    /* Asks the size again (a LUN, a device or a file may have grown); updates image->size. 0 or -errno. Blocks. */
    int (*refresh)(struct image *image);

    /* Makes the mount the only one that may write, by the device's own means, under key (not 0). takeover: whoever has
     * it now loses it. -EBUSY: another has it (sentence: who). -EOPNOTSUPP: the device knows no such thing. NULL where
     * no device of this kind does. release: gives it back. Both block. */
    int (*reserve)(struct image *image, uint64_t key, bool takeover, struct sentence *why);
    void (*release)(struct image *image, uint64_t key);
};

/* Finds the backend by the url's scheme and opens. -EINVAL with a sentence: no such scheme. Blocks. */
int raw_open(struct datastore *datastore, const struct raw_ops *const *raws, const char *url, bool writable,
    struct image **out, const struct raw_ops **ops, struct sentence *why);
