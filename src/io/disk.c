/* A request's way (all on the reactor that submitted it):
 *
 *   submit → region lock (reads only while a mirror is there) → routed → sent to one leg or two
 *   → judged by route_verdict → answered → every leg has ended → released
 *
 * Failure modes. A leg that does not answer: past the datastore's timeout the request is answered -EIO, but it keeps
 * its lock and its memory until the leg ends: it is a ghost, and what overlaps waits for it (law 6). A target that does
 * not answer within target-timeout is dropped as a whole, and never used again (a retry makes a new partial image,
 * which a late write to the old one cannot reach): so the lock goes at once, the memory when the leg ends (law 7).
 * While a commit's outcome is unknown nothing is dropped: a request whose legs disagree is parked until it is known
 * (law 1).
 *
 * What it does not do: it knows no job, it does not retry, it does not split requests. */
#include "io/disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "io/datastore.h"
#include "io/disk_private.h"
#include "io/mirror.h"

#define LOCK_BLOCK 4096 /* no leg has larger blocks: the odd edges of two writes never share one (law 5) */

static void send(struct disk_io *io);
static void dispatch(struct disk_io *io);
static void finish(struct disk_io *io);
static void judge(struct disk_io *io);
static void conclude(struct disk_io *io, enum verdict verdict);

struct disk_log *disk_log_get(struct disk_log *log)
{
    atomic_fetch_add(&log->references, 1);
    return log;
}

void disk_log_put(struct disk_log *log)
{
    if (log && atomic_fetch_sub(&log->references, 1) == 1)
        log->release(log);
}

int disk_new(struct disk **out, uint64_t id, struct image *truth)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk)
        return -ENOMEM;
    disk->id = id;
    disk->truth = truth;
    region_lock_init(&disk->lock, LOCK_BLOCK);
    pthread_mutex_init(&disk->mutex, NULL);
    list_init(&disk->flushes);
    atomic_init(&disk->references, 1);
    *out = disk;
    return 0;
}

struct disk *disk_get(struct disk *disk)
{
    atomic_fetch_add(&disk->references, 1);
    return disk;
}

void disk_put(struct disk *disk)
{
    if (!disk || atomic_fetch_sub(&disk->references, 1) != 1)
        return;
    image_put(disk->truth);
    mirror_put(disk->mirror);
    disk_log_put(disk->log);
    pthread_mutex_destroy(&disk->mutex);
    pthread_mutex_destroy(&disk->lock.mutex);
    free(disk);
}

unsigned disk_references(struct disk *disk)
{
    return atomic_load(&disk->references);
}

uint64_t disk_id(const struct disk *disk)
{
    return disk->id;
}

struct image *disk_truth(struct disk *disk)
{
    pthread_mutex_lock(&disk->mutex);
    struct image *truth = image_get(disk->truth);
    pthread_mutex_unlock(&disk->mutex);
    return truth;
}

uint64_t disk_size(struct disk *disk)
{
    pthread_mutex_lock(&disk->mutex);
    uint64_t size = atomic_load(&disk->truth->size);
    pthread_mutex_unlock(&disk->mutex);
    return size;
}

struct region_lock *disk_lock(struct disk *disk)
{
    return &disk->lock;
}

struct datastore *disk_datastore(struct disk *disk)
{
    pthread_mutex_lock(&disk->mutex);
    struct datastore *datastore = disk->truth->datastore;
    pthread_mutex_unlock(&disk->mutex);
    return datastore;
}

unsigned disk_in_flight(struct disk *disk)
{
    return atomic_load_explicit(&disk->in_flight, memory_order_relaxed);
}

uint64_t disk_worst(struct disk *disk, bool reset)
{
    return reset ? atomic_exchange(&disk->worst, 0) : atomic_load(&disk->worst);
}

