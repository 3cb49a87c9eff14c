/* An image that is a file of a local filesystem.
 *
 * A direct, aligned READ or WRITE goes through the reactor's own queue of asynchronous I/O, with RWF_NOWAIT: submission
 * may not block the reactor (law 14). What the kernel refuses because it would have to wait (a block that must be
 * allocated, the inode's lock, a queue that is full) is done again by the datastore's pool with blocking calls. So is
 * everything else: buffered and unaligned I/O, FLUSH, ZERO, RESIZE. An image that refuses many writes in a row, a fresh
 * target for instance, is not asked for each of them.
 *
 * Two descriptors: one with O_DIRECT, if the filesystem has it, and one that uses the page cache. The kernel keeps the
 * two coherent but for one case: a buffered write that makes a page dirty while a direct write into the same page (or
 * large folio) is in flight can write the page's older bytes back over the newer ones. Therefore the writes in flight
 * of an image are all direct or all buffered: a write of the other kind is parked until those before it have ended
 * (struct phase). Nobody waits in a thread for that, and writes of one kind, the usual case, never notice.
 *
 * Fence: writes of a dead process are gone when it is reaped, since all of them are pwrite or libaio; writes that this
 * process gave up on are gone when they have ended here, which struct fence counts.
 *
 * Not done here: order of overlapping requests (the region lock's), size and emulation (the checked middle's). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backends/fence.h"
#include "backends/local.h"
#include "backends/split.h"
#include "base/cleanup.h"

#define MAX_TRANSFER   (1u << 20)
#define IOVS           64   /* of one preadv or pwritev of the pool */
#define PENALTY_MAX    16   /* writes sent straight to the pool after refusals in a row */
#define DEFAULT_BLOCK  4096 /* alignment where the kernel does not tell */
#define SMALLEST_BLOCK 512

enum kind { KIND_BUFFERED, KIND_DIRECT };

struct phase {
    pthread_mutex_t mutex;
    enum kind kind;
    uint32_t in_flight;
    struct list parked; /* io.work.link, in order of arrival */
};

struct local_image {
    struct image image;
    /* set at open */
    struct local *local;
    int buffered, direct; /* direct: -1 where the filesystem has none */
    /* locked inside */
    struct phase phase;
    struct fence fence;
    /* hints: any value is right */
    _Atomic bool no_nowait;
    _Atomic unsigned refusals, skip;
};

/* In io.scratch. */
struct __attribute__((may_alias)) local_request {
    struct aio_request aio;
    uint64_t moved; /* bytes done */
    uint8_t epoch, kind;
};

_Static_assert(sizeof(struct local_request) <= sizeof(((struct io *)NULL)->scratch), "io.scratch is too small");

static struct local_image *image_of(const struct io *io)
{
    return container_of(io->image, struct local_image, image);
}

static struct local_request *request_of(struct io *io)
{
    return (struct local_request *)io->scratch;
}

static void phase_init(struct phase *phase)
{
    pthread_mutex_init(&phase->mutex, NULL);
    phase->kind = KIND_BUFFERED;
    phase->in_flight = 0;
    list_init(&phase->parked);
}

/* False: parked; the pool runs it when its turn has come. */
static bool phase_enter(struct phase *phase, struct io *io, enum kind kind)
{
    pthread_mutex_lock(&phase->mutex);
    bool now = phase->in_flight == 0 || (phase->kind == kind && list_empty(&phase->parked));
    if (now) {
        phase->kind = kind;
        phase->in_flight++;
    } else {
        list_append(&phase->parked, &io->work.link);
    }
    pthread_mutex_unlock(&phase->mutex);
    return now;
}

static void phase_leave(struct phase *phase, struct pool *pool)
{
    struct list turn, *link;
    list_init(&turn);
    pthread_mutex_lock(&phase->mutex);
    phase->in_flight--;
    while (!list_empty(&phase->parked)) {
        struct io *next = container_of(phase->parked.next, struct io, work.link);
        if (phase->in_flight > 0 && request_of(next)->kind != phase->kind)
            break;
        phase->kind = request_of(next)->kind;
        phase->in_flight++;
        list_remove(&next->work.link);
        list_append(&turn, &next->work.link);
    }
    pthread_mutex_unlock(&phase->mutex);
    while ((link = list_pop(&turn)))
        pool_run(pool, container_of(link, struct work, link));
}

