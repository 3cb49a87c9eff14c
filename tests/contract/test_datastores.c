#include "criterion_rig.h"

#include "datastore_cases.h"

#define DEFINE_TEST(name)                                                                                              \
    ParameterizedTestParameters(datastores, name)                                                                      \
    {                                                                                                                  \
        return rig_kinds();                                                                                            \
    }                                                                                                                  \
    ParameterizedTest(int *kind, datastores, name)                                                                     \
    {                                                                                                                  \
        rig_run(*kind, rig_open, case_##name);                                                                         \
    }

DATASTORE_CASES(DEFINE_TEST)
