#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/identity.h"

static char directory[64];

static void setup(void)
{
    strcpy(directory, "/tmp/svmfs-identity-XXXXXX");
    cr_assert(mkdtemp(directory));
}

static void put(const char *text)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/identity", directory);
    FILE *file = fopen(path, "w");
    cr_assert(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void teardown(void)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/identity", directory);
    unlink(path);
    cr_assert_eq(rmdir(directory), 0, "something else was left");
}

Test(identity, made_once_and_read_again, .init = setup, .fini = teardown)
{
    struct identity first = {.mount = 0}, second = {.mount = 0};
    struct sentence why = {""};
    struct stat st;
    char path[128];
    cr_assert_eq(identity_load(&first, directory, &why), 0, "%s", why.text);
    cr_assert_eq(identity_load(&second, directory, &why), 0, "%s", why.text);
    cr_assert_neq(first.mount, 0u);
    cr_assert_eq(first.mount, second.mount);
    cr_assert_eq(strlen(first.boot), 36u);
    cr_assert(first.host[0]);
    snprintf(path, sizeof(path), "%s/identity", directory);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600u);
}

Test(identity, every_state_directory_has_another, .init = setup, .fini = teardown)
{
    struct identity first = {.mount = 0}, second = {.mount = 0};
    char path[128];
    cr_assert_eq(identity_load(&first, directory, NULL), 0);
    snprintf(path, sizeof(path), "%s/identity", directory);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(identity_load(&second, directory, NULL), 0);
    cr_assert_neq(first.mount, second.mount);
}

Test(identity, a_damaged_one_is_refused_and_stays, .init = setup, .fini = teardown)
{
    static const char *const bad[] = {"", "svmfs-identity 1\n", "svmfs-identity 1\nmount 0000000000000000\n",
        "svmfs-identity 2\nmount 0123456789abcdef\n", "svmfs-identity 1\nmount 0123456789abcde\n",
        "svmfs-identity 1\nmount 0123456789abcdef\nmore\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct identity identity = {.mount = 0};
        struct sentence why = {""};
        put(bad[i]);
        cr_expect_eq(identity_load(&identity, directory, &why), -EINVAL, "%s", bad[i]);
        cr_expect(strstr(why.text, directory) && strstr(why.text, "remove it"), "%s", why.text);
    }
}

Test(identity, a_number_is_read_as_it_stands, .init = setup, .fini = teardown)
{
    struct identity identity = {.mount = 0};
    put("svmfs-identity 1\nmount 0123456789abcdef\n");
    cr_assert_eq(identity_load(&identity, directory, NULL), 0);
    cr_assert_eq(identity.mount, 0x0123456789abcdefull);
}

Test(identity, without_a_state_directory_there_is_none)
{
    struct identity identity = {.mount = 0};
    struct sentence why = {""};
    cr_assert_eq(identity_load(&identity, "/nonexistent/state", &why), -ENOENT);
    cr_assert(strstr(why.text, "/nonexistent/state"));
}