/* What the request must exclude; false: it takes no lock. */
static bool needs_lock(struct disk_io *io, bool mirrored, struct lock_request *lock)
{
    lock->extent = io->extent;
    switch (io->verb) {
    case VERB_READ:
    case VERB_MAP:
        /* What was given up on has landed or not; it must not be seen to do so later. */
        lock->mode = LOCK_MODE_READ;
        return mirrored || atomic_load_explicit(&io->disk->ghosts, memory_order_acquire) > 0;
    case VERB_FLUSH:
        return false;
    case VERB_WRITE:
    case VERB_ZERO:
    case VERB_ALLOCATE:
        lock->mode = LOCK_MODE_WRITE;
        return true;
    case VERB_RESIZE: {
        uint64_t size = disk_size(io->disk);
        lock->mode = LOCK_MODE_WRITE;
        lock->extent = (struct extent){size < io->extent.end ? size : io->extent.end, UINT64_MAX};
        return true;
    }
    }
    abort();
}

static void granted(struct lock_request *request)
{
    send(container_of(request, struct disk_io, lock));
}

void disk_submit(struct disk *disk, struct disk_io *io)
{
    io->disk = disk_get(disk);
    atomic_fetch_add_explicit(&disk->in_flight, !(io->flags & IO_OWN), memory_order_relaxed);
    io->reactor = reactor_current();
    io->started = clock_now();
    io->state = DISK_IO_WAITING;
    io->is_answered = io->ghost = io->again = false;
    io->mirror = NULL;
    io->truth = NULL;
    io->log = NULL;
    io->pending = 0;
    io->legs[0].done = io->legs[1].done = NULL;
    list_append(reactor_pending(io->reactor), &io->link);
    pthread_mutex_lock(&disk->mutex);
    bool mirrored = disk->mirror != NULL;
    disk->own_flushes += io->flags & IO_OWN ? 1 : 0;
    pthread_mutex_unlock(&disk->mutex);
    io->lock.granted = granted;
    io->locked = needs_lock(io, mirrored, &io->lock);
    if (!io->locked || region_lock_acquire(&disk->lock, &io->lock))
        send(io);
}

/* One leg's answer. */
static void leg_done(struct disk_io *io, enum leg leg)
{
    io->pending &= ~(unsigned)leg;
    judge(io);
}

static void source_done(struct io *leg)
{
    leg_done(container_of(leg, struct disk_io, legs[0]), LEG_SOURCE);
}

static void target_done(struct io *leg)
{
    leg_done(container_of(leg, struct disk_io, legs[1]), LEG_TARGET);
}

static void send_leg(struct disk_io *io, enum leg which, struct image *image)
{
    struct io *leg = &io->legs[which == LEG_TARGET];
    leg->verb = io->verb;
    /* The copier writes the target directly; a mirrored write in the page cache would have to take turns with it. */
    leg->flags = io->flags | (which == LEG_TARGET ? IO_DIRECT : 0);
    leg->extent = io->extent;
    leg->iov = io->iov;
    leg->iov_count = io->iov_count;
    leg->done = which == LEG_TARGET ? target_done : source_done;
    image_submit(image, leg);
}

/* The bytes that the request changes on a disk of this size; false: none. */
static bool changes_at(struct disk_io *io, uint64_t size, struct extent *out)
{
    *out = io->extent;
    switch (io->verb) {
    case VERB_READ:
    case VERB_MAP:
    case VERB_FLUSH:
    case VERB_ALLOCATE:
        return false;
    case VERB_WRITE:
    case VERB_ZERO:
        return true;
    case VERB_RESIZE:
        *out = size < io->extent.end ? (struct extent){size, io->extent.end} : (struct extent){io->extent.end, size};
        return !extent_empty(*out);
    }
    abort();
}

/* Given up on before it was sent, it is over; nothing was changed. */
static void after_mark(struct task *task)
{
    struct disk_io *io = container_of(task, struct disk_io, task);
    if (io->is_answered)
        finish(io);
    else
        dispatch(io);
}

static void logged(struct log_request *request)
{
    struct disk_io *io = container_of(request, struct disk_io, mark);
    io->task.run = after_mark;
    reactor_post(io->reactor, &io->task);
}

