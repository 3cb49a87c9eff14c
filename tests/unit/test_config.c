#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "config.h"
#include "io/reactor.h"

static const char *const schemes[] = {"local", "memory", "fault", NULL};

#define ONE "[datastore a]\nurl = local:/a\n"

/* A file of that text; its name is good for as long as the process. */
static const char *file_of(const char *text, size_t length)
{
    static char name[64];
    int fd = memfd_create("test", 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, length), (ssize_t)length);
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    return name;
}

static int load(struct config *config, const char *text, struct sentence *why)
{
    memset(why, 0, sizeof(*why));
    return config_load(config, file_of(text, strlen(text)), schemes, why);
}

static char *dump(const struct config *config)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    config_dump(config, out);
    fclose(out);
    return text;
}

Test(config, a_secret_in_an_url_is_refused_and_not_repeated)
{
    struct sentence why = {""};
    struct config config;
    static const char *const good[] = {"[datastore a]\nurl = local:/a:b@c\n", "[datastore a]\nurl = local:/x\n"};
    static const char *const bad[] = {
        "[datastore a]\nurl = memory://me:hush@host/x\n", "[datastore a]\nurl = memory://me%hush@host/x\n"};
    for (unsigned i = 0; i < 2; i++) {
        cr_expect_eq(load(&config, bad[i], &why), -EINVAL);
        cr_expect(strstr(why.text, "password-file") && !strstr(why.text, "hush"), "%s", why.text);
        cr_expect_eq(load(&config, good[i], &why), 0, "%s", why.text);
        config_free(&config);
    }
}

Test(config, everything_said)
{
    struct config config;
    struct sentence why;
    const char *text = "\xef\xbb\xbf# a comment\r\n"
                       "[mount]\r\n"
                       "default = nas-2 ; the slow one\n"
                       "state=/var/lib/x y\n"
                       "  reactors\t=\t3\n"
                       "jobs = 5\n"
                       "target-timeout = 250ms\n"
                       "buffers = 32M\n"
                       "\n"
                       "[datastore ssd]\n"
                       "url = local:/srv/a#b\n"
                       "[ datastore  nas-2 ] # comment\n"
                       "; another\n"
                       "url = fault:local:/srv/nas\n"
                       "timeout = 2m\n"
                       "threads = 4\n"
                       "connections = 3\n"
                       "password-file = /etc/secret\n"
                       "mutual-user = target\n"
                       "mutual-password-file = /etc/secret of the target\n"
                       "quiet = 1500ms\n"
                       "faults = /etc/faults";
    cr_assert_eq(load(&config, text, &why), 0, "%s", why.text);
    cr_assert_eq(config.datastore_count, 2);
    cr_assert_str_eq(config.default_datastore, "nas-2");
    cr_assert_str_eq(config.state, "/var/lib/x y");
    cr_assert_eq(config.reactors, 3);
    cr_assert_eq(config.jobs, 5);
    cr_assert_eq(config.target_timeout_ns, 250 * NS_PER_MS);
    cr_assert_eq(config.buffers, 32u << 20);
    cr_assert_str_eq(config.datastores[0].name, "ssd");
    cr_assert_str_eq(config.datastores[0].url, "local:/srv/a#b");
    cr_assert_null(config.datastores[0].faults);
    cr_assert_str_eq(config.datastores[1].name, "nas-2");
    cr_assert_eq(config.datastores[1].timeout_ns, 120 * NS_PER_S);
    cr_assert_eq(config.datastores[1].threads, 4);
    cr_assert_eq(config.datastores[1].connections, 3);
    cr_assert_str_eq(config.datastores[1].password_file, "/etc/secret");
    cr_assert_str_eq(config.datastores[1].mutual_user, "target");
    cr_assert_str_eq(config.datastores[1].mutual_password_file, "/etc/secret of the target");
    cr_assert_eq(config.datastores[1].quiet_ns, 1500 * NS_PER_MS);
    cr_assert_str_eq(config.datastores[1].faults, "/etc/faults");
    config_free(&config);
}

Test(config, defaults)
{
    struct config config;
    struct sentence why;
    char folder[] = "/tmp/svmfs-config-XXXXXX", name[64];
    cr_assert_not_null(mkdtemp(folder));
    snprintf(name, sizeof(name), "%s/vms.conf", folder);
    FILE *out = fopen(name, "w");
    fputs(ONE, out);
    fclose(out);
    int error = config_load(&config, name, schemes, &why);
    unlink(name);
    rmdir(folder);
    cr_assert_eq(error, 0, "%s", why.text);
    cr_assert_str_eq(config.file, name);
    cr_assert_str_eq(config.default_datastore, "a");
    cr_assert_str_eq(config.state, "/var/lib/svmfs/vms");
    cr_assert(config.reactors >= 1 && config.reactors <= 8);
    cr_assert_eq(config.jobs, 2);
    cr_assert_eq(config.target_timeout_ns, 5 * NS_PER_S);
    cr_assert_eq(config.buffers, 64u << 20);
    cr_assert_eq(config.datastores[0].timeout_ns, 30 * NS_PER_S);
    cr_assert_eq(config.datastores[0].threads, 16);
    cr_assert_eq(config.datastores[0].connections, 0);
    cr_assert_null(config.datastores[0].password_file);
    cr_assert_null(config.datastores[0].mutual_user);
    cr_assert_null(config.datastores[0].mutual_password_file);
    cr_assert_eq(config.datastores[0].quiet_ns, 3 * NS_PER_S);
    config_free(&config);
}

