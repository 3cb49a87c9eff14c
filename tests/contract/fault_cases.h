/* What the fault backend must do, over memory and over a directory. */
#pragma once

#include "rig.h"

/* X(name): void case_NAME(struct rig *) */
#define FAULT_CASES(X)                                                                                                 \
    X(no_rules)                                                                                                        \
    X(failing)                                                                                                         \
    X(counted)                                                                                                         \
    X(by_offset)                                                                                                       \
    X(by_path)                                                                                                         \
    X(corrupting)                                                                                                      \
    X(delayed)                                                                                                         \
    X(hanging_io)                                                                                                      \
    X(hanging_name)                                                                                                    \
    X(fence_and_hang)                                                                                                  \
    X(late)                                                                                                            \
    X(checker)                                                                                                         \
    X(bad_rules)                                                                                                       \
    X(bad_urls)

#define DECLARE_CASE(name) void case_##name(struct rig *rig);
FAULT_CASES(DECLARE_CASE)
#undef DECLARE_CASE
