/* A flush of an image, and what happens when the server has lost its cache (law 10).
 *
 *   mark → COMMIT of the whole file → does all that was answered before the mark bear the COMMIT's verifier?
 *     yes: it is durable, the copies go
 *     no: the server was started anew in between; each run of bytes that bears another verifier is written again from
 *         its copy, then all over
 *
 * One flush of an image runs at a time; those who ask meanwhile share the next. Writing again takes turns with the
 * guest's writes by the image's lock, and what is written is looked up once the lock is held: a newer write of the same
 * bytes is either copied by then, or comes after.
 *
 * Writes over the budget of copies are parked with their answer until a flush has made room; a flush that fails fails
 * them. A server that was started anew is noticed by any answer's verifier, and what it lost is written again at once,
 * not only at the next flush.
 *
 * What the worker before had not committed left no copies with this one: it is committed as soon as the image is open.
 * While its verifier is the COMMIT's no copies are needed; else the next flush that somebody waits for fails, once. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "backends/nfs_image.h"
#include "base/clock.h"
#include "base/log.h"

#define ROUNDS 16 /* a server that is started anew as often within one flush */

/* One run that is written again. */
struct nfsds_rewrite {
    struct nfsds_image *image;
    struct lock_request lock;
    struct nfsds_hold hold;
    unsigned epoch;
    struct unflushed_run run;
};

static void start(struct nfsds_image *image);
static void commit(struct nfsds_image *image);
static void rewrite_next(struct nfsds_image *image);
static void rewrite_granted(struct lock_request *lock);

static struct nfsds_image *image_of(struct nfsds_call *call)
{
    return container_of(call, struct nfsds_image, flush.call);
}

static bool has_nothing(const struct nfsds_image *image)
{
    return unflushed_bytes(image->unflushed) == 0 && !image->uncommitted.inherited;
}

static bool is_empty(void *argument)
{
    struct nfsds_image *image = argument;
    return unflushed_bytes(image->unflushed) == 0;
}

/* Somebody waits for the flush: a loss is told. */
static int tell(struct nfsds_image *image)
{
    log_error("datastore %s: the NFS server was started anew before what an earlier svmfs process had written was "
              "durable: a flush fails, because that is lost",
        image->nfs->datastore->name);
    image->flush.inherited_lost = false;
    nfsds_uncommitted_told(&image->nfs->verifier, &image->uncommitted);
    return -EIO;
}

static void done(struct nfsds_image *image, int result)
{
    struct nfsds_flush *flush = &image->flush;
    if (result == 0 && flush->inherited_lost && !list_empty(&flush->served))
        result = tell(image);
    struct list served, parked, *link;
    list_init(&served);
    list_init(&parked);
    list_splice(&served, &flush->served);
    pthread_mutex_lock(&image->mutex);
    if (result < 0 || !unflushed_full(image->unflushed))
        list_splice(&parked, &flush->parked);
    bool again = flush->wanted || !list_empty(&flush->waiting) || !list_empty(&flush->parked);
    flush->running = again;
    flush->wanted = false;
    image->busy += again;
    pthread_mutex_unlock(&image->mutex);
    while ((link = list_pop(&served)))
        io_finish(container_of(link, struct io, link), result);
    while ((link = list_pop(&parked)))
        nfsds_request_unpark(container_of(link, struct nfsds_request, link), result);
    if (again)
        start(image);
    nfsds_image_leave(image);
}

static void send(struct nfsds_image *image, enum nfsds_procedure procedure,
    void (*answered)(struct nfsds_call *call, int error, void *data))
{
    struct nfsds_flush *flush = &image->flush;
    struct nfsds_connection *connection = nfsds_connection_of(image->nfs, flush->reactor);
    flush->call.procedure = procedure;
    flush->call.arguments = &flush->arguments;
    flush->call.answered = answered;
    if (connection)
        nfsds_connection_call(connection, &flush->call);
    else
        answered(&flush->call, -ENOMEM, NULL);
}

static bool ask_later(struct nfsds_image *image, int status, void (*fired)(struct timer *timer))
{
    struct nfsds_flush *flush = &image->flush;
    uint64_t delay = nfsds_rpc_is_transient(status) ? nfsds_refusal_delay(image->nfs, status, flush->refusals++) : 0;
    if (delay == 0)
        return false;
    flush->timer.fired = fired;
    timer_set(flush->reactor, &flush->timer, delay);
    return true;
}

