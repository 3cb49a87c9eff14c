/* For LD_PRELOAD: the disk under the catalog fails or hangs at a commit's sync, with the record on it or without.
 *
 * COMMIT_FAULT=FILE in the environment names a rule, which may come and go (by a rename) at any time:
 *
 *   fail kept    the sync of a commit is done and then answered with EIO, until the file is gone
 *   fail lost    what the transaction wrote to the log is taken back, and the sync is answered with EIO
 *   hang kept    the sync of one commit is done and answered when FILE.hangs, which FILE becomes, is gone
 *   hang lost    as "fail lost", but the answer comes when FILE.hangs is gone, after all was written and synced after all
 *   hang lost error, hang kept error    the answer is EIO then, and nothing more is written
 *   every        each sync of the catalog's files is answered with EIO
 *
 * FILE.log gets a line at each of these. A transaction is what was written to SQLite's write-ahead log between two frames
 * that commit; one that nobody syncs (names and times) is none of a commit's. */
#undef _FILE_OFFSET_BITS /* both names of pwrite are defined here */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FRAME_HEADER = 24, LOG_HEADER = 32, PIECES = 4096, LOOK_US = 5000 };

struct piece {
    off64_t at;
    size_t length, old_length;
    uint8_t *bytes, *old;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct piece pieces[PIECES];
static unsigned count;
static off64_t size_before;
static bool last_page, whole; /* the next write ends the transaction; it has ended, and is not synced yet */

static ssize_t write_there(int fd, const void *bytes, size_t length, off64_t at)
{
    return syscall(SYS_pwrite64, fd, bytes, length, at);
}

static bool is_file(int fd, const char *end)
{
    char link[64], path[4096];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof(path) - 1);
    size_t wanted = strlen(end);
    return length >= (ssize_t)wanted && memcmp(path + length - wanted, end, wanted) == 0;
}

static void forget(void)
{
    while (count > 0) {
        count--;
        free(pieces[count].bytes);
        free(pieces[count].old);
    }
    whole = false;
}

static void note(int fd, const uint8_t *bytes, size_t length, off64_t at)
{
    struct stat64 st;
    if (whole)
        forget();
    if (count == 0)
        size_before = fstat64(fd, &st) == 0 ? st.st_size : 0;
    if (count == PIECES)
        abort();
    struct piece *piece = &pieces[count++];
    *piece = (struct piece){.at = at, .length = length, .bytes = malloc(length), .old = malloc(length)};
    if (!piece->bytes || !piece->old)
        abort();
    memcpy(piece->bytes, bytes, length);
    ssize_t got = syscall(SYS_pread64, fd, piece->old, length, at);
    piece->old_length = got < 0 ? 0 : (size_t)got;
    if (last_page)
        whole = true;
    last_page = !whole && length == FRAME_HEADER && at >= LOG_HEADER && (bytes[4] | bytes[5] | bytes[6] | bytes[7]);
}

static void take_back(int fd)
{
    for (unsigned i = count; i > 0; i--)
        write_there(fd, pieces[i - 1].old, pieces[i - 1].old_length, pieces[i - 1].at);
    if (ftruncate64(fd, size_before) < 0)
        abort();
}

static void write_again(int fd)
{
    for (unsigned i = 0; i < count; i++)
        write_there(fd, pieces[i].bytes, pieces[i].length, pieces[i].at);
}

static bool read_rule(char *rule, size_t size)
{
    const char *file = getenv("COMMIT_FAULT");
    int fd = file ? open(file, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t got = fd < 0 ? -1 : read(fd, rule, size - 1);
    if (fd >= 0)
        close(fd);
    rule[got < 0 ? 0 : got] = '\0';
    rule[strcspn(rule, "\n")] = '\0';
    return rule[0];
}

static void tell(const char *rule, const char *what)
{
    char path[4096], line[128];
    snprintf(path, sizeof(path), "%s.log", getenv("COMMIT_FAULT"));
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int length = snprintf(line, sizeof(line), "%d %s%s\n", (int)getpid(), rule, what);
    if (fd < 0 || write(fd, line, (size_t)length) < 0)
        abort();
    close(fd);
}

static void hang(const char *rule)
{
    char path[4096];
    const char *file = getenv("COMMIT_FAULT");
    snprintf(path, sizeof(path), "%s.hangs", file);
    rename(file, path);
    tell(rule, "");
    while (access(path, F_OK) == 0)
        usleep(LOOK_US);
    tell(rule, ": over");
}

/* Under the mutex. What the sync is answered; 1: it is to be done. */
static int act(int fd, const char *rule)
{
    bool hangs = strncmp(rule, "hang", 4) == 0, lost = strstr(rule, " lost");
    if (lost)
        take_back(fd);
    else if (syscall(SYS_fdatasync, fd) < 0)
        return -1;
    if (hangs)
        hang(rule);
    else
        tell(rule, "");
    if (hangs && !strstr(rule, " error")) {
        if (lost)
            write_again(fd);
        return 1;
    }
    errno = EIO;
    return -1;
}

static int synced(int fd, long call)
{
    char rule[64];
    int result = 1;
    bool log = is_file(fd, "/catalog.db-wal");
    if (!log && !is_file(fd, "/catalog.db"))
        return (int)syscall(call, fd);
    pthread_mutex_lock(&mutex);
    bool ruled = read_rule(rule, sizeof(rule));
    if (ruled && strcmp(rule, "every") == 0) {
        tell(rule, "");
        errno = EIO;
        result = -1;
    } else if (ruled && log && whole) {
        result = act(fd, rule);
    }
    int error = errno;
    if (result == 1) {
        result = (int)syscall(call, fd);
        error = errno;
    }
    if (log)
        forget();
    pthread_mutex_unlock(&mutex);
    errno = error;
    return result;
}

int fdatasync(int fd)
{
    return synced(fd, SYS_fdatasync);
}

int fsync(int fd)
{
    return synced(fd, SYS_fsync);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
    if (!is_file(fd, "/catalog.db-wal"))
        return write_there(fd, bytes, length, at);
    pthread_mutex_lock(&mutex);
    note(fd, bytes, length, at);
    pthread_mutex_unlock(&mutex);
    return write_there(fd, bytes, length, at);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at)
{
    return pwrite64(fd, bytes, length, at);
}
