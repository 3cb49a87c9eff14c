/* volume_target: a raw image that may be anything is opened as a volume, looked through and changed; ends by fuzz_broken
 * when something does not hold. */
#pragma once

#include "ram.h"

struct volume_sums {
    unsigned long opened, refused, found, removed;
};

/* flags: as volume_open's. */
void volume_target(struct ram *ram, uint64_t size, unsigned flags, struct volume_sums *sums);
void volume_target_probe(struct ram *ram, uint64_t size);
