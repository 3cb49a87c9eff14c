/* step: one verb without a payload on a disk, for a request that takes several (SETATTR, FALLOCATE, LSEEK). A step has
 * memory of its own: the next one starts when it is answered, while a leg may still hold on to it. */
#pragma once

#include "fs/request.h"

/* next is called on the request's reactor with the answer: verb's result, map_data and extent. On request->disk. */
void step_disk(struct request *request, enum verb verb, unsigned flags, struct extent extent,
    void (*next)(struct request *request, const struct disk_io *io));
