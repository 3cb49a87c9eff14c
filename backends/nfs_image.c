/* A file on the server as an image. Reads and writes are cut to what the server takes at once; a change holds its
 * extent in the image's lock from before it is sent until nothing of it can land any more.
 *
 * Failure modes.
 * - No answer: the connection sends again until there is one (nfs_connection.c); the disk bounds what its guest sees.
 *   A change that was sent on a connection that died is finished when it is answered on a new one, but its extent stays
 *   locked for the quiet time (nfs_quiet.h): a newer change of the same bytes waits, the ghost lands before it or never.
 * - The server asks for patience (JUKEBOX, SERVERFAULT): asked again after a while.
 * - The server loses what it had not committed: every UNSTABLE write leaves a copy in unflushed before its io ends
 *   (nfs_flush.c). A write that there is no memory to copy, or no place to note (nfs_verifier.h), is sent again,
 *   FILE_SYNC.
 * - The file is removed or replaced on the server: ESTALE, for good.
 *
 * What it does not do: holes. NFSv3 neither shows nor makes them; a ZERO is written, a file is thin where nothing was
 * ever written. Without a block size: the server takes any extent. */
#include "backends/nfs_image.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

static void send_piece(struct nfsds_piece *piece);

static struct nfsds_image *image_of(struct image *image)
{
    return container_of(image, struct nfsds_image, image);
}

void nfsds_image_enter(struct nfsds_image *image)
{
    pthread_mutex_lock(&image->mutex);
    image->busy++;
    pthread_mutex_unlock(&image->mutex);
}

void nfsds_image_leave(struct nfsds_image *image)
{
    pthread_mutex_lock(&image->mutex);
    if (--image->busy == 0)
        pthread_cond_broadcast(&image->idle);
    pthread_mutex_unlock(&image->mutex);
}

uint64_t nfsds_image_verifier(struct nfsds_image *image, const struct nfsds_call *call, const char *verifier)
{
    uint64_t stamp;
    memcpy(&stamp, verifier, sizeof(stamp));
    stamp = stamp ? stamp : 1; /* 0 means none */
    nfsds_connection_verifier(call, stamp);
    if (nfsds_verifier_seen(&image->nfs->verifier, stamp))
        nfsds_images_recommit(image->nfs);
    return stamp;
}

/* Another verifier than on the connection that the ghost was sent on: another process of the server answers, and the
 * ghost died with its own. */
uint64_t nfsds_ghost_until(const struct nfs *nfs, const struct nfsds_call *call, uint64_t stamp)
{
    if (call->sends <= 1 || (stamp && call->server && stamp != call->server))
        return 0;
    return clock_now() + nfs->quiet_ns;
}

uint64_t nfsds_refusal_delay(const struct nfs *nfs, int status, unsigned refusals)
{
    uint64_t delay = 50 * NS_PER_MS << (refusals < 6 ? refusals : 6), most = 2 * NS_PER_S;
    delay = delay < most ? delay : most;
    return status == NFS3ERR_SERVERFAULT && refusals * delay > nfs->datastore->timeout_ns ? 0 : delay;
}

/* ---- the end of a request ---- */

static void let_go(struct nfsds_request *request)
{
    struct nfsds_image *image = request->image;
    region_lock_release(&image->lock, &request->lock);
    fence_leave(&image->fence, request->epoch);
    free(request);
    nfsds_image_leave(image);
}

static void released(struct nfsds_hold *hold)
{
    let_go(container_of(hold, struct nfsds_request, hold));
}

/* A change is over; its extent is free now, or when no ghost is feared any more. */
static void finish_change(struct nfsds_request *request, int result)
{
    struct nfsds_image *image = request->image;
    if (result == 0 && request->io->verb == VERB_RESIZE)
        unflushed_truncate(image->unflushed, request->io->extent.end);
    io_finish(request->io, result);
    request->io = NULL;
    if (request->quiet_until > clock_now()) {
        request->hold.released = released;
        nfsds_quiet_hold(&image->nfs->quiet, &request->hold, request->quiet_until);
    } else {
        let_go(request);
    }
}

/* It waited with its own lock given up: the flush that makes room may have to write the same bytes again. */
void nfsds_request_unpark(struct nfsds_request *request, int result)
{
    struct nfsds_image *image = request->image;
    io_finish(request->io, result);
    fence_leave(&image->fence, request->epoch);
    free(request);
    nfsds_image_leave(image);
}

