#include "fs/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "fs/mount.h"

#define PATIENCE_NS (10 * NS_PER_S)
#define LOOK_NS     (50 * NS_PER_MS)

static int make_directory(const char *directory)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/", directory) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    return 0;
}

/* "PID MOUNTPOINT\n" */
static bool holder_of(int fd, int *pid, char mountpoint[PATH_MAX])
{
    char text[PATH_MAX + 32];
    ssize_t length = pread(fd, text, sizeof(text) - 1, 0);
    if (length <= 0)
        return false;
    text[length] = '\0';
    int at = 0;
    if (sscanf(text, "%d %n", pid, &at) != 1 || at == 0)
        return false;
    text[at + (int)strcspn(text + at, "\n")] = '\0';
    snprintf(mountpoint, PATH_MAX, "%.*s", PATH_MAX - 1, text + at);
    return true;
}

static int lock(int fd, const char *directory, struct sentence *why)
{
    uint64_t end = clock_now() + PATIENCE_NS;
    int pid = 0;
    dev_t device;
    char mountpoint[PATH_MAX] = "";
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return refuse(why, -errno, "%s cannot be locked: %s", directory, error_text(errno));
        bool known = holder_of(fd, &pid, mountpoint);
        if ((known && mount_find(mountpoint, &device) == 0) || clock_now() >= end)
            return refuse(
                why, -EBUSY, "%s is in use: process %d serves the mount at %s with it", directory, pid, mountpoint);
        nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    }
    return 0;
}

int claim_sign(int fd, const char *mountpoint)
{
    char text[PATH_MAX + 32];
    int length = snprintf(text, sizeof(text), "%d %.*s\n", (int)getpid(), PATH_MAX - 1, mountpoint);
    return ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)length, 0) != length ? -EIO : 0;
}

int claim_state(const char *directory, const char *mountpoint, struct sentence *why)
{
    char path[PATH_MAX];
    int error = make_directory(directory);
    if (error)
        return refuse(why, error, "the state directory %s cannot be made: %s", directory, error_text(error));
    if (snprintf(path, sizeof(path), "%s/lock", directory) >= (int)sizeof(path))
        return refuse(why, -ENAMETOOLONG, "the state directory's name is too long");
    auto_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return refuse(why, -errno, "%s: %s", path, error_text(errno));
    error = lock(fd, directory, why);
    if (error)
        return error;
    error = claim_sign(fd, mountpoint);
    if (error)
        return refuse(why, error, "%s cannot be written: %s", path, error_text(error));
    int claimed = fd;
    fd = -1;
    return claimed;
}
