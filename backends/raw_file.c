/* A raw image that is a plain file or a block device of this machine.
 *
 * One descriptor, opened with O_DIRECT, and nothing else: direct and buffered I/O on one image are not kept coherent by
 * the kernel, and what went past the page cache is not reported written before it is. An aligned READ or WRITE goes
 * through the reactor's own queue of asynchronous I/O with RWF_NOWAIT, as an image of backends/local_image.c does; what
 * the kernel would have to wait for is done again by the datastore's pool. Memory that is not aligned is carried over a
 * bounce buffer by the pool. A filesystem without O_DIRECT gets all of it buffered.
 *
 * Zeroes: FALLOC_FL_PUNCH_HOLE where space may be given back, FALLOC_FL_ZERO_RANGE else. On a block device the first
 * becomes the device's own command for zeroes that unmaps, or fails; the second is BLKZEROOUT, which writes zeroes where
 * the device has no command. BLKDISCARD is never used: what is read after it is the device's choice, even where it says
 * otherwise. A device that can only discard therefore never gets space back.
 *
 * Fence: a dead process is reaped before the next one begins, and its writes (pwrite, libaio, fallocate) are over by
 * then; those that this process gave up on are counted by struct fence. */
#include "backends/raw_file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "backends/fence.h"
#include "backends/split.h"

#define MAX_TRANSFER  (1u << 20)
#define IOVS          64 /* of one preadv or pwritev */
#define PENALTY_MAX   16 /* writes sent straight to the pool after refusals in a row */
#define PAGE          4096
#define BUSY_TRIES    50
#define BUSY_SLEEP_NS 20000000

struct raw_file {
    struct image image;
    /* set at open */
    int fd;
    bool direct, device;
    uint32_t memory; /* alignment of addresses */
    struct aio aio;
    struct fence fence; /* locked inside */
    /* hints: any value is right */
    _Atomic bool no_nowait;
    _Atomic unsigned refusals, skip;
};

/* In io.scratch. */
struct __attribute__((may_alias)) raw_request {
    struct aio_request aio;
    uint64_t moved; /* bytes done */
    uint8_t epoch;
    bool bounce;
};

_Static_assert(sizeof(struct raw_request) <= sizeof(((struct io *)NULL)->scratch), "io.scratch is too small");

static struct raw_file *raw_of(const struct image *image)
{
    return container_of((struct image *)image, struct raw_file, image);
}

static struct raw_request *request_of(struct io *io)
{
    return (struct raw_request *)io->scratch;
}

static void finish(struct io *io, int result)
{
    if (fence_counts(io->verb))
        fence_leave(&raw_of(io->image)->fence, request_of(io)->epoch);
    io_finish(io, result);
}

/* ---- memory ---- */

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

static void copy(const struct io *io, char *buffer, bool out)
{
    for (int i = 0; i < io->iov_count; i++) {
        size_t length = io->iov[i].iov_len;
        if (out)
            memcpy(io->iov[i].iov_base, buffer, length);
        else
            memcpy(buffer, io->iov[i].iov_base, length);
        buffer += length;
    }
}

static bool needs_bounce(const struct raw_file *raw, const struct io *io)
{
    uintptr_t addresses = 0, lengths = 0;
    if (!raw->direct)
        return false;
    for (int i = 0; i < io->iov_count; i++) {
        addresses |= (uintptr_t)io->iov[i].iov_base;
        lengths |= io->iov[i].iov_len;
    }
    return (addresses & (raw->memory - 1)) != 0 || (lengths & (raw->image.limits.block - 1)) != 0;
}

/* ---- on the pool ---- */

/* Whole, or at the end of the file, or error. A transfer that ended short of a block is begun again at the block. */
static int transfer(struct raw_file *raw, struct io *io)
{
    struct raw_request *request = request_of(io);
    uint64_t length = extent_length(io->extent), block = raw->image.limits.block;
    while (request->moved < length) {
        struct iovec iov[IOVS];
        int count = rest_of(io, request->moved, iov);
        off_t at = (off_t)(io->extent.start + request->moved);
        ssize_t moved = io->verb == VERB_READ ? preadv(raw->fd, iov, count, at) : pwritev(raw->fd, iov, count, at);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return -errno;
        uint64_t whole = (uint64_t)moved & ~(block - 1);
        if (whole == 0 && io->verb == VERB_READ) {
            zero_rest(io, request->moved + (uint64_t)moved);
            return 0;
        }
        if (whole == 0)
            return -EIO;
        request->moved += whole;
    }
    return 0;
}

static int transfer_bounced(struct raw_file *raw, struct io *io)
{
    struct iovec iov = {NULL, extent_length(io->extent)};
    struct io bounced = {.verb = io->verb, .extent = io->extent, .iov = &iov, .iov_count = 1};
    if (posix_memalign(&iov.iov_base, PAGE, iov.iov_len) != 0)
        return -ENOMEM;
    if (io->verb == VERB_WRITE)
        copy(io, iov.iov_base, false);
    request_of(&bounced)->moved = 0;
    int error = transfer(raw, &bounced);
    if (!error && io->verb == VERB_READ)
        copy(io, iov.iov_base, true);
    free(iov.iov_base);
    return error;
}