/* Law 2: what changes bytes is marked before it is sent to any leg. */
static bool marked(struct disk_io *io)
{
    struct disk *disk = io->disk;
    if (!changes_at(io, disk_size(disk), &io->mark.extent))
        return true;
    pthread_mutex_lock(&disk->mutex);
    io->log = disk->log ? disk_log_get(disk->log) : NULL;
    pthread_mutex_unlock(&disk->mutex);
    if (!io->log)
        return true;
    io->mark.logged = logged;
    io->mark.touch = io->verb == VERB_RESIZE ? LOG_MARK : LOG_BOTH;
    io->state = DISK_IO_MARKING;
    return io->log->mark(io->log, &io->mark);
}

static void send(struct disk_io *io)
{
    if (marked(io))
        dispatch(io);
}

/* Between the mark and the legs the disk has turned, or begun to move: its log of now has to know of the change, too. */
static bool log_is_new(struct disk_io *io)
{
    struct extent extent;
    return io->disk->log && io->disk->log != io->log && changes_at(io, atomic_load(&io->disk->truth->size), &extent);
}

static void send_again(struct disk_io *io)
{
    if (io->log)
        io->log->settled(io->log, &io->mark);
    disk_log_put(io->log);
    io->log = NULL;
    send(io);
}

/* The lock is held. RESIZE goes to the truth first and to the target when that went well; the others to both at once.
 */
static void dispatch(struct disk_io *io)
{
    struct disk *disk = io->disk;
    pthread_mutex_lock(&disk->mutex);
    if (log_is_new(io)) {
        pthread_mutex_unlock(&disk->mutex);
        send_again(io);
        return;
    }
    io->truth = image_get(disk->truth);
    io->mirror = disk->mirror ? mirror_get(disk->mirror) : NULL;
    if (io->mirror)
        atomic_fetch_add(&disk->mirrored, 1);
    pthread_mutex_unlock(&disk->mutex);
    io->to = io->mirror ? mirror_route(io->mirror, io->verb, io->extent) : LEG_SOURCE;
    io->pending = io->to;
    io->state = DISK_IO_SENT;
    io->sent = clock_now();
    if (io->to & LEG_SOURCE)
        send_leg(io, LEG_SOURCE, io->truth);
    if (io->to & LEG_TARGET && !(io->verb == VERB_RESIZE && io->to & LEG_SOURCE))
        send_leg(io, LEG_TARGET, mirror_target(io->mirror));
}

/* The second half of a RESIZE on two legs: true when the target has still to be asked. */
static bool resize_target(struct disk_io *io)
{
    if (io->verb != VERB_RESIZE || io->pending != LEG_TARGET || io->to != (LEG_SOURCE | LEG_TARGET) || io->legs[1].done)
        return false;
    if (io->legs[0].result < 0) {
        io->to = LEG_SOURCE;
        io->pending = 0;
        return false;
    }
    io->sent = clock_now();
    send_leg(io, LEG_TARGET, mirror_target(io->mirror));
    return true;
}

static void unlock(struct disk_io *io)
{
    if (io->locked)
        region_lock_release(&io->disk->lock, &io->lock);
    if (io->ghost)
        atomic_fetch_sub(&io->disk->ghosts, 1);
    io->locked = io->ghost = false;
}

/* Nothing refers to the request any more. */
static void finish(struct disk_io *io)
{
    struct disk *disk = io->disk;
    unlock(io);
    list_remove(&io->link);
    io->state = DISK_IO_DONE;
    atomic_fetch_sub_explicit(&disk->in_flight, !(io->flags & IO_OWN), memory_order_relaxed);
    if (io->log)
        io->log->settled(io->log, &io->mark);
    disk_log_put(io->log);
    mirror_put(io->mirror);
    image_put(io->truth); /* NULL when it was never sent */
    io->released(io);
    disk_put(disk);
}

static void answer(struct disk_io *io, int result)
{
    if (io->is_answered)
        return;
    io->is_answered = true;
    io->result = result;
    uint64_t took = clock_now() - io->started;
    if (took > atomic_load_explicit(&io->disk->worst, memory_order_relaxed))
        atomic_store_explicit(&io->disk->worst, took, memory_order_relaxed);
    if (io->mirror && (io->verb == VERB_READ || io->verb == VERB_WRITE))
        mirror_served(io->mirror, took);
    io->answered(io);
}

