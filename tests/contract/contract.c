/* The contract's cases in one plain program, for sanitizers that Criterion cannot live with (ThreadSanitizer) and for a
 * debugger: contract [NAME]... runs all cases, or those whose name contains NAME. Exit 77: nothing ran. */
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "datastore_cases.h"
#include "fault_cases.h"
#include "image_cases.h"

struct contract_case {
    const char *name;
    void (*run)(struct rig *rig);
    void (*open)(struct rig *rig, enum rig_kind kind);
    enum rig_kind first; /* and those after it */
};

#define ENTRY(name)       {#name, case_##name, rig_open, RIG_MEMORY},
#define SMALL_ENTRY(name) {#name, case_##name, rig_open_small, RIG_MEMORY},
#define FAULT_ENTRY(name) {#name, case_##name, rig_open, RIG_FAULT_MEMORY},

static const struct contract_case cases[] = {
    IMAGE_CASES(ENTRY) DATASTORE_CASES(ENTRY) SMALL_CASES(SMALL_ENTRY) FAULT_CASES(FAULT_ENTRY)};

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
    for (volatile size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (volatile int kind = cases[i].first; kind < RIG_KINDS; kind++) {
            static struct rig rig;
            if (!wanted(cases[i].name, count - 1, arguments + 1))
                continue;
            fprintf(stderr, "%s on %s\n", cases[i].name, rig_kind_name((enum rig_kind)kind));
            if (setjmp(skipped)) {
                skips++;
                continue;
            }
            cases[i].open(&rig, (enum rig_kind)kind);
            cases[i].run(&rig);
            rig_close(&rig);
            passed++;
        }
    printf("%u passed, 0 failed, %u skipped\n", passed, skips);
    return passed ? 0 : 77;
}