/* The kernel's word for memory that it does not like after all is EINVAL. */
static int move(struct raw_file *raw, struct io *io)
{
    struct raw_request *request = request_of(io);
    int error = request->bounce ? transfer_bounced(raw, io) : transfer(raw, io);
    if (error == -EINVAL && raw->direct && !request->bounce)
        error = transfer_bounced(raw, io);
    return error;
}

static int write_zeroes(struct raw_file *raw, struct extent extent)
{
    static const char __attribute__((aligned(PAGE))) zeroes[256 << 10];
    while (!extent_empty(extent)) {
        size_t length = extent_length(extent) < sizeof(zeroes) ? extent_length(extent) : sizeof(zeroes);
        ssize_t written = pwrite(raw->fd, zeroes, length, (off_t)extent.start);
        if (written < 0 && errno != EINTR)
            return -errno;
        if (written > 0 && (written & ~(ssize_t)(raw->image.limits.block - 1)) == 0)
            return -EIO;
        if (written > 0)
            extent.start += (uint64_t)written & ~(uint64_t)(raw->image.limits.block - 1);
    }
    return 0;
}

static int try_fallocate(struct raw_file *raw, int mode, struct extent extent)
{
    int error;
    do {
        error = fallocate(raw->fd, mode, (off_t)extent.start, (off_t)extent_length(extent)) < 0 ? -errno : 0;
    } while (error == -EINTR);
    return error;
}

static int zero(struct raw_file *raw, const struct io *io)
{
    uint64_t size = atomic_load(&raw->image.size);
    struct extent extent = extent_intersect(io->extent, (struct extent){0, size});
    int error = -EOPNOTSUPP;
    if (extent_empty(extent))
        return 0;
    if (io->flags & IO_MAY_UNMAP)
        error = try_fallocate(raw, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, extent);
    if (error == -EOPNOTSUPP)
        error = try_fallocate(raw, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, extent);
    if (error == -EOPNOTSUPP)
        error = write_zeroes(raw, extent);
    return error;
}

static int map(struct raw_file *raw, struct io *io)
{
    off_t start = (off_t)io->extent.start;
    off_t data = lseek(raw->fd, start, SEEK_DATA);
    if (data < 0 && errno != ENXIO)
        return -errno;
    /* Rounded so that whole blocks are told; a block with any data is data. */
    data = data < 0 ? data : (off_t)((uint64_t)data & ~(uint64_t)(raw->image.limits.block - 1));
    io->map_data = data >= 0 && data <= start;
    off_t change = io->map_data ? lseek(raw->fd, start > data ? start : data, SEEK_HOLE) : data;
    if (change > start) {
        struct extent rounded = extent_round_out((struct extent){0, (uint64_t)change}, raw->image.limits.block);
        if (rounded.end < io->extent.end)
            io->extent.end = rounded.end;
    }
    return 0;
}

static int execute(struct raw_file *raw, struct io *io)
{
    switch (io->verb) {
    case VERB_READ:
        return move(raw, io);
    case VERB_WRITE:
        return io->extent.end > atomic_load(&raw->image.size) ? -ENOSPC : move(raw, io);
    case VERB_ZERO:
        return zero(raw, io);
    case VERB_ALLOCATE:
        return io->extent.end > atomic_load(&raw->image.size) ? -ENOSPC
                                                              : try_fallocate(raw, FALLOC_FL_KEEP_SIZE, io->extent);
    case VERB_FLUSH:
        return fdatasync(raw->fd) < 0 ? -errno : 0;
    case VERB_RESIZE:
        return -EINVAL;
    case VERB_MAP:
        return map(raw, io);
    }
    abort();
}

static void run(struct work *work)
{
    struct io *io = container_of(work, struct io, work);
    finish(io, execute(raw_of(io->image), io));
}

/* ---- on the reactor ---- */

/* Each refusal in a row doubles how many of the next writes do not ask. */
static void note_refusal(struct raw_file *raw, long result)
{
    if (result == -EOPNOTSUPP || result == -EINVAL)
        atomic_store_explicit(&raw->no_nowait, true, memory_order_relaxed);
    unsigned refusals = atomic_load_explicit(&raw->refusals, memory_order_relaxed);
    if (refusals < PENALTY_MAX)
        atomic_store_explicit(&raw->refusals, refusals ? refusals * 2 : 1, memory_order_relaxed);
    atomic_store_explicit(&raw->skip, refusals, memory_order_relaxed);
}

static void aio_done(struct aio_request *aio, long result)
{
    struct raw_request *request = container_of(aio, struct raw_request, aio);
    struct io *io = container_of((uint64_t(*)[12])request, struct io, scratch);
    struct raw_file *raw = raw_of(io->image);
    uint64_t length = extent_length(io->extent);
    if (result == (long)length) {
        if (io->verb == VERB_WRITE)
            atomic_store_explicit(&raw->refusals, 0, memory_order_relaxed);
        finish(io, 0);
        return;
    }
    if (result < 0 && (io->verb == VERB_WRITE || result != -EAGAIN))
        note_refusal(raw, result);
    request->moved = result > 0 ? (uint64_t)result & ~(uint64_t)(raw->image.limits.block - 1) : 0;
    pool_run(raw->image.datastore->pool, &io->work);
}