static void finish(struct io *io, int result)
{
    struct local_image *image = image_of(io);
    if (io->verb == VERB_WRITE)
        phase_leave(&image->phase, image->image.datastore->pool);
    if (fence_counts(io->verb))
        fence_leave(&image->fence, request_of(io)->epoch);
    io_finish(io, result);
}

/* The part of io's memory that begins at byte from, at most IOVS pieces. */
static int rest_of(const struct io *io, uint64_t from, struct iovec *out)
{
    int count = 0;
    for (int i = 0; i < io->iov_count && count < IOVS; i++) {
        size_t length = io->iov[i].iov_len;
        if (from >= length) {
            from -= length;
            continue;
        }
        out[count++] = (struct iovec){(char *)io->iov[i].iov_base + from, length - from};
        from = 0;
    }
    return count;
}

static void zero_rest(const struct io *io, uint64_t from)
{
    for (int i = 0; i < io->iov_count; i++) {
        size_t length = io->iov[i].iov_len;
        if (from < length)
            memset((char *)io->iov[i].iov_base + from, 0, length - from);
        from = from < length ? 0 : from - length;
    }
}

static int transfer(struct local_image *image, struct io *io)
{
    struct local_request *request = request_of(io);
    uint64_t length = extent_length(io->extent);
    bool direct = request->kind == KIND_DIRECT;
    while (request->moved < length) {
        struct iovec iov[IOVS];
        int count = rest_of(io, request->moved, iov);
        off_t at = (off_t)(io->extent.start + request->moved);
        if (((uint64_t)at & (image->image.limits.block - 1)) != 0)
            direct = false;
        int fd = direct ? image->direct : image->buffered;
        ssize_t moved = io->verb == VERB_READ ? preadv(fd, iov, count, at) : pwritev(fd, iov, count, at);
        if (moved > 0) {
            request->moved += (uint64_t)moved;
        } else if (moved == 0) {
            if (io->verb == VERB_WRITE)
                return -EIO;
            zero_rest(io, request->moved);
            return 0;
        } else if (errno == EINVAL && direct) {
            direct = false;
        } else if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

static int write_zeroes(struct local_image *image, struct extent extent)
{
    static const char zeroes[64 << 10];
    while (!extent_empty(extent)) {
        size_t length = extent_length(extent) < sizeof(zeroes) ? extent_length(extent) : sizeof(zeroes);
        ssize_t written = pwrite(image->buffered, zeroes, length, (off_t)extent.start);
        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0)
            extent.start += (uint64_t)written;
    }
    return 0;
}

static int try_fallocate(struct local_image *image, int mode, struct extent extent)
{
    int error;
    do {
        error = fallocate(image->buffered, mode, (off_t)extent.start, (off_t)extent_length(extent)) < 0 ? -errno : 0;
    } while (error == -EINTR);
    return error;
}

/* Never past the end, so that no space is taken beyond it and the size stays. */
static int zero(struct local_image *image, const struct io *io)
{
    struct stat st;
    if (fstat(image->buffered, &st) < 0)
        return -errno;
    struct extent extent = extent_intersect(io->extent, (struct extent){0, (uint64_t)st.st_size});
    if (extent_empty(extent))
        return 0;
    int error = -EOPNOTSUPP;
    if (io->flags & IO_MAY_UNMAP)
        error = try_fallocate(image, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, extent);
    if (error == -EOPNOTSUPP)
        error = try_fallocate(image, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, extent);
    if (error == -EOPNOTSUPP)
        error = write_zeroes(image, extent);
    return error;
}

static int map(struct local_image *image, struct io *io)
{
    off_t start = (off_t)io->extent.start;
    off_t data = lseek(image->buffered, start, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        return -errno;
    io->map_data = data == start;
    off_t change = io->map_data ? lseek(image->buffered, start, SEEK_HOLE) : data;
    if (change > start && (uint64_t)change < io->extent.end)
        io->extent.end = (uint64_t)change;
    return 0;
}

static int execute(struct local_image *image, struct io *io)
{
    switch (io->verb) {
    case VERB_READ:
    case VERB_WRITE:
        return transfer(image, io);
    case VERB_ZERO:
        return zero(image, io);
    case VERB_ALLOCATE:
        return try_fallocate(image, FALLOC_FL_KEEP_SIZE, io->extent);
    case VERB_FLUSH:
        return (io->flags & IO_DATA_ONLY ? fdatasync(image->buffered) : fsync(image->buffered)) < 0 ? -errno : 0;
    case VERB_RESIZE:
        return ftruncate(image->buffered, (off_t)io->extent.end) < 0 ? -errno : 0;
    case VERB_MAP:
        return map(image, io);
    }
    abort();
}

static bool is_forbidden(const struct local_image *image, const struct io *io)
{
    return fence_counts(io->verb) && local_is_lost(image->local);
}

static void run(struct work *work)
{
    struct io *io = container_of(work, struct io, work);
    struct local_image *image = image_of(io);
    int result;
    do {
        result = is_forbidden(image, io) ? -EIO : execute(image, io);
    } while ((result == -ENOSPC || result == -EDQUOT) && cutter_wait(&image->local->cutter));
    finish(io, result);
}

/* Each refusal in a row doubles how many of the next writes do not ask. */
static void note_refusal(struct local_image *image, long result)
{
    if (result == -EOPNOTSUPP || result == -EINVAL)
        atomic_store_explicit(&image->no_nowait, true, memory_order_relaxed);
    unsigned refusals = atomic_load_explicit(&image->refusals, memory_order_relaxed);
    if (refusals < PENALTY_MAX)
        atomic_store_explicit(&image->refusals, refusals ? refusals * 2 : 1, memory_order_relaxed);
    atomic_store_explicit(&image->skip, refusals, memory_order_relaxed);
}

static bool may_ask(struct local_image *image, const struct io *io)
{
    if (atomic_load_explicit(&image->no_nowait, memory_order_relaxed))
        return false;
    if (io->verb == VERB_READ)
        return true;
    if (io->extent.end > atomic_load_explicit(&image->image.size, memory_order_relaxed))
        return false;
    unsigned skip = atomic_load_explicit(&image->skip, memory_order_relaxed);
    if (skip > 0)
        atomic_store_explicit(&image->skip, skip - 1, memory_order_relaxed);
    return skip == 0;
}

static void aio_done(struct aio_request *aio, long result)
{
    struct local_request *request = container_of(aio, struct local_request, aio);
    struct io *io = container_of((uint64_t(*)[12])request, struct io, scratch);
    struct local_image *image = image_of(io);
    uint64_t length = extent_length(io->extent);
    if (result < 0) {
        if (io->verb == VERB_WRITE || result != -EAGAIN)
            note_refusal(image, result);
        pool_run(image->image.datastore->pool, &io->work);
        return;
    }
    if (io->verb == VERB_WRITE)
        atomic_store_explicit(&image->refusals, 0, memory_order_relaxed);
    request->moved = (uint64_t)result;
    if (request->moved < length && io->verb == VERB_READ &&
        io->extent.start + request->moved >= atomic_load_explicit(&image->image.size, memory_order_relaxed)) {
        zero_rest(io, request->moved);
        request->moved = length;
    }
    if (request->moved == length)
        finish(io, 0);
    else
        pool_run(image->image.datastore->pool, &io->work);
}

static bool is_direct(const struct local_image *image, const struct io *io)
{
    uint64_t block = image->image.limits.block, bits = 0;
    if (image->direct < 0 || !(io->flags & IO_DIRECT) || !extent_aligned(io->extent, block))
        return false;
    for (int i = 0; i < io->iov_count; i++)
        bits |= (uint64_t)(uintptr_t)io->iov[i].iov_base | io->iov[i].iov_len;
    return (bits & (block - 1)) == 0;
}

static bool ask(struct local_image *image, struct io *io)
{
    struct local_request *request = request_of(io);
    if (is_forbidden(image, io) || !may_ask(image, io))
        return false;
    request->aio.done = aio_done;
    if (extent_length(io->extent) > SPLIT_PIECE)
        return split_queue(&image->local->aio, io->reactor, &request->aio, image->direct, io->verb == VERB_WRITE,
            io->iov, io->iov_count, io->extent);
    if (io->verb == VERB_READ)
        io_prep_preadv2(
            &request->aio.iocb, image->direct, io->iov, io->iov_count, (long long)io->extent.start, RWF_NOWAIT);
    else
        io_prep_pwritev2(
            &request->aio.iocb, image->direct, io->iov, io->iov_count, (long long)io->extent.start, RWF_NOWAIT);
    return aio_queue(&image->local->aio, io->reactor, &request->aio, extent_length(io->extent));
}

static void submit(struct image *base, struct io *io)
{
    struct local_image *image = container_of(base, struct local_image, image);
    struct local_request *request = request_of(io);
    bool moves = io->verb == VERB_READ || io->verb == VERB_WRITE;
    io->work.run = run;
    request->moved = 0;
    request->kind = moves && is_direct(image, io) ? KIND_DIRECT : KIND_BUFFERED;
    if (fence_counts(io->verb))
        request->epoch = (uint8_t)fence_enter(&image->fence);
    if (io->verb == VERB_WRITE && !phase_enter(&image->phase, io, request->kind))
        return;
    if (io->flags & IO_COPY && reactor_guests(io->reactor) > 0)
        pool_run(image->local->copies, &io->work);
    else if (request->kind != KIND_DIRECT || !ask(image, io))
        pool_run(base->datastore->pool, &io->work);
}

static void fence(struct image *base, void (*fenced)(void *argument), void *argument)
{
    struct local_image *image = container_of(base, struct local_image, image);
    fence_wait(&image->fence, base->datastore->pool, fenced, argument);
}

static void close_image(struct image *base)
{
    struct local_image *image = container_of(base, struct local_image, image);
    if (image->direct >= 0)
        close(image->direct);
    if (image->buffered >= 0)
        close(image->buffered);
    pthread_mutex_destroy(&image->phase.mutex);
    fence_destroy(&image->fence);
    free(image);
}

static const struct image_ops image_ops = {.submit = submit, .fence = fence, .close = close_image};

static uint32_t direct_block(int fd)
{
    struct statx stx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) < 0 || !(stx.stx_mask & STATX_DIOALIGN))
        return DEFAULT_BLOCK;
    uint32_t block = stx.stx_dio_offset_align;
    if (block && stx.stx_dio_mem_align > block)
        block = stx.stx_dio_mem_align;
    return block && block < SMALLEST_BLOCK ? SMALLEST_BLOCK : block;
}

