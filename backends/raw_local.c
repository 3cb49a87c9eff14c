/* A plain file as one raw image. A writer claims it by flock, as a datastore of files claims its directory; who only
 * reads claims nothing. The file's holes are its own: what can be punched and allocated is tried on a nameless file
 * beside it. A file that does not end at a multiple of the block is used up to the last one. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/raw_file.h"
#include "base/cleanup.h"

#define DEFAULT_BLOCK  4096 /* alignment where the kernel does not tell */
#define SMALLEST_BLOCK 512
#define PROBE_BYTES    (64 << 10)

static int refuse_open(const char *datastore, const char *path, bool writable, int error, struct sentence *why)
{
    switch (error) {
    case -ENOENT:
        return refuse(why, error,
            "datastore %s: there is no file %s; make one of the size that it shall have (truncate -s SIZE %s)",
            datastore, path, path);
    case -EACCES:
    case -EPERM:
        return refuse(why, error, "datastore %s: no permission to %s file %s; svmfs runs as user %u", datastore,
            writable ? "write" : "read", path, (unsigned)geteuid());
    case -EROFS:
        return refuse(why, error,
            "datastore %s: file %s is on a filesystem that is mounted read-only; mount it writable", datastore, path);
    default:
        return refuse(why, error, "datastore %s: file %s: %s", datastore, path, error_text(error));
    }
}

static void probe(const char *path, struct image_limits *limits)
{
    const char *slash = strrchr(path, '/');
    auto_free char *directory = slash > path ? strndup(path, (size_t)(slash - path)) : strdup("/");
    auto_close int fd = directory ? open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;
    bool made = fd >= 0 && ftruncate(fd, PROBE_BYTES) == 0;
    limits->can_punch = made && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PROBE_BYTES) == 0;
    limits->can_zero = made && fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, PROBE_BYTES) == 0;
    limits->can_allocate = made && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, PROBE_BYTES) == 0;
    limits->can_map = true;
}

/* Is it a plain file, and nobody else's? */
static int check(int fd, const char *path, const char *datastore, bool writable, struct sentence *why)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return refuse_open(datastore, path, writable, -errno, why);
    if (S_ISBLK(st.st_mode))
        return refuse(why, -EINVAL, "datastore %s: %s is a block device: its url is device:%s", datastore, path, path);
    if (!S_ISREG(st.st_mode))
        return refuse(why, -EINVAL, "datastore %s: %s is no plain file", datastore, path);
    unsigned tries = 0;
    bool busy = writable;
    while (busy && (busy = flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK) && raw_file_wait_busy(&tries))
        ;
    if (busy)
        return refuse(why, -EBUSY, "datastore %s: file %s is in use: another svmfs has it; unmount that one first",
            datastore, path);
    return 0;
}

/* Opening does not wait for what is no plain file (a fifo). */
static int open_file(const char *path, bool writable, bool *direct)
{
    int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = open(path, flags | O_DIRECT);
    *direct = fd >= 0;
    if (fd < 0 && errno == EINVAL)
        fd = open(path, flags);
    return fd < 0 ? -errno : fd;
}

static int open_local(
    struct datastore *datastore, const char *rest, bool writable, struct image **out, struct sentence *why)
{
    struct image_limits limits = {0};
    uint32_t block, memory;
    bool direct;
    if (rest[0] != '/')
        return refuse(
            why, -EINVAL, "datastore %s: local: needs the absolute path of a file, not \"%s\"", datastore->name, rest);
    int fd = open_file(rest, writable, &direct);
    if (fd == -EISDIR)
        return refuse(why, -EINVAL,
            "datastore %s: %s is a directory and no raw image; as a datastore of files its url "
            "is local:%s",
            datastore->name, rest, rest);
    if (fd < 0)
        return refuse_open(datastore->name, rest, writable, fd, why);
    int error = check(fd, rest, datastore->name, writable, why);
    if (error) {
        close(fd);
        return error;
    }
    raw_file_alignment(fd, &block, &memory);
    limits.block = !direct ? SMALLEST_BLOCK : block == 0 ? DEFAULT_BLOCK : block;
    if (limits.block < SMALLEST_BLOCK)
        limits.block = SMALLEST_BLOCK;
    probe(rest, &limits);
    error = raw_file_new(out, datastore, fd, direct, false, &limits, memory);
    return error ? refuse_open(datastore->name, rest, writable, error, why) : 0;
}

const struct raw_ops raw_local = {.scheme = "local", .open = open_local, .refresh = raw_file_refresh};