static bool may_ask(struct raw_file *raw, struct io *io)
{
    if (!raw->direct || request_of(io)->bounce || atomic_load_explicit(&raw->no_nowait, memory_order_relaxed))
        return false;
    if (io->extent.end > atomic_load_explicit(&raw->image.size, memory_order_relaxed))
        return false;
    if (io->verb == VERB_READ)
        return true;
    unsigned skip = atomic_load_explicit(&raw->skip, memory_order_relaxed);
    if (skip > 0)
        atomic_store_explicit(&raw->skip, skip - 1, memory_order_relaxed);
    return skip == 0;
}

static bool ask(struct raw_file *raw, struct io *io)
{
    struct raw_request *request = request_of(io);
    if (!may_ask(raw, io))
        return false;
    request->aio.done = aio_done;
    if (extent_length(io->extent) > SPLIT_PIECE)
        return split_queue(
            &raw->aio, io->reactor, &request->aio, raw->fd, io->verb == VERB_WRITE, io->iov, io->iov_count, io->extent);
    long long at = (long long)io->extent.start;
    if (io->verb == VERB_READ)
        io_prep_preadv2(&request->aio.iocb, raw->fd, io->iov, io->iov_count, at, RWF_NOWAIT);
    else
        io_prep_pwritev2(&request->aio.iocb, raw->fd, io->iov, io->iov_count, at, RWF_NOWAIT);
    return aio_queue(&raw->aio, io->reactor, &request->aio, extent_length(io->extent));
}

static void submit(struct image *image, struct io *io)
{
    struct raw_file *raw = raw_of(image);
    struct raw_request *request = request_of(io);
    bool moves = io->verb == VERB_READ || io->verb == VERB_WRITE;
    io->work.run = run;
    request->moved = 0;
    request->bounce = moves && needs_bounce(raw, io);
    if (fence_counts(io->verb))
        request->epoch = (uint8_t)fence_enter(&raw->fence);
    if (!moves || !ask(raw, io))
        pool_run(image->datastore->pool, &io->work);
}

static void fence(struct image *image, void (*fenced)(void *argument), void *argument)
{
    fence_wait(&raw_of(image)->fence, image->datastore->pool, fenced, argument);
}

/* ---- the image ---- */

static void close_image(struct image *image)
{
    struct raw_file *raw = raw_of(image);
    aio_close(&raw->aio);
    close(raw->fd);
    fence_destroy(&raw->fence);
    free(raw);
}

static const struct image_ops image_ops = {.submit = submit, .fence = fence, .close = close_image};

void raw_file_alignment(int fd, uint32_t *block, uint32_t *memory)
{
    struct statx stx;
    *block = *memory = 0;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) < 0 || !(stx.stx_mask & STATX_DIOALIGN))
        return;
    *block = stx.stx_dio_offset_align;
    *memory = stx.stx_dio_mem_align;
}

int raw_file_size(int fd, bool device, uint32_t block, uint64_t *size)
{
    struct stat st;
    uint64_t bytes;
    if (device) {
        if (ioctl(fd, BLKGETSIZE64, &bytes) < 0)
            return -errno;
    } else {
        if (fstat(fd, &st) < 0)
            return -errno;
        bytes = (uint64_t)st.st_size;
    }
    *size = bytes & ~(uint64_t)(block - 1);
    return 0;
}

bool raw_file_wait_busy(unsigned *tries)
{
    if (++*tries > BUSY_TRIES)
        return false;
    nanosleep(&(struct timespec){.tv_nsec = BUSY_SLEEP_NS}, NULL);
    return true;
}

int raw_file_refresh(struct image *image)
{
    struct raw_file *raw = raw_of(image);
    uint64_t size;
    int error = raw_file_size(raw->fd, raw->device, image->limits.block, &size);
    if (!error)
        atomic_store(&image->size, size);
    return error;
}

int raw_file_new(struct image **out, struct datastore *datastore, int fd, bool direct, bool device,
    const struct image_limits *limits, uint32_t memory)
{
    uint64_t size;
    int error = raw_file_size(fd, device, limits->block, &size);
    struct raw_file *raw = error ? NULL : calloc(1, sizeof(*raw));
    if (!raw) {
        close(fd);
        return error ? error : -ENOMEM;
    }
    raw->fd = fd;
    raw->direct = direct;
    raw->device = device;
    raw->memory = memory ? memory : limits->block;
    raw->image.limits = *limits;
    raw->image.limits.max_transfer = MAX_TRANSFER;
    fence_init(&raw->fence);
    image_init(&raw->image, &image_ops, datastore, size);
    *out = &raw->image;
    return 0;
}
