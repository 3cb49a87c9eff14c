/* What every datastore must do, of every kind. */
#pragma once

#include "rig.h"

/* X(name): void case_NAME(struct rig *) */
#define DATASTORE_CASES(X)                                                                                             \
    X(types)                                                                                                           \
    X(exact_modes)                                                                                                     \
    X(exclusive)                                                                                                       \
    X(renames)                                                                                                         \
    X(directories)                                                                                                     \
    X(removes)                                                                                                         \
    X(lists)                                                                                                           \
    X(absent)                                                                                                          \
    X(attributes)                                                                                                      \
    X(xattrs)                                                                                                          \
    X(escapes)                                                                                                         \
    X(unlinked_while_open)                                                                                             \
    X(space)

#define DECLARE_CASE(name) void case_##name(struct rig *rig);
DATASTORE_CASES(DECLARE_CASE)
#undef DECLARE_CASE
