/* The owner's record: its text, and what is thought of another's. */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backends/owner_record.h"

static const struct owner_record model = {.mount = 0xfeedfacecafebeef,
    .processes = 4026531836,
    .beat = 41,
    .keeper = 100,
    .worker = 101,
    .held = true,
    .host = "hyp1",
    .machine = "0123456789abcdef0123456789abcdef",
    .boot = "11111111-2222-3333-4444-555555555555",
    .mountpoint = "/vms"};

/* ---- text ---- */

Test(owner_record, a_record_is_read_as_it_was_written)
{
    struct owner_record back;
    char text[OWNER_RECORD];
    owner_encode(&model, text);
    cr_assert_eq(owner_decode(text, sizeof(text), &back), 0);
    cr_assert(owner_same(&back, &model));
    cr_assert(back.held);
    cr_assert_eq(back.beat, 41);
    cr_assert_eq(back.worker, 101);
    cr_assert_str_eq(back.host, "hyp1");
    cr_assert_str_eq(back.mountpoint, "/vms");
}

Test(owner_record, the_longest_values_fit_and_stay_one_line)
{
    struct owner_record most = model, back;
    char text[OWNER_RECORD];
    most.beat = most.mount = most.processes = UINT64_MAX;
    most.keeper = most.worker = INT32_MAX;
    memset(most.host, 'h', sizeof(most.host) - 1);
    memset(most.mountpoint, 'm', sizeof(most.mountpoint) - 1);
    most.mountpoint[0] = '/';
    most.mountpoint[5] = '\n';
    owner_encode(&most, text);
    cr_assert_eq(text[OWNER_RECORD - 1], '\n');
    cr_assert_eq(owner_decode(text, sizeof(text), &back), 0);
    cr_assert(owner_same(&back, &most));
    cr_assert_eq(back.beat, UINT64_MAX);
    cr_assert_str_eq(back.host, most.host);
    cr_assert_eq(strncmp(back.mountpoint, "/mmmm?mm", 8), 0);
    cr_assert_gt(strlen(back.mountpoint), 100u);
}

Test(owner_record, beats_change_no_length)
{
    struct owner_record later = model;
    char one[OWNER_RECORD], two[OWNER_RECORD];
    unsigned differing = 0;
    later.beat = 1234567890123;
    owner_encode(&model, one);
    owner_encode(&later, two);
    for (int i = 0; i < OWNER_RECORD; i++)
        differing += one[i] != two[i];
    cr_assert_leq(differing, 20u);
}

struct bad {
    const char *text;
    int error;
};

Test(owner_record, what_is_no_record_is_told_apart)
{
    static const struct bad bad[] = {
        {"", -ENOENT},
        {"\n\n  \n", -ENOENT},
        {"some file\n", -EINVAL},
        {"svmfs-owner 2\nanything\n", -EPROTO},
        {"svmfs-owner 1\n", -EINVAL},
        {"svmfs-owner 1\nstate held\nmount 1\n", -EINVAL},
        {"svmfs-owner 1\nstate held\nmount 1\nbeat\n", -EINVAL},
        {"svmfs-owner 1\nstate held\nmount 1\nbeat -1\n", -EINVAL},
        {"svmfs-owner 1\nstate held\nmount 1\nbeat 99999999999999999999\n", -EINVAL},
        {"svmfs-owner 1\nstate held\nmount xyz\nbeat 1\n", -EINVAL},
        {"svmfs-owner 1\nstate perhaps\nmount 1\nbeat 1\n", -EINVAL},
        {"svmfs-owner 1\nstate held\nmount 1\nbeat 1\nkeeper 1x\n", -EINVAL},
        {"svmfs-owner 1\nstate held\nmount 1\nbeat 1\nkeeper 4294967296\n", -EINVAL},
        {"svmfs-owner 1\nstate held\nmount 1\nbeat 1\n", 0},
        {"svmfs-owner 1\nstate free\nmount 1\nbeat 1\nlater thing\n", 0},
    };
    struct owner_record record;
    char zeroes[OWNER_RECORD] = {0};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(owner_decode(bad[i].text, strlen(bad[i].text), &record), bad[i].error, "%s", bad[i].text);
    cr_assert_eq(owner_decode(zeroes, sizeof(zeroes), &record), -ENOENT);
}

Test(owner_record, no_bytes_can_break_the_reader)
{
    char text[OWNER_RECORD], out[64];
    struct owner_record record;
    uint32_t state = 1;
    for (int round = 0; round < 20000; round++) {
        owner_encode(&model, text);
        for (int hits = 0; hits < 1 + round % 8; hits++) {
            state = state * 1664525u + 1013904223u;
            text[(state >> 8) % OWNER_RECORD] = (char)(state >> 24);
        }
        size_t length = round % 3 ? OWNER_RECORD : (state >> 10) % OWNER_RECORD;
        if (owner_decode(text, length, &record) == 0) {
            for (const char *p = record.host; *p; p++)
                cr_assert((unsigned char)*p >= ' ');
            for (const char *p = record.mountpoint; *p; p++)
                cr_assert((unsigned char)*p >= ' ');
        }
        owner_describe(text, length, out, sizeof(out));
    }
}