static void take_result(struct disk_io *io, unsigned leg)
{
    struct io *from = &io->legs[leg];
    io->map_data = from->map_data;
    if (io->verb == VERB_MAP)
        io->extent.end = from->extent.end;
}

/* Both legs have answered and disagree: the source failed, the target did not. They differ there from now on. */
static void note_difference(struct disk_io *io)
{
    if (io->to == (LEG_SOURCE | LEG_TARGET) && io->legs[0].result < 0 && io->verb != VERB_FLUSH)
        mirror_set_dirty(io->mirror, io->extent);
}

static void flush_again(struct task *task)
{
    struct disk_io *io = container_of(task, struct disk_io, task);
    io->state = DISK_IO_SENT;
    judge(io);
}

/* A flush of the job's own that fails may have taken the only report of a failed write with it: whatever flush of the
 * guest ends beside it or next fails, too (law 10). False: it waits for one that is under way. */
static bool flush_told(struct disk_io *io, int *result)
{
    struct disk *disk = io->disk;
    struct list turn, *link;
    bool told = true;
    list_init(&turn);
    pthread_mutex_lock(&disk->mutex);
    if (io->flags & IO_OWN) {
        disk->own_flushes--;
        if (*result < 0)
            disk->flush_error = *result;
        if (disk->own_flushes == 0)
            list_splice(&turn, &disk->flushes);
    } else if (disk->own_flushes) {
        io->state = DISK_IO_FLUSHED;
        list_append(&disk->flushes, &io->mark.link);
        told = false;
    } else if (disk->flush_error) {
        *result = disk->flush_error;
        disk->flush_error = 0;
    }
    pthread_mutex_unlock(&disk->mutex);
    while ((link = list_pop(&turn))) {
        struct disk_io *flush = container_of(link, struct disk_io, mark.link);
        flush->task.run = flush_again;
        reactor_post(flush->reactor, &flush->task);
    }
    return told;
}

/* No write is in flight to either leg here, nor will be until the target has answered. */
static void ask_target(struct disk_io *io)
{
    io->state = DISK_IO_SENT;
    if (!disk_may_ask_again(io)) {
        conclude(io, VERDICT_SOURCE);
        return;
    }
    io->to = io->pending = LEG_TARGET;
    io->sent = clock_now();
    send_leg(io, LEG_TARGET, mirror_target(io->mirror));
}

static void granted_again(struct lock_request *request)
{
    ask_target(container_of(request, struct disk_io, lock));
}

/* Law 1's only exception. A read keeps no write from coming, so it comes again as the copier would: what one leg has of a
 * write that the other one may still refuse must not be seen. True: it is on its way. */
static bool ask_again(struct disk_io *io)
{
    if (io->again || io->to != LEG_SOURCE || io->legs[0].result >= 0 || !disk_may_ask_again(io))
        return false;
    unlock(io);
    io->again = io->locked = true;
    io->state = DISK_IO_WAITING;
    io->lock.mode = LOCK_MODE_COPY;
    io->lock.extent = io->extent;
    io->lock.granted = granted_again;
    if (region_lock_acquire(&io->disk->lock, &io->lock))
        ask_target(io);
    return true;
}

static void conclude(struct disk_io *io, enum verdict verdict)
{
    unsigned leg = verdict == VERDICT_TARGET;
    if (verdict == VERDICT_DROP) {
        mirror_drop(io->mirror, io->extent, io->verb, io->legs[1].result);
        judge(io); /* by the phase that holds now */
        return;
    }
    if (!leg && ask_again(io))
        return;
    int result = io->again ? disk_result_again(io) : io->legs[leg].result;
    if (io->verb == VERB_FLUSH && !flush_told(io, &result))
        return;
    if (!leg)
        note_difference(io);
    if (!io->pending)
        disk_note_both(io);
    take_result(io, leg);
    if (io->to & LEG_TARGET && io->verb == VERB_WRITE && io->legs[1].result == 0)
        mirror_count_written(io->mirror, extent_length(io->extent));
    /* What is still pending is a leg that does not count any more: the dropped target, the source after the flip.
     * Neither can reach an image that this disk will ever use, so the lock need not wait for it. */
    unlock(io);
    if (io->mirror)
        atomic_fetch_sub(&io->disk->mirrored, 1);
    answer(io, result);
    io->state = DISK_IO_DONE;
    if (!io->pending)
        finish(io);
}

