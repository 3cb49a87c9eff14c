#include "criterion_rig.h"

#include "image_cases.h"

#define DEFINE_TEST(name)                                                                                              \
    ParameterizedTestParameters(images, name)                                                                          \
    {                                                                                                                  \
        return rig_kinds();                                                                                            \
    }                                                                                                                  \
    ParameterizedTest(int *kind, images, name)                                                                         \
    {                                                                                                                  \
        rig_run(*kind, rig_open, case_##name);                                                                         \
    }

#define DEFINE_SMALL_TEST(name)                                                                                        \
    ParameterizedTestParameters(small, name)                                                                           \
    {                                                                                                                  \
        return rig_kinds();                                                                                            \
    }                                                                                                                  \
    ParameterizedTest(int *kind, small, name)                                                                          \
    {                                                                                                                  \
        rig_run(*kind, rig_open_small, case_##name);                                                                   \
    }

IMAGE_CASES(DEFINE_TEST)
SMALL_CASES(DEFINE_SMALL_TEST)