Test(owner_record, a_description_names_host_and_mountpoint)
{
    char text[OWNER_RECORD], out[300];
    owner_encode(&model, text);
    cr_assert_eq(owner_describe(text, sizeof(text), out, sizeof(out)), 0);
    cr_assert(strstr(out, "in use") && strstr(out, "hyp1") && strstr(out, "/vms"), "%s", out);
    cr_assert_eq(owner_describe("garbage", 7, out, sizeof(out)), -EINVAL);
}

/* ---- judgement ---- */

static unsigned living; /* 1: process 100 lives, 2: process 101 lives */

static bool lives(int process)
{
    return (process == 100 && (living & 1)) || (process == 101 && (living & 2));
}

enum change {
    NOTHING,
    IS_FREE = 1,
    OTHER_MOUNT = 2,
    OTHER_KEEPER = 4, /* than ours; the living are those of the record */
    OTHER_SPACE = 8,
    OTHER_BOOT = 16,
    OTHER_MACHINE = 32,
    OTHER_HOST = 64,
    NO_MACHINE = 128,
    NO_BOOT = 256,
    NO_SPACE = 512,
    NO_WORKER = 1024,
};

struct judgement {
    unsigned changes, living;
    enum owner_verdict verdict;
};

Test(owner_record, every_record_is_judged)
{
    static const struct judgement table[] = {
        {IS_FREE, 3, OWNER_FREE},
        {IS_FREE | OTHER_MOUNT | OTHER_BOOT | OTHER_MACHINE, 3, OWNER_FREE},
        /* an earlier worker of this mount: whoever lives */
        {NOTHING, 3, OWNER_OURS},
        {NOTHING, 1, OWNER_OURS},
        {NOTHING, 0, OWNER_OURS},
        {OTHER_HOST, 1, OWNER_OURS},
        {OTHER_MACHINE, 1, OWNER_OURS}, /* /etc was another's: the kernel is the same */
        /* this kernel: its processes tell */
        {OTHER_KEEPER, 0, OWNER_DEAD},
        {OTHER_KEEPER, 1, OWNER_OTHER},
        {OTHER_KEEPER, 2, OWNER_OTHER}, /* a worker serves on without its keeper */
        {OTHER_KEEPER, 3, OWNER_OTHER},
        {OTHER_KEEPER | NO_WORKER, 0, OWNER_DEAD},
        {OTHER_MOUNT | OTHER_KEEPER, 0, OWNER_DEAD},
        {OTHER_MOUNT | OTHER_KEEPER, 1, OWNER_OTHER},
        {OTHER_MOUNT, 3, OWNER_OTHER},
        {OTHER_MOUNT | OTHER_KEEPER | NO_MACHINE, 0, OWNER_DEAD},
        /* processes of another space cannot be seen */
        {OTHER_SPACE, 0, OWNER_OTHER},
        {OTHER_KEEPER | OTHER_SPACE, 0, OWNER_OTHER},
        {OTHER_KEEPER | NO_SPACE, 0, OWNER_OTHER},
        /* this machine before it was started again, or a copy of it */
        {OTHER_BOOT, 3, OWNER_OLD},
        {OTHER_BOOT, 0, OWNER_OLD},
        {OTHER_BOOT | OTHER_MOUNT, 0, OWNER_OLD},
        {OTHER_BOOT | OTHER_HOST, 0, OWNER_OTHER},
        {OTHER_BOOT | NO_MACHINE, 0, OWNER_OTHER},
        {NO_BOOT, 0, OWNER_OTHER},
        /* another machine, though it has our state directory's number */
        {OTHER_BOOT | OTHER_MACHINE, 0, OWNER_OTHER},
        {OTHER_BOOT | OTHER_MACHINE | OTHER_HOST, 0, OWNER_OTHER},
        {OTHER_BOOT | OTHER_MACHINE | OTHER_MOUNT | OTHER_HOST, 0, OWNER_OTHER},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct owner_record found = model, self = model;
        unsigned changes = table[i].changes;
        living = table[i].living;
        found.held = !(changes & IS_FREE);
        self.mount += changes & OTHER_MOUNT;
        self.keeper += changes & OTHER_KEEPER;
        self.processes += changes & OTHER_SPACE;
        self.boot[0] += (changes & OTHER_BOOT) != 0;
        self.machine[0] += (changes & OTHER_MACHINE) != 0;
        self.host[0] += (changes & OTHER_HOST) != 0;
        if (changes & NO_MACHINE)
            found.machine[0] = self.machine[0] = '\0';
        if (changes & NO_BOOT)
            found.boot[0] = self.boot[0] = '\0';
        if (changes & NO_SPACE)
            found.processes = self.processes = 0;
        if (changes & NO_WORKER)
            found.worker = 0;
        cr_expect_eq(owner_judge(&found, &self, lives), table[i].verdict, "row %zu", i);
    }
}