static void commit_again(struct timer *timer)
{
    commit(container_of(timer, struct nfsds_image, flush.timer));
}

static bool any_lost(struct nfsds_image *image, uint64_t offset, uint64_t stamp, struct extent *extent)
{
    struct unflushed_run run;
    if (!unflushed_lost(image->unflushed, offset, stamp, image->nfs->write_max, &run))
        return false;
    *extent = run.extent;
    unflushed_put(image->unflushed, &run);
    return true;
}

static void committed(struct nfsds_image *image, uint64_t stamp)
{
    struct nfsds_flush *flush = &image->flush;
    struct extent extent;
    flush->stamp = stamp;
    flush->refusals = 0;
    flush->inherited_lost = nfsds_uncommitted_lost(&image->nfs->verifier, &image->uncommitted, stamp);
    bool durable = unflushed_settle(image->unflushed, flush->mark, stamp);
    bool lost = any_lost(image, 0, stamp, &extent);
    if (durable && !lost) {
        nfsds_uncommitted_settle(&image->nfs->verifier, &image->uncommitted, stamp, is_empty, image);
        done(image, 0);
    } else if (++flush->rounds == ROUNDS) {
        log_error("datastore %s: the NFS server keeps losing what it has not made durable; a flush fails",
            image->nfs->datastore->name);
        done(image, -EIO);
    } else if (lost) {
        flush->offset = 0;
        rewrite_next(image);
    } else {
        commit(image);
    }
}

static void commit_answered(struct nfsds_call *call, int error, void *data)
{
    struct nfsds_image *image = image_of(call);
    const struct COMMIT3res *result = data;
    if (!error && result->status == NFS3_OK) {
        committed(image, nfsds_image_verifier(image, call, result->COMMIT3res_u.resok.verf));
        return;
    }
    if (!error && ask_later(image, (int)result->status, commit_again))
        return;
    done(image, error ? error : nfsds_rpc_error((int)result->status));
}

static void commit(struct nfsds_image *image)
{
    struct nfsds_flush *flush = &image->flush;
    if (has_nothing(image)) {
        done(image, 0);
        return;
    }
    flush->mark = unflushed_mark(image->unflushed);
    flush->arguments.commit = (struct COMMIT3args){.file = nfsds_fh(&image->handle)};
    send(image, NFS_COMMIT, commit_answered);
}

/* ---- writing again ---- */

static void rewrite_free(struct nfsds_rewrite *rewrite)
{
    struct nfsds_image *image = rewrite->image;
    region_lock_release(&image->lock, &rewrite->lock);
    fence_leave(&image->fence, rewrite->epoch);
    free(rewrite);
    nfsds_image_leave(image);
}

static void rewrite_released(struct nfsds_hold *hold)
{
    rewrite_free(container_of(hold, struct nfsds_rewrite, hold));
}

static void rewrite_end(struct nfsds_rewrite *rewrite, uint64_t until)
{
    if (until > clock_now()) {
        rewrite->hold.released = rewrite_released;
        nfsds_quiet_hold(&rewrite->image->nfs->quiet, &rewrite->hold, until);
    } else {
        rewrite_free(rewrite);
    }
}

static void rewrite_next(struct nfsds_image *image)
{
    struct nfsds_flush *flush = &image->flush;
    struct extent extent;
    if (!any_lost(image, flush->offset, flush->stamp, &extent)) {
        commit(image);
        return;
    }
    struct nfsds_rewrite *rewrite = calloc(1, sizeof(*rewrite));
    if (!rewrite) {
        done(image, -ENOMEM);
        return;
    }
    rewrite->image = image;
    rewrite->lock = (struct lock_request){.mode = LOCK_MODE_WRITE, .extent = extent, .granted = rewrite_granted};
    rewrite->epoch = fence_enter(&image->fence);
    nfsds_image_enter(image);
    if (region_lock_acquire(&image->lock, &rewrite->lock))
        rewrite_granted(&rewrite->lock);
}

static void send_rewrite(struct nfsds_image *image);

static void rewrite_again(struct timer *timer)
{
    send_rewrite(container_of(timer, struct nfsds_image, flush.timer));
}

