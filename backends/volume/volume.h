/* volume: many disks on one raw image, as docs/VOLUME.md describes it. The datastore (backend_volume) and the tool
 * svmfs-volume stand on these calls.
 *
 * All block, none may be called on a reactor. They send their I/O to the raw image from a reactor of the volume's own
 * (REACTOR_NAMES). Paths are as datastore.h has them. One thread at a time uses a struct volume through this header. */
#pragma once

#include "backends/volume/format.h"
#include "backends/volume/map.h"
#include "io/datastore.h"
#include "io/raw.h"

struct volume;

/* What is wrong, told in sentences that name the place. */
enum finding {
    FINDING_NOTE,    /* no damage: what was repaired by reading the other copy, a larger image … */
    FINDING_COPY,    /* one of two copies is damaged */
    FINDING_DAMAGED, /* data or metadata are lost or contradict each other */
};

struct volume_findings {
    void (*say)(void *argument, enum finding finding, const char *sentence);
    void *argument;
};

struct volume_format_options {
    const char *label;   /* at most 63 bytes; NULL: none */
    uint64_t node_bytes; /* room for names and attributes; 0: by the image's size */
    const uint8_t *uuid; /* 16 bytes; NULL: random */
    uid_t uid;           /* of the root directory */
    gid_t gid;
    mode_t mode; /* permissions of the root directory; 0: 0755 */
};

/* Writes an empty volume, whatever is there; durable when it returns. -ENOSPC with a sentence: the image is too small.
 */
int volume_format(struct image *raw, const struct volume_format_options *options, struct sentence *why);

/* Is there a superblock of a volume, whole or damaged? 1, 0 or -errno. For those who must not overwrite one. */
int volume_probe(struct image *raw, struct superblock *out, struct sentence *why);

enum volume_open_flags {
    VOLUME_WRITABLE = 1, /* applies the journal for good, writes both copies anew; else nothing is ever written */
    VOLUME_CHECK = 2,    /* reads both copies of everything and goes on after damage where it can */
};

/* Loads all metadata. The image's reference is taken over when it succeeds. findings may be NULL: then what is wrong goes to
 * the log. -EINVAL: no volume; -EUCLEAN: damaged beyond what the copies hold; -EOPNOTSUPP: features, version; -EROFS:
 * only for reading (features); -ENOSPC: the image is smaller than the volume; all with a sentence that says what to do.
 * With VOLUME_CHECK a volume that contradicts itself is opened nevertheless, if not writable, and told of in findings. */
int volume_open(struct volume **out, struct image *raw, const struct raw_ops *ops, unsigned flags,
    const struct volume_findings *findings, struct sentence *why);

/* Writes what is not durable yet, ends, puts the image. 0 or -errno of the writing. NULL is fine. */
int volume_close(struct volume *volume);

/* Everything so far is durable when it returns. checkpoint: as a checkpoint, so that the journal is empty. */
int volume_sync(struct volume *volume, bool checkpoint);

/* ---- looking ---- */

struct volume_summary {
    struct superblock superblock;
    uint64_t image_size; /* of the raw image; more than superblock.size: it may grow */
    uint32_t data_extents, free_extents;
    uint64_t nodes, runs;
    uint64_t node_bytes, node_bytes_max;
    uint64_t generation, commit; /* of the checkpoint that was read; the last commit that was applied */
    uint64_t replayed;           /* commits */
};
void volume_summarise(struct volume *volume, struct volume_summary *out);

/* One file, directory …: its path without a leading slash, its attributes (st_ino: the node's number), its runs (empty:
 * none), a symlink's target. In no order but directories before what is in them. Return non-zero to stop. */
typedef int volume_visitor(
    void *argument, const char *path, const struct stat *st, const struct map *map, const char *content);
int volume_visit(struct volume *volume, volume_visitor *visitor, void *argument);

/* ---- changes; with VOLUME_WRITABLE ---- */

/* A file, or an empty directory; durable when it returns. */
int volume_remove(struct volume *volume, const char *path);

/* Takes what the raw image has more than the volume (raw_ops.refresh was asked before). *extents: how many were added; 0: nothing to
 * take. Durable when it returns. */
int volume_grow(struct volume *volume, uint32_t *extents, struct sentence *why);
