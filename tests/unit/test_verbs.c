#include <criterion/criterion.h>
#include <linux/fuse.h>
#include <string.h>

#include "fs/handlers.h"
#include "fs/verbs.h"

#include <fcntl.h>

/* Opcodes that were never given out. */
static bool is_gap(uint32_t opcode)
{
    return opcode == 7 || opcode == 19;
}

Test(verbs, every_opcode_is_decided_under_its_own_number)
{
    for (uint32_t opcode = 1; opcode <= VERB_COPY_FILE_RANGE_64; opcode++) {
        const struct fuse_verb *verb = verb_of(opcode);
        cr_assert_eq(verb->opcode, is_gap(opcode) ? 0 : opcode, "opcode %u", opcode);
        cr_assert_eq(verb->decision == VERB_SERVED, verb->handle != NULL, "opcode %u", opcode);
    }
    cr_assert_str_eq(verb_of(FUSE_LOOKUP)->name, "LOOKUP");
    cr_assert_str_eq(verb_of(FUSE_TMPFILE)->name, "TMPFILE");
}

Test(verbs, what_nobody_knows_is_refused_without_enosys)
{
    const uint32_t unknown[] = {0, 7, 19, VERB_COPY_FILE_RANGE_64 + 1, 1000, CUSE_INIT, UINT32_MAX};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        cr_assert_eq(verb_of(unknown[i])->decision, VERB_ANSWERED);
        cr_assert_eq(verb_of(unknown[i])->error, -EOPNOTSUPP);
        cr_assert_not(verb_may_be_enosys(unknown[i]));
    }
}

/* Law 12: one stray ENOSYS from these would be latched for the life of the mount. */
Test(verbs, enosys_leaves_for_a_fixed_list_only)
{
    const uint32_t allowed[] = {FUSE_BMAP, FUSE_POLL, FUSE_COPY_FILE_RANGE, VERB_STATX, VERB_COPY_FILE_RANGE_64};
    unsigned found = 0;
    for (uint32_t opcode = 0; opcode < 4200; opcode++) {
        bool listed = false;
        for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
            listed |= allowed[i] == opcode;
        cr_assert_eq(verb_may_be_enosys(opcode), listed, "opcode %u", opcode);
        found += listed;
    }
    cr_assert_eq(found, sizeof(allowed) / sizeof(allowed[0]));
    const uint32_t never[] = {FUSE_FSYNC, FUSE_FSYNCDIR, FUSE_WRITE, FUSE_READ, FUSE_SETATTR, FUSE_OPEN, FUSE_CREATE,
        FUSE_FALLOCATE, FUSE_LSEEK, FUSE_SETXATTR, FUSE_GETXATTR, FUSE_RENAME2, FUSE_SYNCFS};
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
        cr_assert_not(verb_may_be_enosys(never[i]));
}

Test(verbs, open_flags)
{
    cr_assert_eq(file_open_flags(O_RDWR), 0u);
    cr_assert_eq(file_open_flags(O_RDWR | O_SYNC | O_APPEND), 0u);
    cr_assert_eq(file_open_flags(O_RDWR | O_DIRECT), (unsigned)(FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES));
    cr_assert_eq(file_open_flags(O_RDONLY | O_DIRECT), (unsigned)(FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES));
}
