/* What every image must do, on every kind of datastore. */
#pragma once

#include "rig.h"

/* X(name): void case_NAME(struct rig *) */
#define IMAGE_CASES(X)                                                                                                 \
    X(unaligned)                                                                                                       \
    X(end_of_file)                                                                                                     \
    X(growth)                                                                                                          \
    X(holes)                                                                                                           \
    X(zero)                                                                                                            \
    X(resize)                                                                                                          \
    X(allocate)                                                                                                        \
    X(vectors)                                                                                                         \
    X(flush)                                                                                                           \
    X(reopened)                                                                                                        \
    X(read_only)                                                                                                       \
    X(thousand)                                                                                                        \
    X(neighbours)                                                                                                      \
    X(model)                                                                                                           \
    X(fence)

/* The same on a datastore of about 16 MiB. */
#define SMALL_CASES(X) X(full) X(removed_room)

#define DECLARE_CASE(name) void case_##name(struct rig *rig);
IMAGE_CASES(DECLARE_CASE)
SMALL_CASES(DECLARE_CASE)
#undef DECLARE_CASE
