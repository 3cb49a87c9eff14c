#include "migrate/journal_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "migrate/journal.h"
#include "migrate/journal_faults.h"

struct directory {
    struct journal_files files;
    int fd;
    struct journal_faults *faults; /* NULL: none */
};

struct journal_file {
    struct directory *directory;
    int fd;
};

static struct directory *directory_of(struct journal_files *files)
{
    return container_of(files, struct directory, files);
}

static int posix_open(struct journal_files *files, const char *name, bool make, struct journal_file **out)
{
    struct directory *directory = directory_of(files);
    int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | (make ? O_CREAT | O_TRUNC : 0);
    int error = journal_fault(directory->faults, JOURNAL_OPEN);
    if (error)
        return error;
    struct journal_file *file = malloc(sizeof(*file));
    if (!file)
        return -ENOMEM;
    *file = (struct journal_file){directory, openat(directory->fd, name, flags, 0600)};
    if (file->fd < 0) {
        error = -errno;
        free(file);
        return error;
    }
    *out = file;
    return 0;
}

static int64_t posix_length(struct journal_file *file)
{
    struct stat st;
    return fstat(file->fd, &st) < 0 ? -errno : (int64_t)st.st_size;
}

static int64_t posix_read(struct journal_file *file, void *bytes, size_t length, uint64_t at)
{
    size_t done = 0;
    int error = journal_fault(file->directory->faults, JOURNAL_READ);
    while (!error && done < length) {
        ssize_t got = pread(file->fd, (char *)bytes + done, length - done, (off_t)(at + done));
        if (got == 0)
            break;
        if (got > 0)
            done += (size_t)got;
        else if (errno != EINTR)
            error = -errno;
    }
    return error ? error : (int64_t)done;
}

static int posix_write(struct journal_file *file, const void *bytes, size_t length, uint64_t at)
{
    int error = journal_fault(file->directory->faults, JOURNAL_WRITE);
    for (size_t done = 0; !error && done < length;) {
        ssize_t put = pwrite(file->fd, (const char *)bytes + done, length - done, (off_t)(at + done));
        if (put > 0)
            done += (size_t)put;
        else if (put == 0)
            error = -EIO;
        else if (errno != EINTR)
            error = -errno;
    }
    return error;
}

static int posix_sync(struct journal_file *file)
{
    int error = journal_fault(file->directory->faults, JOURNAL_SYNC);
    return error ? error : fdatasync(file->fd) < 0 ? -errno : 0;
}

static void posix_close(struct journal_file *file)
{
    close(file->fd);
    free(file);
}

static int posix_rename(struct journal_files *files, const char *from, const char *to)
{
    struct directory *directory = directory_of(files);
    int error = journal_fault(directory->faults, JOURNAL_RENAME);
    return error ? error : renameat(directory->fd, from, directory->fd, to) < 0 ? -errno : 0;
}

static int posix_remove(struct journal_files *files, const char *name)
{
    struct directory *directory = directory_of(files);
    int error = journal_fault(directory->faults, JOURNAL_REMOVE);
    return error ? error : unlinkat(directory->fd, name, 0) < 0 ? -errno : 0;
}

static int posix_sync_directory(struct journal_files *files)
{
    struct directory *directory = directory_of(files);
    int error = journal_fault(directory->faults, JOURNAL_DIRECTORY);
    return error ? error : fsync(directory->fd) < 0 ? -errno : 0;
}

static int posix_list(struct journal_files *files, void (*found)(void *argument, const char *name), void *argument)
{
    int fd = openat(directory_of(files)->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream) {
        int error = -errno;
        if (fd >= 0)
            close(fd);
        return error;
    }
    for (struct dirent *entry; (errno = 0, entry = readdir(stream));)
        found(argument, entry->d_name);
    int error = -errno;
    closedir(stream);
    return error;
}

static void posix_free(struct journal_files *files)
{
    struct directory *directory = directory_of(files);
    close(directory->fd);
    journal_faults_close(directory->faults);
    free(directory);
}

static const struct journal_files_ops posix_ops = {
    .open = posix_open,
    .length = posix_length,
    .read = posix_read,
    .write = posix_write,
    .sync = posix_sync,
    .close = posix_close,
    .rename = posix_rename,
    .remove = posix_remove,
    .sync_directory = posix_sync_directory,
    .list = posix_list,
    .free = posix_free,
};

/* A new directory is durable before a journal in it is. */
static int make_directory(const char *path)
{
    if (mkdir(path, 0700) < 0)
        return errno == EEXIST ? 0 : -errno;
    auto_free char *above = NULL;
    if (asprintf(&above, "%s/..", path) < 0) {
        above = NULL;
        return -ENOMEM;
    }
    auto_close int fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int journal_files_open(struct journal_files **out, const char *path, const char *faults, struct sentence *why)
{
    int error = make_directory(path);
    int fd = error ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        error = error ? error : -errno;
        return refuse(why, error,
            "the directory %s of the jobs' journals cannot be used: %s; make it a directory that svmfs "
            "may write, or set another state directory",
            path, error_text(error));
    }
    struct directory *directory = calloc(1, sizeof(*directory));
    if (directory) {
        directory->files.ops = &posix_ops;
        directory->fd = fd;
        directory->faults = faults ? journal_faults_open(faults) : NULL;
    }
    if (!directory || (faults && !directory->faults)) {
        close(fd);
        free(directory);
        return refuse(why, -ENOMEM, "no memory for the journals of %s", path);
    }
    *out = &directory->files;
    return 0;
}

struct journal_files *journal_files_get(struct journal_files *files)
{
    atomic_fetch_add(&files->others, 1);
    return files;
}

void journal_files_close(struct journal_files *files)
{
    if (files && atomic_fetch_sub(&files->others, 1) == 0)
        files->ops->free(files);
}