/* What is wrong, the line that the sentence must name, and a word that it must say. */
static const struct bad {
    const char *text;
    unsigned line;
    const char *word;
} bad[] = {
    {"", 0, "[datastore NAME]"},
    {"[mount]\njobs = 2\n", 2, "[datastore NAME]"},
    {"url = local:/a\n" ONE, 1, "url"},
    {ONE "[disks]\n", 3, "[disks]"},
    {ONE "[mount\n", 3, "]"},
    {ONE "[mount] x\n", 3, "]"},
    {ONE "[mount]\n[mount]\n", 4, "twice"},
    {ONE "[datastore]\n", 3, "name"},
    {ONE "[datastores b]\n", 3, "[datastores b]"},
    {ONE "[datastore a]\n", 3, "line 1"},
    {ONE "[datastore a/b]\n", 3, "a/b"},
    {ONE "[datastore a b]\n", 3, "a b"},
    {ONE "[datastore ..]\n", 3, ".."},
    {ONE "[datastore 5678901234567890123456789012345678901234567890123456789012345678]\n", 3, "63"},
    {ONE "\n[datastore b]\ntimeout = 1s\n", 4, "url"},
    {ONE "url = local:/b\n", 3, "twice"},
    {ONE "path = /b\n", 3, "path"},
    {ONE "URL = local:/b\n", 3, "URL"},
    {ONE "just words\n", 3, "just words"},
    {ONE "= x\n", 3, "key"},
    {ONE "timeout\n", 3, "timeout"},
    {ONE "timeout =\n", 3, "timeout"},
    {ONE "timeout = # none\n", 3, "timeout"},
    {ONE "timeout = 30\n", 3, "timeout"},
    {ONE "timeout = 0s\n", 3, "timeout"},
    {ONE "timeout = 61m\n", 3, "timeout"},
    {ONE "timeout = -1s\n", 3, "timeout"},
    {ONE "timeout = 1s2\n", 3, "timeout"},
    {ONE "timeout = 99999999999999999999s\n", 3, "timeout"},
    {ONE "timeout = 18446744073709551615s\n", 3, "timeout"},
    {ONE "threads = 0\n", 3, "threads"},
    {ONE "threads = 257\n", 3, "threads"},
    {ONE "threads = 4K\n", 3, "threads"},
    {ONE "connections = 0\n", 3, "connections"},
    {ONE "connections = 17\n", 3, "connections"},
    {ONE "password-file = secret\n", 3, "absolute"},
    {ONE "password_file = /secret\n", 3, "password-file"},
    {ONE "password = secret\n", 3, "password-file"},
    {ONE "mutual-user =\n", 3, "mutual-user"},
    {ONE "mutual-password-file = x\n", 3, "mutual-password-file"},
    {ONE "quiet = 5\n", 3, "quiet"},
    {ONE "quiet = 1ms\n", 3, "quiet"},
    {ONE "faults = /x\n", 1, "faults"},
    {ONE "[datastore b]\nurl = fault:local:/b\nfaults = x\n", 5, "faults"},
    {ONE "[datastore b]\nurl = /srv/b\n", 3, "local:"},
    {ONE "[datastore b]\nurl = ceph:/b\n", 3, "ceph:/b"},
    {ONE "[datastore b]\nurl = loc:/b\n", 3, "loc:/b"},
    {ONE "[datastore b]\nurl = local\n", 3, "local"},
    {ONE "[datastore b]\nurl = device:/dev/sdb\n", 3, "(volume:device:/dev/sdb)"},
    {ONE "[datastore b]\nurl = iscsi://host/iqn.x/1\n", 3, "one raw image and holds no files"},
    {ONE "[datastore b]\nurl = device\n", 3, "local:"},
    {ONE "[datastore b]\nurl = local:/a\n", 3, "already"},
    {ONE "[mount]\ndefault = b\n", 4, "default"},
    {ONE "[mount]\nstate = x\n", 4, "state"},
    {ONE "[mount]\nreactors = 0\n", 4, "reactors"},
    {ONE "[mount]\nreactors = 13\n", 4, "reactors"},
    {ONE "[mount]\njobs = many\n", 4, "jobs"},
    {ONE "[mount]\nbuffers = 1\n", 4, "buffers"},
    {ONE "[mount]\nbuffers = 5G\n", 4, "buffers"},
    {ONE "[mount]\ntarget-timeout = 5\n", 4, "target-timeout"},
    {ONE "[mount]\ntarget_timeout = 5s\n", 4, "target_timeout"},
    {ONE "[mount]\nstate = /a\x01z\n", 4, "state"},
};

