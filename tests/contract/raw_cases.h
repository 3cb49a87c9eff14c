/* What every raw image must do. */
#pragma once

#include "raw_rig.h"

/* X(name): void raw_case_NAME(struct raw_rig *) */
#define RAW_CASES(X)                                                                                                   \
    X(limits)                                                                                                          \
    X(read_back)                                                                                                       \
    X(ends)                                                                                                            \
    X(zero)                                                                                                            \
    X(vectors)                                                                                                         \
    X(map)                                                                                                             \
    X(thousand)                                                                                                        \
    X(model)                                                                                                           \
    X(reopened)                                                                                                        \
    X(read_only)                                                                                                       \
    X(refresh)                                                                                                         \
    X(fence)                                                                                                           \
    X(reserve)                                                                                                         \
    X(takeover)

#define DECLARE_RAW_CASE(name) void raw_case_##name(struct raw_rig *raw);
RAW_CASES(DECLARE_RAW_CASE)
#undef DECLARE_RAW_CASE
