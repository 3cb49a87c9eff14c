/* call: one verb on an image, and waiting for it. */
#pragma once

#include "io/image.h"

/* From any thread but a reactor's. memory may be NULL. The result. */
int call_verb(struct reactor *reactor, struct image *image, enum verb verb, unsigned flags, uint64_t start,
    uint64_t end, void *memory);