static void rewrite_answered(struct nfsds_call *call, int error, void *data)
{
    struct nfsds_image *image = image_of(call);
    struct nfsds_flush *flush = &image->flush;
    struct nfsds_rewrite *rewrite = image->flush.rewrite;
    const struct WRITE3res *result = data;
    if (!error && result->status != NFS3_OK && ask_later(image, (int)result->status, rewrite_again))
        return;
    error = error ? error : nfsds_rpc_error((int)result->status);
    uint64_t stamp = error ? 0 : nfsds_image_verifier(image, call, result->WRITE3res_u.resok.verf);
    struct extent extent = rewrite->run.extent;
    if (!error) {
        uint64_t count = result->WRITE3res_u.resok.count;
        struct iovec iov = {
            (void *)(uintptr_t)rewrite->run.memory, count < extent_length(extent) ? count : extent_length(extent)};
        extent.end = extent.start + iov.iov_len;
        error = iov.iov_len ? unflushed_add(image->unflushed, extent, &iov, 1, stamp) : -EIO;
    }
    unflushed_put(image->unflushed, &rewrite->run);
    rewrite_end(rewrite, nfsds_ghost_until(image->nfs, call, stamp));
    if (error) {
        log_error("datastore %s: what the NFS server lost cannot be written again: %s; a flush fails",
            image->nfs->datastore->name, error_text(error));
        done(image, error);
        return;
    }
    flush->refusals = 0;
    flush->offset = stamp == flush->stamp ? extent.end : 0;
    flush->stamp = stamp;
    rewrite_next(image);
}

static void send_rewrite(struct nfsds_image *image)
{
    struct unflushed_run *run = &image->flush.rewrite->run;
    uint32_t count = (uint32_t)extent_length(run->extent);
    image->flush.arguments.write = (struct WRITE3args){
        nfsds_fh(&image->handle), run->extent.start, count, UNSTABLE, {count, (char *)(uintptr_t)run->memory}};
    send(image, NFS_WRITE, rewrite_answered);
}

static void rewrite_granted(struct lock_request *lock)
{
    struct nfsds_rewrite *rewrite = container_of(lock, struct nfsds_rewrite, lock);
    struct nfsds_image *image = rewrite->image;
    struct nfsds_flush *flush = &image->flush;
    struct extent held = lock->extent;
    bool lost = unflushed_lost(image->unflushed, held.start, flush->stamp, extent_length(held), &rewrite->run);
    if (lost && rewrite->run.extent.start >= held.end) {
        unflushed_put(image->unflushed, &rewrite->run);
        lost = false;
    }
    if (!lost) {
        rewrite_end(rewrite, 0);
        flush->offset = held.end;
        rewrite_next(image);
        return;
    }
    assert(rewrite->run.memory); /* nothing but writes is added */
    if (rewrite->run.extent.end > held.end)
        rewrite->run.extent.end = held.end;
    flush->rewrite = rewrite;
    send_rewrite(image);
}

/* ---- asking for it ---- */

static void start(struct nfsds_image *image)
{
    struct nfsds_flush *flush = &image->flush;
    pthread_mutex_lock(&image->mutex);
    list_splice(&flush->served, &flush->waiting);
    pthread_mutex_unlock(&image->mutex);
    flush->reactor = reactor_current();
    flush->rounds = flush->refusals = 0;
    flush->inherited_lost = false;
    commit(image);
}

void nfsds_flush_init(struct nfsds_image *image)
{
    list_init(&image->flush.waiting);
    list_init(&image->flush.parked);
    list_init(&image->flush.served);
}

/* Under the mutex, which is given back. */
static void ask(struct nfsds_image *image)
{
    struct nfsds_flush *flush = &image->flush;
    bool first = !flush->running;
    flush->wanted = flush->wanted || !first;
    flush->running = true;
    image->busy += first;
    pthread_mutex_unlock(&image->mutex);
    if (first)
        start(image);
}

void nfsds_flush_io(struct nfsds_image *image, struct io *io)
{
    if (has_nothing(image)) {
        io_finish(io, 0);
        return;
    }
    pthread_mutex_lock(&image->mutex);
    list_append(&image->flush.waiting, &io->link);
    ask(image);
}

void nfsds_flush_park(struct nfsds_image *image, struct nfsds_request *request)
{
    pthread_mutex_lock(&image->mutex);
    list_append(&image->flush.parked, &request->link);
    ask(image);
}

void nfsds_flush_kick(struct nfsds_image *image)
{
    pthread_mutex_lock(&image->mutex);
    ask(image);
}

void nfsds_flush_ahead(struct nfsds_image *image)
{
    pthread_mutex_lock(&image->mutex);
    if (image->flush.running)
        pthread_mutex_unlock(&image->mutex);
    else
        ask(image);
}
