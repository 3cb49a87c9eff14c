/* opened: a volume that the tool has open, with what it lies on. All calls block. */
#pragma once

#include "backends/volume/volume.h"
#include "volume_tool/claim.h"

struct opened {
    struct medium medium;
    struct claim claim;
    struct volume *volume;
};

/* For looking: nothing is claimed, nothing is written. findings NULL: damage that can be read around is printed to
 * stderr. 0 or -errno with a sentence; a sentence for people says who uses the volume. */
int opened_look(struct opened *opened, const struct arguments *arguments, struct sentence *why);
/* For changing: claimed. */
int opened_change(struct opened *opened, const struct arguments *arguments, struct sentence *why);
/* 0 or -errno with a sentence: what was done could not be written. */
int opened_close(struct opened *opened, struct sentence *why);

/* The superblock of the volume, whatever else of it is damaged. False: there is none that can be read. */
bool opened_superblock(const struct arguments *arguments, struct superblock *out);
