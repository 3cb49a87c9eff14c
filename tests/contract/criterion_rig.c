#include "criterion_rig.h"

void rig_fail(const char *file, int line, const char *what)
{
    cr_assert_fail("%s:%d: %s", file, line, what);
    abort();
}

void rig_skip(const char *reason)
{
    cr_skip_test("skipped: %s", reason);
    abort();
}

struct criterion_test_params rig_kinds(void)
{
    static int kinds[RIG_KINDS];
    for (int i = 0; i < RIG_KINDS; i++)
        kinds[i] = i;
    return cr_make_param_array(int, kinds, RIG_KINDS);
}

void rig_run(int kind, void (*open)(struct rig *rig, enum rig_kind kind), void (*run)(struct rig *rig))
{
    struct rig rig;
    cr_log_info("on %s", rig_kind_name((enum rig_kind)kind));
    open(&rig, (enum rig_kind)kind);
    run(&rig);
    rig_close(&rig);
}