static void judge(struct disk_io *io)
{
    if (io->state == DISK_IO_DONE) {
        if (!io->pending)
            finish(io);
        return;
    }
    if (io->state == DISK_IO_FLUSHED || resize_target(io))
        return;
    /* A result is looked at only when its leg has ended. */
    int source = io->pending & LEG_SOURCE ? 0 : io->legs[0].result;
    int target = io->pending & LEG_TARGET ? 0 : io->legs[1].result;
    enum mirror_phase phase = io->mirror ? mirror_phase(io->mirror) : MIRROR_NONE;
    if (phase == MIRROR_FLIPPED && disk_kept_waits(io, source, target))
        return;
    enum verdict verdict = route_verdict(phase, io->to, io->pending, source, target);
    switch (verdict) {
    case VERDICT_WAIT:
        return;
    case VERDICT_PARK:
        io->state = DISK_IO_PARKED;
        return;
    case VERDICT_SOURCE:
    case VERDICT_TARGET:
    case VERDICT_DROP:
        conclude(io, verdict);
        return;
    }
    abort();
}

void disk_unpark(struct reactor *reactor)
{
    list_for_each_safe (link, reactor_pending(reactor)) {
        struct disk_io *io = container_of(link, struct disk_io, link);
        if (io->state == DISK_IO_PARKED) {
            io->state = DISK_IO_SENT;
            judge(io);
        }
    }
}

/* The target's time is over: it is dropped, if the phase allows it. */
static void expire_target(struct disk_io *io, uint64_t now)
{
    if (io->state == DISK_IO_SENT && disk_kept_expires(io, now)) {
        judge(io);
        return;
    }
    if (io->state != DISK_IO_SENT || !(io->pending & LEG_TARGET) || !(io->to & LEG_SOURCE || io->again) ||
        !io->legs[1].done)
        return;
    if (now - io->sent > mirror_target_timeout(io->mirror))
        mirror_drop(io->mirror, io->extent, io->verb, -ETIMEDOUT);
    if (mirror_phase(io->mirror) != MIRROR_DROPPED)
        return;
    if (io->again)
        io->to = LEG_SOURCE;
    judge(io);
}

/* A task's turn may grant the lock just now: then the request goes on and is a ghost already. */
static void expire_request(struct disk_io *io)
{
    log_warning("disk %llu on datastore %s: %s of %llu bytes at offset %llu was not answered within %llu ms; the guest "
                "gets EIO",
        (unsigned long long)io->disk->id, disk_datastore(io->disk)->name, verb_name(io->verb),
        (unsigned long long)(io->verb == VERB_FLUSH || io->verb == VERB_RESIZE ? 0 : extent_length(io->extent)),
        (unsigned long long)io->extent.start, (unsigned long long)((clock_now() - io->started) / NS_PER_MS));
    if (io->state == DISK_IO_WAITING && io->locked && region_lock_cancel(&io->disk->lock, &io->lock)) {
        io->locked = false;
        if (io->again)
            atomic_fetch_sub(&io->disk->mirrored, 1);
        answer(io, -EIO);
        finish(io);
        return;
    }
    io->ghost = io->locked && io->lock.mode == LOCK_MODE_WRITE;
    if (io->ghost)
        atomic_fetch_add(&io->disk->ghosts, 1);
    answer(io, -EIO);
}

void disk_expire(struct reactor *reactor)
{
    uint64_t now = clock_now();
    list_for_each_safe (link, reactor_pending(reactor)) {
        struct disk_io *io = container_of(link, struct disk_io, link);
        if (io->is_answered)
            continue;
        if (now - io->started > disk_datastore(io->disk)->timeout_ns)
            expire_request(io);
        else
            expire_target(io, now);
    }
}