/* Half of the budget starts a flush beside the writes; the whole of it stops them until one has made room. */
static void end_write(struct nfsds_request *request)
{
    struct nfsds_image *image = request->image;
    uint64_t held = request->error ? 0 : unflushed_bytes(image->unflushed);
    if (held > NFS_UNFLUSHED_BUDGET && !request->quiet_until) {
        region_lock_release(&image->lock, &request->lock);
        nfsds_flush_park(image, request);
        return;
    }
    if (held > NFS_UNFLUSHED_BUDGET / 2)
        nfsds_flush_ahead(image);
    finish_change(request, request->error);
}

static void end_read(struct nfsds_request *request)
{
    struct nfsds_image *image = request->image;
    io_finish(request->io, request->error);
    free(request);
    nfsds_image_leave(image);
}

static void piece_ended(struct nfsds_piece *piece, int error)
{
    struct nfsds_request *request = piece->request;
    if (error && !request->error)
        request->error = error;
    if (--request->pending > 0)
        return;
    switch (request->io->verb) {
    case VERB_READ:
        end_read(request);
        return;
    case VERB_WRITE:
        end_write(request);
        return;
    default:
        finish_change(request, request->error);
        return;
    }
}

/* ---- answers ---- */

static uint64_t offset_in(const struct nfsds_piece *piece)
{
    return piece->extent.start - piece->request->io->extent.start;
}

/* What is left of the piece reads as zero. */
static void zero_rest(const struct nfsds_piece *piece)
{
    const struct io *io = piece->request->io;
    uint64_t at = offset_in(piece), size = extent_length(piece->extent);
    for (int i = 0; i < io->iov_count && size > 0; i++) {
        size_t length = io->iov[i].iov_len;
        if (at >= length) {
            at -= length;
            continue;
        }
        size_t part = length - at < size ? length - at : size;
        memset((char *)io->iov[i].iov_base + at, 0, part);
        size -= part;
        at = 0;
    }
}

static void ask_again(struct timer *timer)
{
    send_piece(container_of(timer, struct nfsds_piece, timer));
}

/* True: it is asked again later. */
static bool ask_later(struct nfsds_piece *piece, int status)
{
    const struct nfs *nfs = piece->request->image->nfs;
    uint64_t delay = nfsds_rpc_is_transient(status) ? nfsds_refusal_delay(nfs, status, piece->refusals++) : 0;
    if (delay == 0)
        return false;
    piece->timer.fired = ask_again;
    timer_set(piece->request->reactor, &piece->timer, delay);
    return true;
}

static void read_answered(struct nfsds_call *call, int error, void *data)
{
    struct nfsds_piece *piece = container_of(call, struct nfsds_piece, call);
    struct READ3res *result = data;
    if (error || result->status != NFS3_OK) {
        if (error || !ask_later(piece, (int)result->status))
            piece_ended(piece, error ? error : nfsds_rpc_error((int)result->status));
        return;
    }
    const struct READ3resok *read = &result->READ3res_u.resok;
    uint64_t length = extent_length(piece->extent), got = read->count < length ? read->count : length;
    piece->extent.start += got;
    if (!extent_empty(piece->extent) && !read->eof && got > 0) {
        send_piece(piece);
        return;
    }
    zero_rest(piece);
    piece_ended(piece, 0);
}

static void fear(struct nfsds_request *request, uint64_t until)
{
    request->quiet_until = until > request->quiet_until ? until : request->quiet_until;
}

/* What an UNSTABLE answer covers is kept before anything else happens with it. False: there is no memory for it. */
static bool keep(struct nfsds_piece *piece, uint64_t count, enum stable_how committed, uint64_t stamp)
{
    struct nfsds_image *image = piece->request->image;
    const struct io *io = piece->request->io;
    uint64_t skip = offset_in(piece);
    struct extent extent = {piece->extent.start, piece->extent.start + count};
    if (committed != UNSTABLE) {
        /* Older copies of these bytes must not be written over them. */
        if (unflushed_bytes(image->unflushed) > 0)
            unflushed_add_from(image->unflushed, extent, io->iov, io->iov_count, skip, stamp);
        return true;
    }
    bool kept = unflushed_add_from(image->unflushed, extent, io->iov, io->iov_count, skip, stamp) == 0;
    return nfsds_uncommitted_add(&image->nfs->verifier, &image->uncommitted) && kept;
}

