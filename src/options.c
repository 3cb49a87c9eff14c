#include "options.h"

#include <ctype.h>
#include <string.h>

#include "base/cleanup.h"
#include "setting.h"

/* svmfs(8), section "Mount options", is these tables in words. A name that ends in = takes a value, one that ends in *
 * is the beginning of many. */

/* The keeper makes flags of mount(2) or its data of them. */
static const char *const for_mount[] = {"ro", "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "atime",
    "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "lazytime",
    "nolazytime", "sync", "async", "dirsync", "context=", "fscontext=", "defcontext=", "rootcontext=", NULL};

/* What fstab and mount(8) say among themselves, and what other FUSE filesystems are told and svmfs decides by itself.
 */
static const char *const for_nobody[] = {"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "noowner",
    "group", "nogroup", "_netdev", "nofail", "loud", "silent", "mand", "nomand", "iversion", "noiversion",
    "comment=", "x-*", "X-*", "allow_other", "default_permissions", "fsname=", "subtype=", "max_read=", NULL};

static bool is_one_of(const char *option, const char *const *names)
{
    for (; *names; names++) {
        size_t length = strlen(*names);
        char last = (*names)[length - 1];
        if (last == '*' && strncmp(*names, option, length - 1) == 0)
            return true;
        if (last == '=' && strncmp(*names, option, length) == 0 && option[length] != '\0')
            return true;
        if (strcmp(*names, option) == 0 && last != '=')
            return true;
    }
    return false;
}

static int add_override(struct options *options, const char *option, struct sentence *why)
{
    size_t used = 0;
    while (options->overrides[used])
        used += strlen(options->overrides + used) + 1;
    if (used + strlen(option) + 2 > sizeof(options->overrides))
        return refuse(why, -EINVAL, "the mount options are too long");
    strcpy(options->overrides + used, option);
    return 0;
}

static int add_mount(struct options *options, const char *option, struct sentence *why)
{
    size_t used = strlen(options->mount);
    if (used + strlen(option) + 2 > sizeof(options->mount))
        return refuse(why, -EINVAL, "the mount options are too long");
    snprintf(options->mount + used, sizeof(options->mount) - used, "%s%s", used > 0 ? "," : "", option);
    return 0;
}

static int add_one(struct options *options, char *option, struct sentence *why)
{
    size_t key_length = strcspn(option, "=");
    char key[32];
    if (key_length < sizeof(key) && option[key_length] == '=') {
        memcpy(key, option, key_length);
        key[key_length] = '\0';
        if (setting_find(SETTING_MOUNT, key) >= 0)
            return add_override(options, option, why);
    }
    if (strcmp(option, "takeover") == 0) {
        options->takeover = true;
        return 0;
    }
    if (strcmp(option, "remount") == 0)
        return refuse(
            why, -EINVAL, "mount option remount: a mount of svmfs cannot be changed, only unmounted and mounted again");
    if (is_one_of(option, for_mount))
        return add_mount(options, option, why);
    if (is_one_of(option, for_nobody))
        return 0;
    char keys[256];
    setting_keys(SETTING_MOUNT, keys, sizeof(keys));
    return refuse(why, -EINVAL, "unknown mount option \"%.100s\"; svmfs's own are %s, each with =VALUE, and takeover",
        option, keys);
}

int options_add(struct options *options, const char *text, struct sentence *why)
{
    auto_free char *copy = strdup(text);
    if (!copy)
        return refuse(why, -ENOMEM, "no memory");
    char *begin = copy;
    bool quoted = false;
    for (char *p = copy;; p++) {
        if (*p == '"')
            quoted = !quoted;
        if (*p != '\0' && (*p != ',' || quoted))
            continue;
        bool last = *p == '\0';
        *p = '\0';
        int error = *begin ? add_one(options, begin, why) : 0;
        if (error < 0 || last)
            return error;
        begin = p + 1;
    }
}

int options_override(const struct options *options, struct config *config, struct sentence *why)
{
    for (const char *option = options->overrides; *option; option += strlen(option) + 1) {
        char key[32];
        struct sentence what = {0};
        const char *value = strchr(option, '=') + 1;
        snprintf(key, sizeof(key), "%.*s", (int)(value - option - 1), option);
        if (setting_apply(SETTING_MOUNT, setting_find(SETTING_MOUNT, key), config, value, &what) < 0)
            return refuse(why, -EINVAL, "mount option %.400s", what.text);
    }
    for (unsigned i = 0; i < config->datastore_count; i++)
        if (strcmp(config->datastores[i].name, config->default_datastore) == 0)
            return 0;
    return refuse(why, -EINVAL, "mount option default: there is no datastore %s", config->default_datastore);
}

/* The path that an URL names, NULL when it names none: what follows its schemes. */
static const char *path_of(const char *url)
{
    while (islower((unsigned char)*url)) {
        size_t length = strspn(url, "abcdefghijklmnopqrstuvwxyz");
        if (url[length] != ':')
            return NULL;
        url += length + 1;
    }
    return url[0] == '/' && url[1] != '/' ? url : NULL;
}

static bool is_at_or_below(const char *path, const char *above)
{
    size_t length = strlen(above);
    return strcmp(above, "/") == 0 ||
           (strncmp(path, above, length) == 0 && (path[length] == '/' || path[length] == '\0'));
}

int options_check_places(const struct config *config, const char *mountpoint, struct sentence *why)
{
    if (is_at_or_below(config->state, mountpoint))
        return refuse(
            why, -EINVAL, "the state directory %.200s lies below the mountpoint %.200s", config->state, mountpoint);
    for (unsigned i = 0; i < config->datastore_count; i++) {
        const char *path = path_of(config->datastores[i].url);
        auto_free char *real = path ? realpath(path, NULL) : NULL;
        if (!real)
            continue; /* away: if it comes back, it is not what the mount covers */
        if (is_at_or_below(real, mountpoint) || is_at_or_below(mountpoint, real))
            return refuse(why, -EINVAL, "datastore %s (%.150s) and the mountpoint %.150s lie within each other",
                config->datastores[i].name, real, mountpoint);
    }
    return 0;
}
