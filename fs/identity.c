#include "fs/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/cleanup.h"

#define NAME   "identity"
#define FRESH  "identity.new"
#define FORMAT "svmfs-identity 1\nmount %016" PRIx64 "\n"

/* At most size bytes with their end, without white space at it; empty where there is no such file. */
static void read_word(const char *path, char *out, size_t size)
{
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, out, size - 1);
    out[length > 0 ? length : 0] = '\0';
    out[strcspn(out, " \n")] = '\0';
}

/* 0, -ENOENT, -EINVAL or what the file says. */
static int read_number(int directory, uint64_t *mount)
{
    char text[128], same[128];
    auto_close int fd = openat(directory, NAME, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (length < 0)
        return -errno;
    text[length] = '\0';
    if (sscanf(text, "svmfs-identity 1\nmount %16" SCNx64, mount) != 1 || *mount == 0)
        return -EINVAL;
    snprintf(same, sizeof(same), FORMAT, *mount);
    return strcmp(text, same) == 0 ? 0 : -EINVAL;
}

static int make_number(int directory, uint64_t *mount)
{
    char text[128];
    *mount = 0;
    while (*mount == 0)
        if (getrandom(mount, sizeof(*mount), 0) != (ssize_t)sizeof(*mount) && errno != EINTR)
            return -errno;
    int length = snprintf(text, sizeof(text), FORMAT, *mount);
    auto_close int fd = openat(directory, FRESH, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ssize_t written = write(fd, text, (size_t)length);
    if (written != length)
        return written < 0 ? -errno : -ENOSPC;
    if (fsync(fd) < 0 || renameat(directory, FRESH, directory, NAME) < 0 || fsync(directory) < 0)
        return -errno;
    return 0;
}

int identity_load(struct identity *identity, const char *state_directory, struct sentence *why)
{
    struct utsname names;
    auto_close int directory = open(state_directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int error = directory < 0 ? -errno : read_number(directory, &identity->mount);
    if (error == -ENOENT && directory >= 0)
        error = make_number(directory, &identity->mount);
    if (error == -EINVAL)
        return refuse(why, error,
            "the file %s/" NAME " says nothing that is known: remove it, and the mount gets another number",
            state_directory);
    if (error)
        return refuse(why, error, "the mount's number in %s/" NAME " cannot be read or made: %s", state_directory,
            error_text(error));
    snprintf(identity->host, sizeof(identity->host), "%s", uname(&names) == 0 ? names.nodename : "");
    read_word("/etc/machine-id", identity->machine, sizeof(identity->machine));
    read_word("/proc/sys/kernel/random/boot_id", identity->boot, sizeof(identity->boot));
    return 0;
}
