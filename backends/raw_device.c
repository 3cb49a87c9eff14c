/* A block device as one raw image: a partition, a whole disk, a loop or device-mapper device, and so a Fibre Channel
 * LUN. A writer opens it with O_EXCL, which the kernel grants to one at a time and not while it is mounted or part of
 * something else; who only reads claims nothing. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/raw_file.h"
#include "base/cleanup.h"

static int refuse_open(const char *datastore, const char *path, bool writable, int error, struct sentence *why)
{
    switch (error) {
    case -ENOENT:
        return refuse(why, error,
            "datastore %s: there is no block device %s; see lsblk, and prefer a name below /dev/disk/by-id, which does "
            "not change",
            datastore, path);
    case -ENXIO:
    case -ENODEV:
    case -ENOMEDIUM:
        return refuse(why, error, "datastore %s: block device %s has nothing behind it (%s); connect it", datastore,
            path, error_text(error));
    case -EACCES:
    case -EPERM:
        return refuse(why, error,
            "datastore %s: no permission to %s block device %s; svmfs runs as user %u: run it as root, or give that "
            "user the device",
            datastore, writable ? "write" : "read", path, (unsigned)geteuid());
    case -EBUSY:
        return refuse(why, error,
            "datastore %s: block device %s is in use: mounted, part of LVM, RAID or multipath, or taken by another "
            "program; lsblk %s tells",
            datastore, path, path);
    case -EROFS:
        return refuse(why, error,
            "datastore %s: block device %s is read-only; make it writable (blockdev --setrw %s) or use another",
            datastore, path, path);
    default:
        return refuse(why, error, "datastore %s: block device %s: %s", datastore, path, error_text(error));
    }
}

/* What is there, before anything is opened: opening a terminal or a fifo would do things. */
static int check_kind(const char *datastore, const char *path, bool writable, struct sentence *why)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return refuse_open(datastore, path, writable, -errno, why);
    if (S_ISREG(st.st_mode))
        return refuse(why, -EINVAL,
            "datastore %s: %s is a plain file and no block device: as a raw image its url is local:%s", datastore, path,
            path);
    if (!S_ISBLK(st.st_mode))
        return refuse(why, -EINVAL, "datastore %s: %s is no block device", datastore, path);
    return 0;
}

static bool is_read_only(int fd)
{
    int read_only = 0;
    return ioctl(fd, BLKROGET, &read_only) == 0 && read_only;
}

static int open_node(const char *path, bool writable)
{
    unsigned tries = 0;
    int fd, error;
    do {
        fd = open(path, (writable ? O_RDWR | O_EXCL : O_RDONLY) | O_DIRECT | O_CLOEXEC);
        error = fd < 0 ? -errno : 0;
    } while (error == -EBUSY && raw_file_wait_busy(&tries));
    if (!error && writable && is_read_only(fd))
        error = -EROFS;
    if (fd >= 0 && error)
        close(fd);
    if (error == -EACCES || error == -EPERM) {
        auto_close int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (writable && reader >= 0 && is_read_only(reader))
            error = -EROFS;
    }
    return error ? error : fd;
}

/* A number that the kernel tells of the device's queue; a partition's queue is its disk's. 0: not told. */
static unsigned long long queue_value(dev_t device, const char *name)
{
    static const char *const ways[] = {"", "../"};
    unsigned long long value = 0;
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        char path[160];
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%squeue/%s", major(device), minor(device), ways[i], name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (fscanf(file, "%llu", &value) != 1)
            value = 0;
        fclose(file);
        break;
    }
    return value;
}

static int ask_limits(int fd, struct image_limits *limits, uint32_t *memory)
{
    struct stat st;
    int logical = 0;
    uint32_t block;
    if (ioctl(fd, BLKSSZGET, &logical) < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (logical <= 0 || (logical & (logical - 1)) != 0)
        return -EINVAL;
    raw_file_alignment(fd, &block, memory);
    limits->block = (uint32_t)logical;
    limits->can_zero = queue_value(st.st_rdev, "write_zeroes_max_bytes") > 0;
    limits->can_punch = limits->can_zero && queue_value(st.st_rdev, "discard_max_bytes") > 0;
    return 0;
}

static int open_device(
    struct datastore *datastore, const char *rest, bool writable, struct image **out, struct sentence *why)
{
    struct image_limits limits = {0};
    uint32_t memory = 0;
    if (rest[0] != '/')
        return refuse(why, -EINVAL, "datastore %s: device: needs the absolute path of a block device, not \"%s\"",
            datastore->name, rest);
    int error = check_kind(datastore->name, rest, writable, why);
    if (error)
        return error;
    int fd = open_node(rest, writable);
    if (fd < 0)
        return refuse_open(datastore->name, rest, writable, fd, why);
    uint64_t size = 0;
    error = ask_limits(fd, &limits, &memory);
    if (!error)
        error = raw_file_size(fd, true, limits.block, &size);
    if (!error && size == 0)
        error = -ENOMEDIUM; /* a loop device without a file, an empty drive */
    if (error)
        close(fd);
    else
        error = raw_file_new(out, datastore, fd, true, true, &limits, memory);
    return error ? refuse_open(datastore->name, rest, writable, error, why) : 0;
}

const struct raw_ops raw_device = {.scheme = "device", .open = open_device, .refresh = raw_file_refresh};
