#include "fs/session.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define HANDLES    65536u
#define SLOTS_MIN  128u
#define CHUNKS_MIN (4 * SLOT_CHUNKS)
#define CLAIMED    UINT64_MAX /* a handle's nodeid while its other fields are written */

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

/* Where everything stands follows from four counts; a table whose offsets say otherwise is not ours. */
static void lay_out(struct session_head *head)
{
    head->head_size = sizeof(*head);
    head->slot_size = SLOT_SIZE;
    head->handle_size = sizeof(struct session_handle);
    head->handles_offset = round_up(sizeof(*head), FUSE_PAGE);
    head->slots_offset = round_up(head->handles_offset + (uint64_t)head->handles * head->handle_size, FUSE_PAGE);
    head->chunks_offset = head->slots_offset + (uint64_t)head->reactors * head->slots * SLOT_SIZE;
    head->size = head->chunks_offset + (uint64_t)head->reactors * head->chunks * CHUNK_SIZE;
}

/* Not in a core: a dump of the buffers would prolong a restart. Not in children: a fork would take the pages' lock
 * away. */
static int map(struct session *session, uint64_t size)
{
    void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, session->fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    madvise(base, size, MADV_DONTDUMP);
    madvise(base, size, MADV_DONTFORK);
    session->base = base;
    session->head = base;
    return 0;
}

int session_create(struct session *session, unsigned reactors, uint64_t buffers_per_reactor)
{
    if (reactors == 0 || reactors > REACTORS_MAX)
        return -EINVAL;
    uint64_t chunks = buffers_per_reactor / CHUNK_SIZE;
    if (chunks > UINT32_MAX / 4)
        return -EINVAL;
    struct session_head head = {
        .version = SESSION_VERSION,
        .reactors = reactors,
        .chunks = chunks < CHUNKS_MIN ? CHUNKS_MIN : (uint32_t)chunks,
        .slots = chunks * 2 < SLOTS_MIN ? SLOTS_MIN : (uint32_t)chunks * 2,
        .handles = HANDLES,
    };
    lay_out(&head);
    *session = (struct session){.fd = memfd_create("svmfs-session", MFD_CLOEXEC)};
    if (session->fd < 0)
        return -errno;
    int error = ftruncate(session->fd, (off_t)head.size) < 0 ? -errno : map(session, head.size);
    if (error) {
        close(session->fd);
        session->fd = -1;
        return error;
    }
    *session->head = head;
    session->head->magic = SESSION_MAGIC;
    return 0;
}

static bool acceptable(const struct session_head *head, uint64_t length)
{
    if (head->magic != SESSION_MAGIC || head->version != SESSION_VERSION || head->features != 0)
        return false;
    if (head->reactors == 0 || head->reactors > REACTORS_MAX || head->slots == 0 || head->chunks < SLOT_CHUNKS)
        return false;
    struct session_head same = *head;
    lay_out(&same);
    return same.head_size == head->head_size && same.slot_size == head->slot_size &&
           same.handle_size == head->handle_size && same.handles_offset == head->handles_offset &&
           same.slots_offset == head->slots_offset && same.chunks_offset == head->chunks_offset &&
           same.size == head->size && head->size == length;
}

int session_accepts(int fd, struct sentence *why)
{
    struct session_head head = {0};
    struct stat st;
    if (fstat(fd, &st) < 0 || pread(fd, &head, sizeof(head), 0) < 0)
        return refuse(why, -errno, "the session's memory cannot be read: %s", error_text(errno));
    if (head.magic != SESSION_MAGIC)
        return refuse(why, -EPROTO, "what it was given is no session's memory");
    if (head.version != SESSION_VERSION)
        return refuse(why, -EPROTO,
            "the mount's session is of version %u, this program's of version %u: umount and mount "
            "again to change to it",
            head.version, SESSION_VERSION);
    if (!acceptable(&head, (uint64_t)st.st_size))
        return refuse(why, -EPROTO,
            "the mount's session has sizes or features that this program does not know: umount and "
            "mount again to change to it");
    return 0;
}

/* A record lock: it is the process's, and goes when its last thread has gone. */
static struct flock whole(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
}

