#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/iscsi_secret.h"

static char path[64];
static char secret[LUN_SECRET_SIZE];
static struct sentence why;

static void make(void)
{
    strcpy(path, "/tmp/svmfs-secret-XXXXXX");
    int fd = mkstemp(path);
    cr_assert(fd >= 0);
    close(fd);
}

static void end(void)
{
    unlink(path);
}

static int with(const char *text, size_t size, mode_t mode)
{
    FILE *file = fopen(path, "w");
    cr_assert(file && fwrite(text, 1, size, file) == size && fclose(file) == 0);
    cr_assert_eq(chmod(path, mode), 0);
    memset(secret, 'x', sizeof(secret));
    return lun_secret_read(secret, "san", path, &why);
}

TestSuite(iscsi_secret, .init = make, .fini = end);

Test(iscsi_secret, one_line)
{
    cr_assert_eq(with("twelve chars\n", 13, 0600), 0);
    cr_assert_str_eq(secret, "twelve chars");
    cr_assert_eq(with("twelve chars", 12, 0400), 0);
    cr_assert_str_eq(secret, "twelve chars");
    cr_assert_eq(with("dos\r\n", 5, 0600), 0);
    cr_assert_str_eq(secret, "dos");
}

Test(iscsi_secret, others_may_read_it)
{
    static const mode_t modes[] = {0640, 0604, 0620, 0602, 0610, 0666};
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        cr_assert_eq(with("topsecret\n", 10, modes[i]), -EACCES);
        cr_assert(strstr(why.text, "chmod 600"));
        cr_assert_not(strstr(why.text, "topsecret"));
    }
}

Test(iscsi_secret, not_one_line)
{
    char large[LUN_SECRET_SIZE + 10];
    memset(large, 'a', sizeof(large));
    cr_assert_eq(with("", 0, 0600), -EINVAL);
    cr_assert_eq(with("\n", 1, 0600), -EINVAL);
    cr_assert_eq(with("one\ntwo\n", 8, 0600), -EINVAL);
    cr_assert_eq(with("a\0b", 3, 0600), -EINVAL);
    cr_assert_eq(with(large, sizeof(large), 0600), -EINVAL);
    cr_assert_eq(with(large, LUN_SECRET_SIZE - 1, 0600), 0);
    cr_assert_not(strstr(why.text, "aaa"));
}

Test(iscsi_secret, no_file)
{
    cr_assert_eq(lun_secret_read(secret, "san", "/nowhere/at/all", &why), -ENOENT);
    cr_assert_eq(lun_secret_read(secret, "san", "/dev/null", &why), -EINVAL);
    cr_assert_eq(lun_secret_read(secret, "san", "/tmp", &why), -EINVAL);
}
