/* A datastore that is a directory of a local filesystem: each file lives under its own path, cp is the recovery tool.
 *
 * Every path is resolved below an O_PATH descriptor of the root by openat2, which follows no symlink and leaves the
 * root by no trick; the last component is then used by its name in the resolved directory, or through a descriptor of
 * the object itself. What is created has exactly the mode and the owner that were asked for: it is made private, then
 * changed.
 *
 * Not done here: hiding svmfs's own directory from any call but list of the root. Durability of what is created and
 * renamed is sync_directory's and VERB_FLUSH's. */
#include "backends/local.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "backends/backends.h"
#include "base/cleanup.h"

#define MODE_BITS   07777
#define XATTR_SPACE "user."
#define COPIES      8 /* threads for copiers: what one job has in flight, and all of them together */

/* ---- ways to an object ---- */

const char *local_proc_fd(char name[static PROC_FD_MAX], int fd)
{
    snprintf(name, PROC_FD_MAX, "/proc/self/fd/%d", fd);
    return name;
}

int local_resolve(const struct local *local, const char *path, int flags)
{
    struct open_how how = {.flags = (uint64_t)(flags | O_NOFOLLOW | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    long fd;
    if (!local)
        return -EIO;
    do {
        fd = syscall(SYS_openat2, local->root, *path ? path : ".", &how, sizeof(how));
    } while (fd < 0 && (errno == EAGAIN || errno == EINTR));
    return fd < 0 ? -errno : (int)fd;
}

int local_reopen(int path_fd, int flags)
{
    char name[PROC_FD_MAX];
    int fd = open(local_proc_fd(name, path_fd), flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* The directory that holds path, by flags; *leaf is the last component. Descriptor or -errno. */
static int resolve_parent(const struct local *local, const char *path, int flags, const char **leaf)
{
    const char *slash = strrchr(path, '/');
    *leaf = slash ? slash + 1 : path;
    if (**leaf == '\0' || strcmp(*leaf, ".") == 0 || strcmp(*leaf, "..") == 0)
        return -EINVAL;
    auto_free char *directory = slash ? strndup(path, (size_t)(slash - path)) : strdup("");
    if (!directory)
        return -ENOMEM;
    return local_resolve(local, directory, flags | O_DIRECTORY);
}

/* What may be changed: nothing when another mount has taken the datastore over; local_resolve then says EIO. */
static const struct local *to_change(const struct datastore *datastore)
{
    const struct local *local = datastore->state;
    return local && !local_is_lost(local) ? local : NULL;
}

static int done(int result)
{
    return result < 0 ? -errno : 0;
}

/* ---- the datastore ---- */

static int open_local(struct datastore *datastore, const char *rest, struct sentence *why)
{
    if (rest[0] != '/')
        return refuse(
            why, -EINVAL, "datastore %s: local: needs an absolute directory, not \"%s\"", datastore->name, rest);
    struct local *local = calloc(1, sizeof(*local));
    if (!local)
        return refuse(why, -ENOMEM, "datastore %s: no memory", datastore->name);
    local->root = open(rest, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct sentence claimed = {""};
    int error = local->root < 0 ? -errno : local_claim(datastore, local, &claimed);
    if (error) {
        if (local->root >= 0)
            close(local->root);
        free(local);
        return claimed.text[0]
                   ? refuse(why, error, "%s", claimed.text)
                   : refuse(why, error, "datastore %s: directory %s: %s", datastore->name, rest, error_text(error));
    }
    error = pool_open(&local->copies, datastore->name, COPIES);
    if (!error && (error = cutter_open(&local->cutter, datastore->name)))
        pool_close(local->copies);
    if (error) {
        local_unclaim(local);
        close(local->root);
        free(local);
        return refuse(why, error, "datastore %s: no thread: %s", datastore->name, error_text(error));
    }
    pthread_mutex_init(&local->mutex, NULL);
    datastore->state = local;
    return 0;
}

static void close_local(struct datastore *datastore)
{
    struct local *local = datastore->state;
    if (!local)
        return;
    pool_close(local->copies);
    cutter_close(&local->cutter);
    aio_close(&local->aio);
    pthread_mutex_destroy(&local->mutex);
    local_unclaim(local);
    close(local->root);
    free(local);
    datastore->state = NULL;
}

static int statfs_local(struct datastore *datastore, struct statvfs *out)
{
    struct local *local = datastore->state;
    if (!local)
        return -EIO;
    if (fstatvfs(local->root, out) < 0)
        return -errno;
    fsblkcnt_t owed = cutter_owed(&local->cutter) / out->f_frsize;
    out->f_bfree += owed;
    out->f_bavail += owed;
    return 0;
}

static int lookup(struct datastore *datastore, const char *path, struct stat *out)
{
    auto_close int fd = local_resolve(datastore->state, path, O_PATH);
    return fd < 0 ? fd : done(fstat(fd, out));
}

static int list_directory(DIR *directory, bool root, datastore_entry *entry, void *argument)
{
    struct dirent *found;
    while (errno = 0, (found = readdir(directory))) {
        const char *name = found->d_name;
        struct stat st;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (root && strcmp(name, DATASTORE_PRIVATE) == 0))
            continue;
        if (fstatat(dirfd(directory), name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT)
                continue;
            return -errno;
        }
        int stop = entry(argument, name, &st);
        if (stop)
            return stop;
    }
    return -errno;
}

static int list(struct datastore *datastore, const char *path, datastore_entry *entry, void *argument)
{
    int fd = local_resolve(datastore->state, path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fd;
    DIR *directory = fdopendir(fd);
    if (!directory) {
        int error = -errno;
        close(fd);
        return error;
    }
    int result = list_directory(directory, *path == '\0', entry, argument);
    closedir(directory);
    return result;
}

/* ---- names ---- */

static int make(int parent, const char *leaf, const struct stat *st, const char *content)
{
    switch (st->st_mode & S_IFMT) {
    case S_IFREG: {
        int fd = openat(parent, leaf, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
        return fd < 0 ? -errno : done(close(fd));
    }
    case S_IFDIR:
        return done(mkdirat(parent, leaf, 0700));
    case S_IFLNK:
        return content ? done(symlinkat(content, parent, leaf)) : -EINVAL;
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFBLK:
    case S_IFCHR:
        return done(mknodat(parent, leaf, (st->st_mode & S_IFMT) | 0600, st->st_rdev));
    default:
        return -EINVAL;
    }
}

static int change_owner(int fd, const struct stat *want)
{
    struct stat is;
    if (fstat(fd, &is) < 0)
        return -errno;
    bool kept = (want->st_uid == (uid_t)-1 || want->st_uid == is.st_uid) &&
                (want->st_gid == (gid_t)-1 || want->st_gid == is.st_gid);
    return kept ? 0 : done(fchownat(fd, "", want->st_uid, want->st_gid, AT_EMPTY_PATH));
}

static int change_mode(int fd, mode_t mode)
{
    char name[PROC_FD_MAX];
    return done(chmod(local_proc_fd(name, fd), mode & MODE_BITS));
}

static int create(struct datastore *datastore, const char *path, const struct stat *st, const char *content)
{
    const char *leaf;
    if (*path == '\0')
        return -EEXIST;
    auto_close int parent = resolve_parent(to_change(datastore), path, O_PATH, &leaf);
    if (parent < 0)
        return parent;
    struct local *local = datastore->state;
    int error;
    do {
        error = make(parent, leaf, st, content);
    } while (error == -ENOSPC && cutter_wait(&local->cutter));
    if (error)
        return error;
    auto_close int fd = openat(parent, leaf, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    error = fd < 0 ? -errno : change_owner(fd, st);
    if (!error && !S_ISLNK(st->st_mode))
        error = change_mode(fd, st->st_mode);
    if (error)
        unlinkat(parent, leaf, S_ISDIR(st->st_mode) ? AT_REMOVEDIR : 0);
    return error;
}

/* For filesystems that lack RENAME_NOREPLACE: a link never replaces; what cannot be linked is looked for first. */
static int rename_careful(int from_fd, const char *from, int to_fd, const char *to)
{
    struct stat st;
    if (linkat(from_fd, from, to_fd, to, 0) == 0)
        return done(unlinkat(from_fd, from, 0));
    if (errno != EPERM && errno != EOPNOTSUPP)
        return -errno;
    if (fstatat(to_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    return errno == ENOENT ? done(renameat(from_fd, from, to_fd, to)) : -errno;
}

static int rename_local(struct datastore *datastore, const char *from, const char *to, bool replace)
{
    const char *from_leaf, *to_leaf;
    auto_close int from_fd = resolve_parent(to_change(datastore), from, O_PATH, &from_leaf);
    if (from_fd < 0)
        return from_fd;
    auto_close int to_fd = resolve_parent(to_change(datastore), to, O_PATH, &to_leaf);
    if (to_fd < 0)
        return to_fd;
    int error = done(renameat2(from_fd, from_leaf, to_fd, to_leaf, replace ? 0 : RENAME_NOREPLACE));
    if (error == -EINVAL && !replace)
        error = rename_careful(from_fd, from_leaf, to_fd, to_leaf);
    return error;
}

static int remove_local(struct datastore *datastore, const char *path, bool directory)
{
    const char *leaf;
    if (*path == '\0')
        return -EBUSY;
    auto_close int parent = resolve_parent(to_change(datastore), path, O_PATH, &leaf);
    if (parent < 0)
        return parent;
    struct local *local = datastore->state;
    return directory ? done(unlinkat(parent, leaf, AT_REMOVEDIR)) : local_unlink(&local->cutter, parent, leaf);
}

static int readlink_local(struct datastore *datastore, const char *path, char *out, size_t size)
{
    auto_close int fd = local_resolve(datastore->state, path, O_PATH);
    struct stat st;
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISLNK(st.st_mode))
        return -EINVAL;
    ssize_t length = readlinkat(fd, "", out, size);
    if (length < 0)
        return -errno;
    if ((size_t)length >= size)
        return -ERANGE;
    out[length] = '\0';
    return 0;
}

/* ---- attributes ---- */

static int set_attributes(struct datastore *datastore, const char *path, const struct stat *st, unsigned mask)
{
    auto_close int fd = local_resolve(to_change(datastore), path, O_PATH);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_OMIT}};
    int error = fd < 0 ? fd : 0;
    if (!error && (mask & ATTRIBUTE_OWNER))
        error = done(fchownat(fd, "", st->st_uid, st->st_gid, AT_EMPTY_PATH));
    if (!error && (mask & ATTRIBUTE_MODE))
        error = change_mode(fd, st->st_mode);
    if (mask & ATTRIBUTE_ATIME)
        times[0] = st->st_atim;
    if (mask & ATTRIBUTE_MTIME)
        times[1] = st->st_mtim;
    if (!error && (mask & (ATTRIBUTE_ATIME | ATTRIBUTE_MTIME)))
        error = done(utimensat(fd, "", times, AT_EMPTY_PATH));
    return error;
}

static bool is_ours(const char *name)
{
    return strncmp(name, XATTR_SPACE, strlen(XATTR_SPACE)) == 0;
}

static ssize_t get_xattr(struct datastore *datastore, const char *path, const char *name, void *value, size_t size)
{
    char proc[PROC_FD_MAX];
    auto_close int fd = local_resolve(datastore->state, path, O_PATH);
    if (fd < 0 || !is_ours(name))
        return fd < 0 ? fd : -EOPNOTSUPP;
    ssize_t length = getxattr(local_proc_fd(proc, fd), name, value, size);
    return length < 0 ? -errno : length;
}

static int set_xattr(
    struct datastore *datastore, const char *path, const char *name, const void *value, size_t size, int flags)
{
    char proc[PROC_FD_MAX];
    auto_close int fd = local_resolve(to_change(datastore), path, O_PATH);
    if (fd < 0 || !is_ours(name))
        return fd < 0 ? fd : -EOPNOTSUPP;
    return done(setxattr(local_proc_fd(proc, fd), name, value, size, flags));
}

static int remove_xattr(struct datastore *datastore, const char *path, const char *name)
{
    char proc[PROC_FD_MAX];
    auto_close int fd = local_resolve(to_change(datastore), path, O_PATH);
    if (fd < 0 || !is_ours(name))
        return fd < 0 ? fd : -EOPNOTSUPP;
    return done(removexattr(local_proc_fd(proc, fd), name));
}

static ssize_t list_xattr(struct datastore *datastore, const char *path, char *out, size_t size)
{
    char proc[PROC_FD_MAX];
    auto_close int fd = local_resolve(datastore->state, path, O_PATH);
    auto_free char *all = fd < 0 ? NULL : malloc(XATTR_LIST_MAX);
    if (!all)
        return fd < 0 ? fd : -ENOMEM;
    ssize_t length = listxattr(local_proc_fd(proc, fd), all, XATTR_LIST_MAX);
    if (length < 0)
        return -errno;
    size_t used = 0;
    for (const char *name = all; name < all + length; name += strlen(name) + 1) {
        size_t bytes = strlen(name) + 1;
        if (!is_ours(name))
            continue;
        if (size && used + bytes > size)
            return -ERANGE;
        if (size)
            memcpy(out + used, name, bytes);
        used += bytes;
    }
    return (ssize_t)used;
}

static int sync_directory(struct datastore *datastore, const char *path)
{
    const char *leaf;
    auto_close int fd = *path ? resolve_parent(datastore->state, path, O_RDONLY, &leaf)
                              : local_resolve(datastore->state, path, O_RDONLY | O_DIRECTORY);
    return fd < 0 ? fd : done(fsync(fd));
}

const struct datastore_ops backend_local = {
    .scheme = "local",
    .open = open_local,
    .close = close_local,
    .statfs = statfs_local,
    .lookup = lookup,
    .list = list,
    .create = create,
    .rename = rename_local,
    .remove = remove_local,
    .readlink = readlink_local,
    .set_attributes = set_attributes,
    .get_xattr = get_xattr,
    .set_xattr = set_xattr,
    .list_xattr = list_xattr,
    .remove_xattr = remove_xattr,
    .sync_directory = sync_directory,
    .open_image = local_open_image,
};
