/* The cases of raw images under Criterion, each against every kind. A LUN or a device is one thing that all cases
 * overwrite: they run one after the other. */
#include "criterion_rig.h"

#include "raw_cases.h"

static struct criterion_test_params kinds(void)
{
    static int all[RAW_KINDS];
    for (int i = 0; i < RAW_KINDS; i++)
        all[i] = i;
    return cr_make_param_array(int, all, RAW_KINDS);
}

static void run(int kind, void (*run_case)(struct raw_rig *raw))
{
    struct raw_rig raw;
    cr_log_info("on %s", raw_kind_name((enum raw_kind)kind));
    raw_rig_open(&raw, (enum raw_kind)kind);
    run_case(&raw);
    raw_rig_close(&raw);
}

#define DEFINE_TEST(name)                                                                                              \
    ParameterizedTestParameters(raws, name)                                                                            \
    {                                                                                                                  \
        return kinds();                                                                                                \
    }                                                                                                                  \
    ParameterizedTest(int *kind, raws, name)                                                                           \
    {                                                                                                                  \
        run(*kind, raw_case_##name);                                                                                   \
    }

RAW_CASES(DEFINE_TEST)