static void write_answered(struct nfsds_call *call, int error, void *data)
{
    struct nfsds_piece *piece = container_of(call, struct nfsds_piece, call);
    struct WRITE3res *result = data;
    if (error || result->status != NFS3_OK) {
        fear(piece->request, nfsds_ghost_until(piece->request->image->nfs, call, 0));
        if (error || !ask_later(piece, (int)result->status))
            piece_ended(piece, error ? error : nfsds_rpc_error((int)result->status));
        return;
    }
    const struct WRITE3resok *written = &result->WRITE3res_u.resok;
    uint64_t length = extent_length(piece->extent), count = written->count < length ? written->count : length;
    uint64_t stamp = nfsds_image_verifier(piece->request->image, call, written->verf);
    fear(piece->request, nfsds_ghost_until(piece->request->image->nfs, call, stamp));
    if (count == 0) {
        piece_ended(piece, -EIO);
        return;
    }
    if (!keep(piece, count, written->committed, stamp) && !piece->stable) {
        piece->stable = true;
        send_piece(piece);
        return;
    }
    piece->extent.start += count;
    if (extent_empty(piece->extent))
        piece_ended(piece, 0);
    else
        send_piece(piece);
}

static void resize_answered(struct nfsds_call *call, int error, void *data)
{
    struct nfsds_piece *piece = container_of(call, struct nfsds_piece, call);
    struct SETATTR3res *result = data;
    fear(piece->request, nfsds_ghost_until(piece->request->image->nfs, call, 0));
    if (!error && result->status != NFS3_OK && ask_later(piece, (int)result->status))
        return;
    piece_ended(piece, error ? error : nfsds_rpc_error((int)result->status));
}

/* ---- sending ---- */

static void prepare_piece(struct nfsds_piece *piece)
{
    struct nfsds_request *request = piece->request;
    struct nfs_fh3 file = nfsds_fh(&request->image->handle);
    uint32_t count = (uint32_t)extent_length(piece->extent);
    piece->call.arguments = &piece->arguments;
    piece->call.iov = request->io->iov;
    piece->call.iov_count = request->io->iov_count;
    piece->call.skip = offset_in(piece);
    switch (request->io->verb) {
    case VERB_READ:
        piece->call.procedure = NFS_READ;
        piece->call.answered = read_answered;
        piece->arguments.read = (struct READ3args){file, piece->extent.start, count};
        return;
    case VERB_WRITE:
        piece->call.procedure = NFS_WRITE;
        piece->call.answered = write_answered;
        piece->arguments.write = (struct WRITE3args){
            file, piece->extent.start, count, piece->stable ? FILE_SYNC : UNSTABLE, {count, NULL}};
        return;
    default:
        piece->call.procedure = NFS_SETATTR;
        piece->call.answered = resize_answered;
        piece->arguments.resize = (struct SETATTR3args){
            .object = file, .new_attributes = {.size = {1, {.size = request->io->extent.end}}}};
        return;
    }
}

static void send_piece(struct nfsds_piece *piece)
{
    struct nfsds_connection *connection = nfsds_connection_of(piece->request->image->nfs, piece->request->reactor);
    if (!connection) {
        piece_ended(piece, -ENOMEM);
        return;
    }
    prepare_piece(piece);
    nfsds_connection_call(connection, &piece->call);
}

static void send_all(struct nfsds_request *request)
{
    unsigned count = request->count;
    request->pending = count;
    for (unsigned i = 0; i < count; i++)
        send_piece(&request->pieces[i]);
}

static void granted(struct lock_request *lock)
{
    send_all(container_of(lock, struct nfsds_request, lock));
}

/* Cut to what the server takes at once. */
static struct nfsds_request *new_request(struct nfsds_image *image, struct io *io)
{
    const struct nfs *nfs = image->nfs;
    bool moves = io->verb == VERB_READ || io->verb == VERB_WRITE;
    uint64_t most = io->verb == VERB_READ ? nfs->read_max : nfs->write_max;
    unsigned count = moves ? (unsigned)((extent_length(io->extent) + most - 1) / most) : 1;
    struct nfsds_request *request = calloc(1, sizeof(*request) + count * sizeof(request->pieces[0]));
    if (!request)
        return NULL;
    request->image = image;
    request->io = io;
    request->reactor = io->reactor;
    request->count = count;
    for (unsigned i = 0; i < count; i++) {
        uint64_t start = io->extent.start + i * most, end = start + most;
        request->pieces[i].request = request;
        request->pieces[i].extent = (struct extent){start, end < io->extent.end ? end : io->extent.end};
    }
    return request;
}

