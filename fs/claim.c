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

static bool octal_escaped(const char *in, char out[PATH_MAX])
{
    size_t length = 0;
    for (; *in && length < PATH_MAX - 1; in++) {
        unsigned code;
        if (in[0] == '\\' && sscanf(in + 1, "%3o", &code) == 1) {
            out[length++] = (char)code;
            in += 3;
        } else {
            out[length++] = *in;
        }
    }
    out[length] = '\0';
    return *in == '\0';
}

static bool is_mounted(const char *mountpoint)
{
    char line[3 * PATH_MAX], raw[PATH_MAX], point[PATH_MAX];
    FILE *table = fopen("/proc/self/mountinfo", "re");
    bool found = false;
    while (table && !found && fgets(line, sizeof(line), table)) {
        if (sscanf(line, "%*s %*s %*s %*s %4095s", raw) == 1 && strstr(line, " fuse.svmfs ") &&
            octal_escaped(raw, point))
            found = strcmp(point, mountpoint) == 0;
    }
    if (table)
        fclose(table);
    return found;
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
    char mountpoint[PATH_MAX] = "";
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return refuse(why, -errno, "%s cannot be locked: %s", directory, error_text(errno));
        bool known = holder_of(fd, &pid, mountpoint);
        if ((known && is_mounted(mountpoint)) || clock_now() >= end)
            return refuse(
                why, -EBUSY, "%s is in use: process %d serves the mount at %s with it", directory, pid, mountpoint);
        nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
    }
    return 0;
}

int claim_state(const char *directory, const char *mountpoint, struct sentence *why)
{
    char path[PATH_MAX], text[PATH_MAX + 32];
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
    int length = snprintf(text, sizeof(text), "%d %.*s\n", (int)getpid(), PATH_MAX - 1, mountpoint);
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)length, 0) != length)
        return refuse(why, -EIO, "%s cannot be written: %s", path, error_text(errno));
    int claimed = fd;
    fd = -1;
    return claimed;
}