Test(config, each_error_names_file_line_and_key)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct config config;
        struct sentence why = {0};
        char place[96];
        const char *file = file_of(bad[i].text, strlen(bad[i].text));
        snprintf(place, sizeof(place), "%s:%u: ", file, bad[i].line);
        cr_expect_eq(config_load(&config, file, schemes, &why), -EINVAL, "taken: %s", bad[i].text);
        cr_expect_eq(strncmp(why.text, place, strlen(place)), 0, "\"%s\" does not begin with %s", why.text, place);
        cr_expect_not_null(strstr(why.text, bad[i].word), "\"%s\" does not say %s", why.text, bad[i].word);
    }
}

Test(config, no_text_and_no_file)
{
    struct config config;
    struct sentence why = {0};
    cr_expect_eq(config_load(&config, file_of("[mount]\0x\n", 10), schemes, &why), -EINVAL);
    cr_expect_not_null(strstr(why.text, ":1: "), "%s", why.text);
    cr_expect_eq(config_load(&config, "/nowhere/svmfs.conf", schemes, &why), -ENOENT);
    cr_expect_not_null(strstr(why.text, "/nowhere/svmfs.conf"), "%s", why.text);
    cr_expect_eq(config_load(&config, "/", schemes, &why), -EISDIR, "%s", why.text);
}

Test(config, limit_of_datastores)
{
    struct config config;
    struct sentence why;
    char text[CONFIG_DATASTORES_MAX * 64];
    size_t used = 0;
    for (unsigned i = 0; i < CONFIG_DATASTORES_MAX; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "[datastore d%u]\nurl = local:/%u\n", i, i);
    cr_assert_eq(load(&config, text, &why), 0, "%s", why.text);
    cr_assert_eq(config.datastore_count, CONFIG_DATASTORES_MAX);
    config_free(&config);
    snprintf(text + used, sizeof(text) - used, "[datastore more]\nurl = memory:\n");
    cr_assert_eq(load(&config, text, &why), -EINVAL);
    cr_assert_not_null(strstr(why.text, "more"), "%s", why.text);
}

Test(config, several_places_without_a_path)
{
    struct config config;
    struct sentence why;
    cr_assert_eq(
        load(&config, "[datastore a]\nurl = memory:\n[datastore b]\nurl = memory:\n", &why), 0, "%s", why.text);
    config_free(&config);
}

Test(config, dump_gives_the_same_configuration)
{
    static const char *const texts[] = {
        ONE,
        "[mount]\nstate = /s\njobs = 64\nbuffers = 5000K\ntarget-timeout = 90s\n" ONE "timeout = 15001us\n",
        "[datastore a]\nurl = local:/with # comment\n",
        ("[datastore a]\nurl = local:/a\nconnections = 16\npassword-file = /s\nmutual-user = u\n"
         "mutual-password-file = /m\nquiet = 1h\n"),
        ("[datastore a]\nurl = local:/with#none\n"
         "[datastore b]\nurl = fault:memory:\nfaults = /f\nthreads = 256\n"
         "[mount]\ndefault = b\ntarget-timeout = 3599999999us\nbuffers = 4194305\n"),
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct config first, second;
        struct sentence why;
        cr_assert_eq(load(&first, texts[i], &why), 0, "%s", why.text);
        char *once = dump(&first);
        cr_assert_eq(load(&second, once, &why), 0, "%s of %s", why.text, once);
        char *twice = dump(&second);
        cr_expect_str_eq(once, twice);
        cr_expect_eq(first.target_timeout_ns, second.target_timeout_ns);
        cr_expect_eq(first.buffers, second.buffers);
        cr_expect_eq(first.datastores[0].timeout_ns, second.datastores[0].timeout_ns);
        cr_expect_str_eq(first.state, second.state);
        cr_expect_str_eq(first.datastores[0].url, second.datastores[0].url);
        free(once);
        free(twice);
        config_free(&first);
        config_free(&second);
    }
}

Test(config, quantities)
{
    uint64_t value;
    cr_expect(config_parse_size("0", &value) == 0 && value == 0);
    cr_expect(config_parse_size("200M", &value) == 0 && value == 200ull << 20);
    cr_expect(config_parse_size("1t", &value) == 0 && value == 1ull << 40);
    cr_expect(config_parse_size("18446744073709551615", &value) == 0 && value == UINT64_MAX);
    cr_expect(config_parse_duration("1d", &value) == 0 && value == 86400 * NS_PER_S);
    cr_expect(config_parse_duration("3h", &value) == 0 && value == 10800 * NS_PER_S);
    cr_expect(config_parse_duration("2m", &value) == 0 && value == 120 * NS_PER_S);
    cr_expect(config_parse_duration("7us", &value) == 0 && value == 7 * NS_PER_US);
    static const char *const wrong[] = {
        "", "M", " 1M", "1 M", "1M ", "+1", "-1", "1.5G", "0x10", "1MB", "16777216T", "18446744073709551616"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        cr_expect_eq(config_parse_size(wrong[i], &value), -EINVAL, "size %s", wrong[i]);
        cr_expect_eq(config_parse_duration(wrong[i], &value), -EINVAL, "duration %s", wrong[i]);
    }
}