static void change(struct nfsds_image *image, struct nfsds_request *request)
{
    struct io *io = request->io;
    uint64_t size = atomic_load(&image->image.size);
    request->epoch = fence_enter(&image->fence);
    request->lock.mode = LOCK_MODE_WRITE;
    request->lock.granted = granted;
    request->lock.extent = io->extent;
    if (io->verb == VERB_RESIZE)
        request->lock.extent = (struct extent){size < io->extent.end ? size : io->extent.end, INT64_MAX};
    if (region_lock_acquire(&image->lock, &request->lock))
        send_all(request);
}

static int may_change(const struct nfsds_image *image)
{
    if (atomic_load_explicit(&image->nfs->disowned, memory_order_relaxed))
        return -EIO;
    return image->nfs->read_only ? -EROFS : image->writable ? 0 : -EBADF;
}

static void submit(struct image *base, struct io *io)
{
    struct nfsds_image *image = image_of(base);
    if (io->verb == VERB_FLUSH) {
        nfsds_flush_io(image, io);
        return;
    }
    int error = io->verb == VERB_READ ? 0 : may_change(image);
    struct nfsds_request *request = error ? NULL : new_request(image, io);
    if (!request) {
        io_finish(io, error ? error : -ENOMEM);
        return;
    }
    nfsds_image_enter(image);
    switch (io->verb) {
    case VERB_READ:
        send_all(request);
        return;
    case VERB_WRITE:
    case VERB_RESIZE:
        change(image, request);
        return;
    case VERB_ZERO:
    case VERB_ALLOCATE:
    case VERB_MAP:
    case VERB_FLUSH:
        break;
    }
    abort(); /* the checked middle emulates them */
}

/* ---- the fence ---- */

struct fencing {
    struct nfsds_hold hold;
    struct nfsds_image *image;
    struct task task;
    struct nfsds_call call;
    struct COMMIT3args arguments;
    void (*fenced)(void *argument);
    void *argument;
};

static void fence_now(struct nfsds_hold *hold)
{
    struct fencing *fencing = container_of(hold, struct fencing, hold);
    struct nfsds_image *image = fencing->image;
    fence_wait(&image->fence, image->image.datastore->pool, fencing->fenced, fencing->argument);
    free(fencing);
    nfsds_image_leave(image);
}

static void fence_answered(struct nfsds_call *call, int error, void *data)
{
    struct fencing *fencing = container_of(call, struct fencing, call);
    struct nfs *nfs = fencing->image->nfs;
    nfsds_quiet_hold(&nfs->quiet, &fencing->hold, clock_now() + nfs->quiet_ns);
}

static void fence_ask(struct task *task)
{
    struct fencing *fencing = container_of(task, struct fencing, task);
    struct nfs *nfs = fencing->image->nfs;
    struct nfsds_connection *connection = nfsds_connection_of(nfs, nfs->names);
    if (connection)
        nfsds_connection_call(connection, &fencing->call);
    else
        fence_answered(&fencing->call, -ENOMEM, NULL);
}

/* What the worker before sent is only known to be worked off by time, once the server has reached its disk. */
static void fence(struct image *base, void (*fenced)(void *argument), void *argument)
{
    struct nfsds_image *image = image_of(base);
    struct nfs *nfs = image->nfs;
    uint64_t until = atomic_load(&nfs->first_answer) + nfs->quiet_ns;
    if (base->datastore->identity.generation <= 1 || until <= clock_now()) {
        fence_wait(&image->fence, base->datastore->pool, fenced, argument);
        return;
    }
    struct fencing *fencing = calloc(1, sizeof(*fencing));
    if (!fencing) {
        log_error("datastore %s: no memory to fence an image: its ghosts keep their locks", base->datastore->name);
        return;
    }
    *fencing = (struct fencing){.hold = {.released = fence_now},
        .image = image,
        .task = {.run = fence_ask},
        .fenced = fenced,
        .argument = argument};
    fencing->arguments.file = nfsds_fh(&image->handle);
    fencing->call = (struct nfsds_call){
        .procedure = NFS_COMMIT, .arguments = &fencing->arguments, .answered = fence_answered};
    nfsds_image_enter(image);
    reactor_post(nfs->names, &fencing->task);
}

const struct image_ops nfsds_image_ops = {.submit = submit, .fence = fence, .close = nfsds_image_close};