int session_own(int fd)
{
    struct flock lock = whole(F_WRLCK);
    if (fcntl(fd, F_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
}

pid_t session_owner(int fd)
{
    struct flock lock = whole(F_WRLCK);
    return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

/* A worker that died between claiming a handle and publishing it. */
static void drop_claims(struct session *session)
{
    struct session_handle *handles = (void *)(session->base + session->head->handles_offset);
    for (uint64_t i = 0; i < session->head->handle_top; i++)
        if (handles[i].nodeid == CLAIMED)
            handles[i].nodeid = 0;
}

int session_map_keeper(struct session *session, int fd)
{
    struct session_head head;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (pread(fd, &head, sizeof(head), 0) != (ssize_t)sizeof(head) || !acceptable(&head, (uint64_t)st.st_size))
        return -EPROTO;
    *session = (struct session){.fd = fd};
    return map(session, head.size);
}

int session_map(struct session *session, int fd)
{
    int error = session_map_keeper(session, fd);
    if (!error)
        drop_claims(session);
    return error;
}

void session_unmap(struct session *session)
{
    if (session->base)
        munmap(session->base, session->head->size);
    session->base = NULL;
    session->head = NULL;
}

void session_keep_head(struct session *session)
{
    uint64_t keep = session->head->handles_offset;
    munmap(session->base + keep, session->head->size - keep);
}

struct slot *session_slot(const struct session *session, unsigned reactor, unsigned index)
{
    const struct session_head *head = session->head;
    return (struct slot *)(session->base + head->slots_offset + ((uint64_t)reactor * head->slots + index) * SLOT_SIZE);
}

uint8_t *session_chunk(const struct session *session, unsigned reactor, unsigned index)
{
    const struct session_head *head = session->head;
    return session->base + head->chunks_offset + ((uint64_t)reactor * head->chunks + index) * CHUNK_SIZE;
}

/* Kernels before 5.14 cannot populate by advice: then each page is touched, its content kept. */
static int touch(uint8_t *start, size_t length)
{
    for (size_t i = 0; i < length; i += FUSE_PAGE)
        atomic_fetch_or((_Atomic uint8_t *)(start + i), 0);
    return 0;
}

int session_populate(const struct session *session, void *start, size_t length)
{
    if (madvise(start, length, MADV_POPULATE_WRITE) < 0) {
        if (errno != EINVAL)
            return -errno;
        touch(start, length);
    }
    if (mlock(start, length) < 0)
        log_debug("request buffers cannot be locked in memory: %s", strerror(errno));
    return 0;
}

static struct session_handle *handle_at(const struct session *session, uint64_t fh)
{
    return (struct session_handle *)(session->base + session->head->handles_offset) + fh;
}

int64_t session_handle_open(const struct session *session, uint64_t nodeid, uint32_t flags)
{
    struct session_head *head = session->head;
    uint64_t hint = atomic_load(&head->handle_hint);
    for (uint32_t n = 0; n < head->handles; n++) {
        uint64_t fh = (hint + n) % head->handles;
        struct session_handle *handle = handle_at(session, fh);
        uint64_t expected = 0;
        if (atomic_load(&handle->nodeid) != 0)
            continue;
        /* top first: a claim that stays behind must be found by the next worker */
        uint64_t top = atomic_load(&head->handle_top);
        while (top <= fh && !atomic_compare_exchange_weak(&head->handle_top, &top, fh + 1))
            ;
        if (!atomic_compare_exchange_strong(&handle->nodeid, &expected, CLAIMED))
            continue;
        handle->flags = flags;
        atomic_store(&handle->nodeid, nodeid);
        atomic_store(&head->handle_hint, fh + 1);
        return (int64_t)fh;
    }
    return -ENFILE;
}

void session_handle_close(const struct session *session, uint64_t fh)
{
    if (fh >= session->head->handles)
        return;
    atomic_store(&handle_at(session, fh)->nodeid, 0);
    if (fh < atomic_load(&session->head->handle_hint))
        atomic_store(&session->head->handle_hint, fh);
}

struct session_handle *session_handle_get(const struct session *session, uint64_t fh)
{
    if (fh >= session->head->handles)
        return NULL;
    struct session_handle *handle = handle_at(session, fh);
    uint64_t nodeid = atomic_load(&handle->nodeid);
    return nodeid == 0 || nodeid == CLAIMED ? NULL : handle;
}

bool session_handle_any(const struct session *session, uint64_t nodeid)
{
    uint64_t top = atomic_load(&session->head->handle_top);
    for (uint64_t fh = 0; fh < top && fh < session->head->handles; fh++)
        if (atomic_load(&handle_at(session, fh)->nodeid) == nodeid)
            return true;
    return false;
}
