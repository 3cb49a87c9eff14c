/* A file of a filesystem with a journal is not just forgotten: its blocks are given back, hundreds of microseconds a
 * MiB on some disks, in transactions that others wait for: a guest whose write has to note the time of its file stands still
 * as long. So what is removed is unlinked first, and then cut off piece by piece, each as long as takes about a
 * millisecond, by a thread of its own: whoever removes a file does not wait for its blocks.
 *
 * They are as good as free from then on: statfs counts those that are still to come (cutter_owed), and who finds the
 * filesystem full meanwhile waits for a piece and tries again (cutter_wait). One file is cut at a time; who removes another
 * meanwhile cuts it himself, so that what a worker's death leaves the kernel to do is bounded.
 *
 * Only a file that nobody else has open, here or in another process, may be cut: for others it lives on. A write lease is
 * given just then, and is no more there when somebody came. What is open is unlinked and left to its last close; so is it where
 * there are no leases. A death in between leaves the rest to the kernel. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/local.h"
#include "base/cleanup.h"
#include "base/clock.h"

#define PIECE_LEAST (1ull << 20)
#define PIECE_MOST  (1ull << 34)
#define PIECE_NS    NS_PER_MS

/* The file, with a lease if nobody else has it open; -1: not worth it. */
static int open_alone(int parent, const char *leaf)
{
    struct stat st;
    if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode) || st.st_size <= (off_t)PIECE_LEAST)
        return -1;
    int fd = openat(parent, leaf, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    /* Who comes is told by a signal that nobody minds. */
    if (fd >= 0 && fcntl(fd, F_SETSIG, SIGURG) == 0)
        fcntl(fd, F_SETLEASE, F_WRLCK);
    return fd;
}

static bool is_forgotten(int fd, struct stat *st)
{
    bool alone = fcntl(fd, F_GETLEASE) == F_WRLCK;
    return fcntl(fd, F_SETLEASE, F_UNLCK) == 0 && alone && fstat(fd, st) == 0 && S_ISREG(st->st_mode) &&
           st->st_nlink == 0;
}

/* The cutter's own thread tells how far it is. */
static void note(struct cutter *cutter)
{
    pthread_mutex_lock(&cutter->mutex);
    cutter->pieces++;
    pthread_cond_broadcast(&cutter->changed);
    pthread_mutex_unlock(&cutter->mutex);
}

static void cut(int fd, const struct stat *st, struct cutter *cutter)
{
    uint64_t size = (uint64_t)st->st_size, end = size, piece = PIECE_LEAST;
    uint64_t blocks = (uint64_t)st->st_blocks * 512;
    while (end > 0) {
        uint64_t began = clock_now();
        end -= end < piece ? end : piece;
        if (cutter) /* before it is so: never more than there is */
            atomic_store(&cutter->owed, (uint64_t)((double)blocks * (double)end / (double)size));
        if (ftruncate(fd, (off_t)end) < 0)
            return;
        if (cutter)
            note(cutter);
        uint64_t took = clock_now() - began;
        if (took < PIECE_NS / 2 && piece < PIECE_MOST)
            piece *= 2;
        else if (took > PIECE_NS && piece > PIECE_LEAST)
            piece /= 2;
    }
}

static void cut_later(struct work *work)
{
    struct cutter *cutter = container_of(work, struct cutter, work);
    cut(cutter->fd, &cutter->file, cutter);
    close(cutter->fd); /* what could not be cut goes with it */
    atomic_store(&cutter->owed, 0);
    pthread_mutex_lock(&cutter->mutex);
    cutter->pieces++;
    cutter->busy = false;
    pthread_cond_broadcast(&cutter->changed);
    pthread_mutex_unlock(&cutter->mutex);
}

int cutter_open(struct cutter *cutter, const char *name)
{
    *cutter = (struct cutter){.work.run = cut_later};
    int error = pool_open(&cutter->pool, name, 1);
    if (error)
        return error;
    pthread_mutex_init(&cutter->mutex, NULL);
    pthread_cond_init(&cutter->changed, NULL);
    return 0;
}

void cutter_close(struct cutter *cutter)
{
    pool_close(cutter->pool);
    pthread_cond_destroy(&cutter->changed);
    pthread_mutex_destroy(&cutter->mutex);
}

uint64_t cutter_owed(const struct cutter *cutter)
{
    return atomic_load(&cutter->owed);
}

bool cutter_wait(struct cutter *cutter)
{
    pthread_mutex_lock(&cutter->mutex);
    bool waits = cutter->busy;
    for (uint64_t pieces = cutter->pieces; cutter->busy && cutter->pieces == pieces;)
        pthread_cond_wait(&cutter->changed, &cutter->mutex);
    pthread_mutex_unlock(&cutter->mutex);
    return waits;
}

/* False: another file is being cut. */
static bool take(struct cutter *cutter, int fd, const struct stat *st)
{
    pthread_mutex_lock(&cutter->mutex);
    bool free = !cutter->busy;
    if (free) {
        cutter->busy = true;
        cutter->fd = fd;
        cutter->file = *st;
        atomic_store(&cutter->owed, (uint64_t)st->st_blocks * 512);
    }
    pthread_mutex_unlock(&cutter->mutex);
    return free;
}

int local_unlink(struct cutter *cutter, int parent, const char *leaf)
{
    struct stat st;
    auto_close int fd = open_alone(parent, leaf);
    if (unlinkat(parent, leaf, 0) < 0)
        return -errno;
    if (fd < 0 || !is_forgotten(fd, &st))
        return 0;
    if (take(cutter, fd, &st)) {
        fd = -1;
        pool_run(cutter->pool, &cutter->work);
    } else {
        cut(fd, &st, NULL);
    }
    return 0;
}
