/* The cases of raw images in one plain program, for sanitizers and debuggers: raws [NAME]... runs all cases, or those
 * whose name contains NAME; SVMFS_RAW_KIND=iscsi runs them on that kind only. Exit 77: nothing ran. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "raw_cases.h"

struct raw_case {
    const char *name;
    void (*run)(struct raw_rig *raw);
};

#define ENTRY(name) {#name, raw_case_##name},

static const struct raw_case cases[] = {RAW_CASES(ENTRY)};

static jmp_buf skipped;

void rig_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    abort();
}

void rig_skip(const char *reason)
{
    fprintf(stderr, "skipped: %s\n", reason);
    longjmp(skipped, 1);
}

static int wanted(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++)
        if (strstr(name, names[i]))
            return 1;
    return count == 0;
}

int main(int count, char **arguments)
{
    static volatile unsigned passed, skips;
    const char *only = getenv("SVMFS_RAW_KIND");
    for (volatile size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (volatile int kind = 0; kind < RAW_KINDS; kind++) {
            static struct raw_rig raw;
            const char *name = raw_kind_name((enum raw_kind)kind);
            if (!wanted(cases[i].name, count - 1, arguments + 1) || (only && strcmp(only, name) != 0))
                continue;
            fprintf(stderr, "%s on %s\n", cases[i].name, name);
            if (setjmp(skipped)) {
                skips++;
                continue;
            }
            raw_rig_open(&raw, (enum raw_kind)kind);
            cases[i].run(&raw);
            raw_rig_close(&raw);
            passed++;
        }
    printf("%u passed, 0 failed, %u skipped\n", passed, skips);
    return passed ? 0 : 77;
}
