#include "criterion_rig.h"

#include "fault_cases.h"

#define DEFINE_TEST(name)                                                                                              \
    Test(faults, name##_memory)                                                                                        \
    {                                                                                                                  \
        rig_run(RIG_FAULT_MEMORY, rig_open, case_##name);                                                              \
    }                                                                                                                  \
    Test(faults, name##_local)                                                                                         \
    {                                                                                                                  \
        rig_run(RIG_FAULT_LOCAL, rig_open, case_##name);                                                               \
    }

FAULT_CASES(DEFINE_TEST)
