/* raw_file: a raw image behind a descriptor of this machine: what raw_local and raw_device share. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "io/raw.h"

/* Takes fd over, whatever is returned. direct: fd was opened with O_DIRECT. limits: block and the can_… are the
 * caller's; memory is the alignment that O_DIRECT needs of addresses. device: fd is a block device. 0 or -errno. Does
 * not block. */
int raw_file_new(struct image **out, struct datastore *datastore, int fd, bool direct, bool device,
    const struct image_limits *limits, uint32_t memory);

/* What O_DIRECT needs on fd, as far as the kernel tells: powers of two, 0 where it does not. */
void raw_file_alignment(int fd, uint32_t *block, uint32_t *memory);

/* The size that fd has now, in whole blocks. 0 or -errno. Blocks. */
int raw_file_size(int fd, bool device, uint32_t block, uint64_t *size);

/* For who found an image in use: what this process or the worker before has just closed may not be free yet. Sleeps a
 * little; false: that was long enough. *tries begins at 0. */
bool raw_file_wait_busy(unsigned *tries);

/* raw_ops.refresh */
int raw_file_refresh(struct image *image);
