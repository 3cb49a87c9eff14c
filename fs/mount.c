#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "fs/session.h"

#define FILESYSTEM_TYPE "fuse.svmfs"
#define DATA_MAX        1024
#define INIT_BUFFER     65536

/* Newer than the header that we may be built with. */
#define INIT_DIRECT_IO_ALLOW_MMAP (1ull << 36)

#define MAX_BACKGROUND 65535u

static const struct mount_flag {
    const char *name;
    unsigned long set, clear;
} flags_known[] = {
    {"ro", MS_RDONLY, 0},
    {"rw", 0, MS_RDONLY},
    {"nosuid", MS_NOSUID, 0},
    {"suid", 0, MS_NOSUID},
    {"nodev", MS_NODEV, 0},
    {"dev", 0, MS_NODEV},
    {"noexec", MS_NOEXEC, 0},
    {"exec", 0, MS_NOEXEC},
    {"noatime", MS_NOATIME, 0},
    {"atime", 0, MS_NOATIME},
    {"nodiratime", MS_NODIRATIME, 0},
    {"diratime", 0, MS_NODIRATIME},
    {"relatime", MS_RELATIME, 0},
    {"norelatime", 0, MS_RELATIME},
    {"strictatime", MS_STRICTATIME, 0},
    {"nostrictatime", 0, MS_STRICTATIME},
    {"lazytime", MS_LAZYTIME, 0},
    {"nolazytime", 0, MS_LAZYTIME},
    {"sync", MS_SYNCHRONOUS, 0},
    {"async", 0, MS_SYNCHRONOUS},
    {"dirsync", MS_DIRSYNC, 0},
};

static const char *const contexts[] = {"context=", "fscontext=", "defcontext=", "rootcontext="};

static bool take_flag(const char *option, unsigned long *flags)
{
    for (size_t i = 0; i < sizeof(flags_known) / sizeof(flags_known[0]); i++)
        if (strcmp(option, flags_known[i].name) == 0) {
            *flags = (*flags | flags_known[i].set) & ~flags_known[i].clear;
            return true;
        }
    return false;
}

static bool is_context(const char *option)
{
    for (size_t i = 0; i < sizeof(contexts) / sizeof(contexts[0]); i++)
        if (strncmp(option, contexts[i], strlen(contexts[i])) == 0)
            return true;
    return false;
}

int mount_options_parse(const char *options, unsigned long *flags, char *data, size_t size)
{
    *flags = 0;
    data[0] = '\0';
    if (!options)
        return 0;
    auto_free char *copy = strdup(options);
    if (!copy)
        return -ENOMEM;
    char *place = NULL;
    for (char *option = strtok_r(copy, ",", &place); option; option = strtok_r(NULL, ",", &place)) {
        if (take_flag(option, flags) || !is_context(option))
            continue;
        size_t used = strlen(data);
        if ((size_t)snprintf(data + used, size - used, ",%s", option) >= size - used)
            return -ENAMETOOLONG;
    }
    return 0;
}

void mount_negotiate(const struct fuse_init_in *in, struct fuse_init_out *out)
{
    /* Not wanted: ATOMIC_O_TRUNC (truncate has one path), AUTO_INVAL_DATA (stale reads beside writes), WRITEBACK_CACHE,
     * locks (they stay with the kernel), NO_OPEN_SUPPORT, HAS_RESEND (slots or resend, never both). */
    static const uint64_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                                   FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_HANDLE_KILLPRIV_V2 |
                                   FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_INIT_EXT | FUSE_SETXATTR_EXT |
                                   INIT_DIRECT_IO_ALLOW_MMAP;
    uint64_t offered = in->flags;
    if (offered & FUSE_INIT_EXT)
        offered |= (uint64_t)in->flags2 << 32;
    uint64_t agreed = offered & wanted;
    *out = (struct fuse_init_out){
        .major = FUSE_KERNEL_VERSION,
        .minor = in->minor < FUSE_KERNEL_MINOR_VERSION ? in->minor : FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = in->max_readahead,
        .flags = (uint32_t)agreed,
        .flags2 = (uint32_t)(agreed >> 32),
        .max_background = MAX_BACKGROUND,
        .congestion_threshold = MAX_BACKGROUND / 4 * 3,
        .max_write = MAX_WRITE,
        .time_gran = 1,
        .max_pages = agreed & FUSE_MAX_PAGES ? MAX_WRITE / FUSE_PAGE : 0,
    };
}

