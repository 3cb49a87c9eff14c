#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "backends/nfs_record.h"

static struct nfsds_record record;

static void teardown(void)
{
    nfsds_record_free(&record);
}

TestSuite(nfs_record, .fini = teardown);

static void set(const char *name, const void *value, size_t size)
{
    cr_assert_eq(nfsds_record_set(&record, name, value, size, 0), 0);
}

/* What is written is what is read. */
static void again(void)
{
    char *text = strdup(record.text);
    size_t size = record.size;
    nfsds_record_free(&record);
    cr_assert(nfsds_record_parse(&record, text, size));
}

Test(nfs_record, values_of_any_bytes)
{
    unsigned char bytes[256], got[300];
    for (unsigned i = 0; i < 256; i++)
        bytes[i] = (unsigned char)i;
    set("user.all", bytes, 256);
    set("user.none", "", 0);
    again();
    cr_assert_eq(nfsds_record_get(&record, "user.all", got, sizeof(got)), 256);
    cr_assert(memcmp(bytes, got, 256) == 0);
    cr_assert_eq(nfsds_record_get(&record, "user.all", NULL, 0), 256);
    cr_assert_eq(nfsds_record_get(&record, "user.all", got, 255), -ERANGE);
    cr_assert_eq(nfsds_record_get(&record, "user.none", got, sizeof(got)), 0);
    cr_assert_eq(nfsds_record_get(&record, "user.al", got, sizeof(got)), -ENODATA);
}

Test(nfs_record, names_of_any_bytes)
{
    char list[300];
    set("user.a b\n%\x7f\xc3\xa4", "1", 1);
    set("user.b", "2", 1);
    again();
    cr_assert_eq(nfsds_record_get(&record, "user.a b\n%\x7f\xc3\xa4", list, 10), 1);
    cr_assert_eq(nfsds_record_list(&record, NULL, 0), 14 + 7);
    cr_assert_eq(nfsds_record_list(&record, list, 20), -ERANGE);
    cr_assert_eq(nfsds_record_list(&record, list, 21), 21);
    cr_assert_str_eq(list, "user.a b\n%\x7f\xc3\xa4");
    cr_assert_str_eq(list + 14, "user.b");
}

Test(nfs_record, flags_and_removal)
{
    char value[8];
    cr_assert_eq(nfsds_record_set(&record, "user.a", "1", 1, XATTR_REPLACE), -ENODATA);
    cr_assert_eq(nfsds_record_set(&record, "user.a", "1", 1, XATTR_CREATE), 0);
    cr_assert_eq(nfsds_record_set(&record, "user.a", "1", 1, XATTR_CREATE), -EEXIST);
    cr_assert_eq(nfsds_record_set(&record, "user.a", "22", 2, XATTR_REPLACE), 0);
    set("user.b", "3", 1);
    set("user.c", "4", 1);
    cr_assert_eq(nfsds_record_set(&record, "user.b", NULL, 0, 0), 0);
    cr_assert_eq(nfsds_record_set(&record, "user.b", NULL, 0, 0), -ENODATA);
    again();
    cr_assert_eq(nfsds_record_get(&record, "user.a", value, 8), 2);
    cr_assert_eq(nfsds_record_get(&record, "user.c", value, 8), 1);
    cr_assert_eq(nfsds_record_set(&record, "user.a", NULL, 0, 0), 0);
    cr_assert_not(nfsds_record_is_empty(&record));
    cr_assert_eq(nfsds_record_set(&record, "user.c", NULL, 0, 0), 0);
    cr_assert(nfsds_record_is_empty(&record));
}

Test(nfs_record, damaged)
{
    static const char *const texts[] = {"", "svmfs-xattrs 2\n", "svmfs-xattrs 1\nxattr",
        "svmfs-xattrs 1\nxattr user.a\n", "svmfs-xattrs 1\nxattr user.a 0\n", "svmfs-xattrs 1\nxattr user.a 0g\n",
        "svmfs-xattrs 1\nxattr user.a 00", "svmfs-xattrs 1\nxattr  00\n", "svmfs-xattrs 1\nother\n",
        "svmfs-xattrs 1\nxattr user.a 00\nx"};
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        cr_assert_not(nfsds_record_parse(&record, strdup(texts[i]), strlen(texts[i])), "%s", texts[i]);
    cr_assert_not(nfsds_record_parse(&record, strdup("svmfs-xattrs 1\n"), 20), "a zero in it");
}

/* Any change of a good text: parsed or refused, and what is parsed can be read. */
Test(nfs_record, anything)
{
    static const char good[] = "svmfs-xattrs 1\nxattr user.a 6162\nxattr user.%41 00ff\n";
    unsigned random = 5;
    char list[200];
    for (unsigned i = 0; i < 100000; i++) {
        char *text = strdup(good);
        for (unsigned j = 0; j < 1 + i % 3; j++) {
            random = random * 1664525u + 1013904223u;
            text[(random >> 8) % (sizeof(good) - 1)] = (char)(random >> 24);
        }
        if (!nfsds_record_parse(&record, text, strlen(text)))
            continue;
        nfsds_record_list(&record, list, sizeof(list));
        nfsds_record_get(&record, "user.a", list, sizeof(list));
        nfsds_record_free(&record);
    }
}
