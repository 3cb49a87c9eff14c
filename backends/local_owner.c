/* Who may use a directory. Two claims, because each sees what the other cannot: a flock on the root, which the kernel
 * gives up with the process, for this machine; an owner's record in .svmfs/owner for others that share the directory (a
 * network or cluster filesystem).
 *
 * A claim is a new file renamed over the record; a beat is written in place, through the descriptor that the record was
 * read from, so that a beat that comes late (a server that hung) lands in a file that no name leads to any more. Where
 * the filesystem is full the claim is written in place, too; where not even that can be, or the directory is read-only,
 * nothing is claimed by a record. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/local.h"
#include "backends/owner.h"
#include "base/cleanup.h"
#include "base/log.h"

#define RECORD "owner"

/* The owner's place. Its own memory: a heart that hangs may outlive the datastore. */
struct local_claim {
    struct local *local; /* NULL: closed */
    struct owner *owner;
    _Atomic bool lost;
    int lock;       /* holds the flock; -1: none */
    int directory;  /* .svmfs */
    int record;     /* the file that was read last; -1: none */
    char fresh[64]; /* the name of a record to come */
};

static ssize_t read_record(void *argument, char *text)
{
    struct local_claim *claim = argument;
    struct stat st;
    if (claim->record >= 0)
        close(claim->record);
    claim->record = openat(claim->directory, RECORD, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (claim->record < 0)
        return -errno;
    if (fstat(claim->record, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    ssize_t length = pread(claim->record, text, OWNER_RECORD, 0);
    return length < 0 ? -errno : length;
}

static int write_in_place(struct local_claim *claim, const char *text, size_t length)
{
    ssize_t written = claim->record < 0 ? 0 : pwrite(claim->record, text, length, 0);
    if (written < 0)
        return -errno;
    return (size_t)written == length ? 0 : -EIO;
}

/* It is sent on its way at once, for those who share a server's file, and not waited for: a process that dies in the
 * middle of a sync can only be reaped when that has ended. */
static int write_beat(void *argument, const char *text, size_t length)
{
    struct local_claim *claim = argument;
    int error = write_in_place(claim, text, length);
    if (!error)
        sync_file_range(claim->record, 0, 0, SYNC_FILE_RANGE_WRITE);
    return error;
}

static int write_fresh(const struct local_claim *claim, const char *text, size_t length)
{
    unlinkat(claim->directory, claim->fresh, 0);
    auto_close int fd = openat(claim->directory, claim->fresh, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    ssize_t written = write(fd, text, length);
    if (written < 0)
        return -errno;
    if ((size_t)written != length)
        return -ENOSPC;
    return fsync(fd) < 0 ? -errno : 0;
}

static int write_record(void *argument, const char *text, size_t length)
{
    struct local_claim *claim = argument;
    int error = write_fresh(claim, text, length);
    if (!error && renameat(claim->directory, claim->fresh, claim->directory, RECORD) < 0)
        error = -errno;
    if (error) {
        unlinkat(claim->directory, claim->fresh, 0);
        bool full = error == -ENOSPC || error == -EDQUOT;
        if (!full || claim->record < 0)
            return error;
        error = write_in_place(claim, text, length);
        return error ? error : fdatasync(claim->record) < 0 ? -errno : 0;
    }
    return fsync(claim->directory) < 0 ? -errno : 0;
}

static void lost(void *argument, const char *sentence)
{
    struct local_claim *claim = argument;
    atomic_store(&claim->lost, true);
}

bool local_is_lost(const struct local *local)
{
    return local->claim && atomic_load_explicit(&local->claim->lost, memory_order_relaxed);
}

/* ---- claiming ---- */

/* Where the filesystem knows no such locks nothing is locked. */
static int take_lock(struct local_claim *claim)
{
    claim->lock = openat(claim->local->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (claim->lock < 0)
        return -errno;
    return flock(claim->lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK ? -EBUSY : 0;
}

/* Made where it can be made; -EROFS and the like: nothing is claimed by a record. */
static int open_directory(struct local_claim *claim)
{
    int root = claim->local->root;
    if (mkdirat(root, DATASTORE_PRIVATE, 0700) < 0 && errno != EEXIST)
        return -errno;
    claim->directory = local_resolve(claim->local, DATASTORE_PRIVATE, O_RDONLY | O_DIRECTORY);
    if (claim->directory < 0)
        return claim->directory;
    return faccessat(claim->directory, ".", W_OK, AT_EACCESS) < 0 ? -errno : 0;
}

static bool cannot_be_written(int error)
{
    return error == -EROFS || error == -EACCES || error == -EPERM || error == -ENOSPC || error == -EDQUOT;
}

/* Who holds the lock that was not to be had? */
static int refuse_locked(struct local_claim *claim, const struct datastore *datastore, struct sentence *why)
{
    char text[OWNER_RECORD], whom[400];
    ssize_t length = open_directory(claim) == 0 ? read_record(claim, text) : 0;
    if (length <= 0 || owner_describe(text, (size_t)length, whom, sizeof(whom)) < 0 || strncmp(whom, "in use", 6) != 0)
        snprintf(whom, sizeof(whom), "in use by another svmfs");
    return refuse(why, -EBUSY,
        "datastore %s is %s; unmount it there, or, to take it away from that one, mount with --takeover",
        datastore->name, whom);
}

static int claim_record(struct local_claim *claim, struct datastore *datastore, struct sentence *why)
{
    const struct identity *identity = &datastore->identity;
    struct owner_place place = {
        .read = read_record, .write = write_record, .beat = write_beat, .lost = lost, .argument = claim};
    if (identity->mount == 0)
        return 0;
    snprintf(claim->fresh, sizeof(claim->fresh), RECORD "-%016" PRIx64 "-%.8s", identity->mount, identity->boot);
    int error = open_directory(claim);
    if (!error)
        error = owner_claim(&claim->owner, datastore, &place, &datastore->stopping, why);
    if (cannot_be_written(error)) {
        log_warning("datastore %s: no owner's record can be kept in it (%s): another host that uses it is not noticed",
            datastore->name, error_text(error));
        error = 0;
    }
    return error;
}

static void free_claim(struct local_claim *claim)
{
    if (claim->record >= 0)
        close(claim->record);
    if (claim->directory >= 0)
        close(claim->directory);
    free(claim);
}

void local_unclaim(struct local *local)
{
    struct local_claim *claim = local->claim;
    if (!claim)
        return;
    local->claim = NULL;
    bool over = owner_release(claim->owner);
    if (claim->lock >= 0)
        close(claim->lock);
    if (over)
        free_claim(claim);
}

/* A takeover goes on without the lock: who has it learns from the record that it has lost. */
int local_claim(struct datastore *datastore, struct local *local, struct sentence *why)
{
    struct local_claim *claim = calloc(1, sizeof(*claim));
    if (!claim)
        return -ENOMEM;
    *claim = (struct local_claim){.local = local, .lock = -1, .directory = -1, .record = -1};
    local->claim = claim;
    int error = take_lock(claim);
    if (error == -EBUSY && datastore->identity.takeover && datastore->identity.mount != 0)
        error = 0;
    if (error == -EBUSY)
        error = refuse_locked(claim, datastore, why);
    if (!error)
        error = claim_record(claim, datastore, why);
    if (error)
        local_unclaim(local);
    return error;
}