static int answer_init(struct fuse_mount *fuse, struct sentence *why)
{
    auto_free uint8_t *buffer = malloc(INIT_BUFFER);
    if (!buffer)
        return -ENOMEM;
    ssize_t length;
    do {
        length = read(fuse->fd, buffer, INIT_BUFFER);
    } while (length < 0 && errno == EINTR);
    if (length < 0)
        return refuse(why, -errno, "%s: the kernel sent no FUSE_INIT: %s", fuse->point, error_text(errno));
    struct fuse_in_header in;
    size_t least = sizeof(in) + offsetof(struct fuse_init_in, flags2);
    if ((size_t)length < least)
        return refuse(why, -EPROTO, "%s: the kernel's FUSE_INIT is too short", fuse->point);
    memcpy(&in, buffer, sizeof(in));
    size_t body = (size_t)length - sizeof(in);
    memcpy(&fuse->init_in, buffer + sizeof(in), body < sizeof(fuse->init_in) ? body : sizeof(fuse->init_in));
    if (in.opcode != FUSE_INIT || fuse->init_in.major != FUSE_KERNEL_VERSION || fuse->init_in.minor < 31)
        return refuse(why, -EPROTO, "%s: the kernel's FUSE protocol %u.%u is too old: 7.31 is needed (Linux 5.4)",
            fuse->point, fuse->init_in.major, fuse->init_in.minor);
    mount_negotiate(&fuse->init_in, &fuse->init_out);
    struct {
        struct fuse_out_header header;
        struct fuse_init_out body;
    } out = {{sizeof(out), 0, in.unique}, fuse->init_out};
    if (write(fuse->fd, &out, sizeof(out)) < 0)
        return refuse(
            why, -errno, "%s: the kernel did not take the answer to FUSE_INIT: %s", fuse->point, error_text(errno));
    return 0;
}

/* Asks the kernel only, not the filesystem. */
static int device_of(const char *path, dev_t *device)
{
    struct statx st;
    if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, 0, &st) < 0)
        return -errno;
    *device = makedev(st.stx_dev_major, st.stx_dev_minor);
    return 0;
}

int mount_open(
    struct fuse_mount *fuse, const char *source, const char *point, const char *options, struct sentence *why)
{
    unsigned long flags;
    char data[DATA_MAX];
    *fuse = (struct fuse_mount){.fd = -1, .point = point};
    fuse->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse->fd < 0)
        return refuse(why, -errno, "/dev/fuse: %s", error_text(errno));
    int used = snprintf(data, sizeof(data),
        "fd=%d,rootmode=40000,user_id=%u,group_id=%u,default_permissions,allow_other,max_read=%u", fuse->fd,
        (unsigned)geteuid(), (unsigned)getegid(), MAX_WRITE);
    int error = mount_options_parse(options, &flags, data + used, sizeof(data) - (size_t)used);
    if (error)
        refuse(why, error, "%s: the mount options are too long", point);
    else if (mount(source, point, FILESYSTEM_TYPE, flags, data) < 0)
        error = refuse(why, -errno, "%s cannot be mounted: %s", point, error_text(errno));
    if (error) {
        close(fuse->fd);
        return error;
    }
    error = answer_init(fuse, why);
    if (!error && (error = device_of(point, &fuse->device)) < 0)
        refuse(why, error, "%s: %s", point, error_text(error));
    if (error) {
        umount2(point, MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW);
        close(fuse->fd);
    }
    return error;
}

int mount_clone(const struct fuse_mount *fuse)
{
    auto_close int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    uint32_t from = (uint32_t)fuse->fd;
    if (fd < 0 || ioctl(fd, FUSE_DEV_IOC_CLONE, &from) < 0)
        return -errno;
    int clone = fd;
    fd = -1;
    return clone;
}

bool mount_is_gone(const struct fuse_mount *fuse)
{
    struct pollfd look = {.fd = fuse->fd};
    return poll(&look, 1, 0) > 0 && (look.revents & (POLLERR | POLLHUP | POLLNVAL));
}

static bool is_ours(const struct fuse_mount *fuse)
{
    dev_t device;
    return device_of(fuse->point, &device) == 0 && device == fuse->device;
}

int mount_detach(const struct fuse_mount *fuse)
{
    if (!is_ours(fuse))
        return 0;
    if (umount2(fuse->point, UMOUNT_NOFOLLOW) == 0)
        return 0;
    int error = -errno;
    int fd = open(fuse->point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        syncfs(fd);
        close(fd);
    }
    umount2(fuse->point, MNT_DETACH | UMOUNT_NOFOLLOW);
    return error;
}

void mount_abort(const struct fuse_mount *fuse)
{
    if (is_ours(fuse))
        umount2(fuse->point, MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW);
}

static void unescape(char *text)
{
    char *out = text;
    for (unsigned code; *text; out++) {
        bool escaped = text[0] == '\\' && sscanf(text + 1, "%3o", &code) == 1;
        *out = escaped ? (char)code : *text;
        text += escaped ? 4 : 1;
    }
    *out = '\0';
}

int mount_find(const char *point, dev_t *device)
{
    char line[3 * PATH_MAX], at[PATH_MAX];
    unsigned high, low;
    int found = -ENOENT;
    FILE *table = fopen("/proc/self/mountinfo", "re");
    while (table && fgets(line, sizeof(line), table)) {
        if (sscanf(line, "%*s %*s %u:%u %*s %4095s", &high, &low, at) != 3)
            continue;
        unescape(at);
        if (strcmp(at, point) != 0)
            continue;
        found = strstr(line, " - " FILESYSTEM_TYPE " ") ? 0 : -EINVAL;
        *device = makedev(high, low);
    }
    if (table)
        fclose(table);
    return found;
}