/* What the image's filesystem can do is tried on a nameless file beside it, so that the image itself is not touched.
 * Where no such file can be made nothing is promised, and the checked middle emulates. */
static void probe(struct local *local, const char *path, struct image_limits *limits)
{
    const char *slash = strrchr(path, '/');
    auto_free char *directory = slash ? strndup(path, (size_t)(slash - path)) : strdup("");
    auto_close int parent = directory ? local_resolve(local, directory, O_PATH | O_DIRECTORY) : -1;
    auto_close int fd = parent >= 0 ? openat(parent, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1;
    off_t length = 64 << 10;
    bool made = fd >= 0 && ftruncate(fd, length) == 0;
    limits->can_punch = made && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, length) == 0;
    limits->can_zero = made && fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, length) == 0;
    limits->can_allocate = made && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, length) == 0;
}

static void ask_limits(struct local *local, const char *path, dev_t device, struct image_limits *limits)
{
    pthread_mutex_lock(&local->mutex);
    if (!local->probed || local->device != device) {
        probe(local, path, &local->limits);
        local->probed = true;
        local->device = device;
    }
    *limits = local->limits;
    pthread_mutex_unlock(&local->mutex);
    limits->can_map = true;
    limits->max_transfer = MAX_TRANSFER;
}

static int open_files(struct local_image *image, struct local *local, const char *path, bool writable, struct stat *st)
{
    auto_close int fd = local_resolve(local, path, O_PATH);
    int mode = writable ? O_RDWR : O_RDONLY;
    if (fd < 0)
        return fd;
    if (fstat(fd, st) < 0)
        return -errno;
    if (S_ISDIR(st->st_mode))
        return -EISDIR;
    if (!S_ISREG(st->st_mode))
        return -EINVAL;
    image->buffered = local_reopen(fd, mode);
    if (image->buffered < 0)
        return image->buffered;
    image->direct = local_reopen(fd, mode | O_DIRECT);
    return 0;
}

int local_open_image(struct datastore *datastore, const char *path, bool writable, struct image **out)
{
    struct local *local = datastore->state;
    struct local_image *image = local ? calloc(1, sizeof(*image)) : NULL;
    struct stat st;
    if (!image)
        return local ? -ENOMEM : -EIO;
    image->local = local;
    image->buffered = image->direct = -1;
    phase_init(&image->phase);
    fence_init(&image->fence);
    int error = open_files(image, local, path, writable, &st);
    if (error) {
        close_image(&image->image);
        return error;
    }
    ask_limits(local, path, st.st_dev, &image->image.limits);
    uint32_t block = image->direct >= 0 ? direct_block(image->direct) : 0;
    if (!block && image->direct >= 0) {
        close(image->direct);
        image->direct = -1;
    }
    image->image.limits.block = block ? block : DEFAULT_BLOCK;
    image_init(&image->image, &image_ops, datastore, (uint64_t)st.st_size);
    *out = &image->image;
    return 0;
}
