/* What the cases of raw images stand on: one raw image of one kind, two reactors, and the calls of rig.h.
 *
 * local: a plain file in the scratch directory. device: SVMFS_TEST_DEVICE, a block device that may be overwritten, or a
 * loop device where one can be had; the same with blocks of 4096 bytes, always a loop device. iscsi: SVMFS_TEST_ISCSI, the url of a LUN that may be overwritten. What is not there
 * is skipped with the reason. At least 64 MiB are needed. */
#pragma once

#include "io/raw.h"
#include "rig.h"

enum raw_kind { RAW_LOCAL, RAW_DEVICE, RAW_DEVICE_4096, RAW_ISCSI, RAW_KINDS };

struct raw_rig {
    struct rig rig; /* scratch, reactors and datastore of it are set */
    enum raw_kind kind;
    char url[1024];
    char loop[64]; /* to be detached at the end */
    const struct raw_ops *ops;
    struct image *image;
};

const char *raw_kind_name(enum raw_kind kind);

/* A datastore that asks, its reactors, and the raw image opened for writing. */
void raw_rig_open(struct raw_rig *raw, enum raw_kind kind);
void raw_rig_close(struct raw_rig *raw);

/* Opens it once more, as a mount of that identity would (0: none), at worker's generation. */
int raw_rig_again(struct raw_rig *raw, uint64_t mount, bool writable, struct image **out, struct sentence *why);
