/* sparse: what fallocate(2) asks for, as steps on a disk. Pure. */
#pragma once

#include "io/io.h"

#define SPARSE_STEPS 3

struct sparse_step {
    enum verb verb;
    unsigned flags;
    struct extent extent; /* RESIZE: to its end */
};

/* mode: fallocate(2)'s. size: the disk's. The number of steps, which may be 0, or -EINVAL, -EFBIG, -EOPNOTSUPP. Space
 * is reserved first: a full datastore is found before anything has changed. */
int sparse_plan(uint32_t mode, uint64_t offset, uint64_t length, uint64_t size, struct sparse_step steps[SPARSE_STEPS]);
