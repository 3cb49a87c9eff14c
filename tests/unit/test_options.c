#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "options.h"

static struct options options;
static struct sentence why;

Test(options, sorted)
{
    cr_assert_eq(
        options_add(&options, "rw,dev,suid,nofail,_netdev,x-systemd.automount,comment=hello,noatime", &why), 0);
    cr_assert_eq(
        options_add(&options, "jobs=3,allow_other,,context=\"system_u:object_r:svirt:s0:c1,c2\",state=/s", &why), 0);
    cr_expect_str_eq(options.mount, "rw,dev,suid,noatime,context=\"system_u:object_r:svirt:s0:c1,c2\"");
    cr_expect_str_eq(options.overrides, "jobs=3");
    cr_expect_str_eq(options.overrides + strlen("jobs=3") + 1, "state=/s");
}

Test(options, what_mount_passes_is_taken)
{
    static const char *const all[] = {"ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "atime",
        "noatime", "nodiratime", "relatime", "norelatime", "strictatime", "sync", "dirsync", "async", "auto", "noauto",
        "user", "nouser", "users", "defaults", "_netdev", "nofail", "x-gvfs-hide", "comment=x", "allow_other",
        "default_permissions", "fsname=a", "subtype=b", "max_read=4096", "context=c", ""};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        cr_expect_eq(options_add(&options, all[i], &why), 0, "%s: %s", all[i], why.text);
}

Test(options, unknown_is_refused)
{
    static const char *const wrong[] = {"reactor=2", "jobs", "State=/s", "fsname", "fsname=", "rox", "comment", "fd=3",
        "remount", "rw,bogus=1", "allow_root"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *last = strrchr(wrong[i], ',');
        cr_expect_eq(options_add(&options, wrong[i], &why), -EINVAL, "taken: %s", wrong[i]);
        cr_expect_not_null(strstr(why.text, last ? last + 1 : wrong[i]), "%s", why.text);
    }
}

Test(options, too_long)
{
    char text[OPTIONS_MAX + 64] = "state=/";
    memset(text + strlen(text), 'a', OPTIONS_MAX);
    cr_expect_eq(options_add(&options, text, &why), -EINVAL);
    memcpy(text, "context=", 8);
    cr_expect_eq(options_add(&options, text, &why), -EINVAL);
    for (int i = 0; i < 1000; i++)
        if (options_add(&options, "noatime,jobs=2", &why) < 0)
            return;
    cr_assert_fail("2000 options found room");
}

Test(options, takeover_is_for_nobody_else)
{
    cr_assert_eq(options_add(&options, "rw,nofail", &why), 0);
    cr_expect_not(options.takeover);
    cr_assert_eq(options_add(&options, "jobs=3,takeover,noatime", &why), 0);
    cr_expect(options.takeover);
    cr_expect_str_eq(options.mount, "rw,noatime");
    cr_expect_str_eq(options.overrides, "jobs=3");
    cr_expect_eq(options_add(&options, "takeover=1", &why), -EINVAL);
}

static void make(struct config *config, const char *url, const char *state)
{
    memset(config, 0, sizeof(*config));
    config->datastore_count = 1;
    config->datastores[0].name = strdup("a");
    config->datastores[0].url = strdup(url);
    config->default_datastore = strdup("a");
    config->state = strdup(state);
}

Test(options, override_the_file)
{
    struct config config;
    make(&config, "local:/a", "/s");
    cr_assert_eq(options_add(&options, "state=/t,jobs=9,target-timeout=1s,buffers=8M,reactors=2,default=a", &why), 0);
    cr_assert_eq(options_override(&options, &config, &why), 0, "%s", why.text);
    cr_expect_str_eq(config.state, "/t");
    cr_expect_eq(config.jobs, 9);
    cr_expect_eq(config.reactors, 2);
    cr_expect_eq(config.target_timeout_ns, NS_PER_S);
    cr_expect_eq(config.buffers, 8u << 20);
    config_free(&config);
}

Test(options, bad_values)
{
    static const char *const wrong[] = {
        "jobs=0", "jobs=", "state=relative", "default=b", "buffers=1", "target-timeout=5"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct config config;
        make(&config, "local:/a", "/s");
        memset(&options, 0, sizeof(options));
        cr_expect_eq(options_add(&options, wrong[i], &why), 0);
        cr_expect_eq(options_override(&options, &config, &why), -EINVAL, "taken: %s", wrong[i]);
        cr_expect_eq(strncmp(why.text, "mount option ", 13), 0, "%s", why.text);
        config_free(&config);
    }
}

/* Of datastore, state and mountpoint none may stand where it would be reached through the mount. */
Test(options, places)
{
    static const struct {
        const char *datastore, *state, *mountpoint;
        int wanted;
    } places[] = {
        {"a", "s", "m", 0},
        {"m-not", "s", "m", 0},
        {"m", "s", "m", -EINVAL},
        {"m/a", "s", "m", -EINVAL},
        {"a", "s", "a/m", -EINVAL},
        {"a", "m/s", "m", -EINVAL},
        {"nowhere", "s", "m", 0},
    };
    char folder[] = "/tmp/svmfs-places-XXXXXX", url[96], state[96], mountpoint[96], command[64];
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
    cr_assert(mkdir("a", 0700) == 0 && mkdir("a/m", 0700) == 0 && mkdir("m", 0700) == 0 && mkdir("m/a", 0700) == 0 &&
              mkdir("m-not", 0700) == 0);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        struct config config;
        snprintf(url, sizeof(url), "%slocal:%s/%s", i % 2 ? "fault:" : "", folder, places[i].datastore);
        snprintf(state, sizeof(state), "%s/%s", folder, places[i].state);
        snprintf(mountpoint, sizeof(mountpoint), "%s/%s", folder, places[i].mountpoint);
        make(&config, url, state);
        cr_expect_eq(options_check_places(&config, mountpoint, &why), places[i].wanted, "%s on %s", url, mountpoint);
        config_free(&config);
    }
    snprintf(command, sizeof(command), "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}
