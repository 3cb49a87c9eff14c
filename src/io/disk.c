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
#include "io/mirror.h"

#define LOCK_BLOCK 4096 /* no leg has larger blocks: the odd edges of two writes never share one (law 5) */

struct disk {
    /* set at creation */
    uint64_t id;
    struct region_lock lock;
    /* under mutex */
    pthread_mutex_t mutex;
    struct image *truth;
    struct mirror *mirror;
    /* atomic */
    _Atomic uint32_t references;
    _Atomic uint32_t mirrored; /* requests that hold the mirror and are not judged yet */
    _Atomic uint32_t in_flight;
    _Atomic uint32_t ghosts; /* changes that were given up on and hold their lock */
    _Atomic uint64_t worst;
};

static void send(struct disk_io *io);
static void judge(struct disk_io *io);

int disk_new(struct disk **out, uint64_t id, struct image *truth)
{
    struct disk *disk = calloc(1, sizeof(*disk));
    if (!disk)
        return -ENOMEM;
    disk->id = id;
    disk->truth = truth;
    region_lock_init(&disk->lock, LOCK_BLOCK);
    pthread_mutex_init(&disk->mutex, NULL);
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
    atomic_fetch_add_explicit(&disk->in_flight, 1, memory_order_relaxed);
    io->reactor = reactor_current();
    io->started = clock_now();
    io->state = DISK_IO_WAITING;
    io->is_answered = io->ghost = false;
    io->mirror = NULL;
    io->truth = NULL;
    io->legs[0].done = io->legs[1].done = NULL;
    list_append(reactor_pending(io->reactor), &io->link);
    pthread_mutex_lock(&disk->mutex);
    bool mirrored = disk->mirror != NULL;
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

/* The lock is held. RESIZE goes to the truth first and to the target when that went well; the others to both at once.
 */
static void send(struct disk_io *io)
{
    struct disk *disk = io->disk;
    pthread_mutex_lock(&disk->mutex);
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
    atomic_fetch_sub_explicit(&disk->in_flight, 1, memory_order_relaxed);
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

static void conclude(struct disk_io *io, enum verdict verdict)
{
    unsigned leg = verdict == VERDICT_TARGET;
    if (verdict == VERDICT_DROP) {
        mirror_drop(io->mirror, io->extent, io->verb, io->legs[1].result);
        judge(io); /* by the phase that holds now */
        return;
    }
    if (!leg)
        note_difference(io);
    take_result(io, leg);
    if (io->to & LEG_TARGET && io->verb == VERB_WRITE && io->legs[1].result == 0)
        mirror_count_written(io->mirror, extent_length(io->extent));
    /* What is still pending is a leg that does not count any more: the dropped target, the source after the flip.
     * Neither can reach an image that this disk will ever use, so the lock need not wait for it. */
    unlock(io);
    if (io->mirror)
        atomic_fetch_sub(&io->disk->mirrored, 1);
    answer(io, io->legs[leg].result);
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
    if (resize_target(io))
        return;
    /* A result is looked at only when its leg has ended. */
    int source = io->pending & LEG_SOURCE ? 0 : io->legs[0].result;
    int target = io->pending & LEG_TARGET ? 0 : io->legs[1].result;
    enum mirror_phase phase = io->mirror ? mirror_phase(io->mirror) : MIRROR_NONE;
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
    if (io->state != DISK_IO_SENT || !(io->pending & LEG_TARGET) || !(io->to & LEG_SOURCE) || !io->legs[1].done)
        return;
    if (now - io->sent > mirror_target_timeout(io->mirror))
        mirror_drop(io->mirror, io->extent, io->verb, -ETIMEDOUT);
    if (mirror_phase(io->mirror) == MIRROR_DROPPED)
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

struct ghost {
    struct lock_request lock;
    struct disk *disk;
    struct image *truth;
};

static void fenced(void *argument)
{
    struct ghost *ghost = argument;
    region_lock_release(&ghost->disk->lock, &ghost->lock);
    image_put(ghost->truth);
    disk_put(ghost->disk);
    free(ghost);
}

/* Called before the first submit, so that the lock is held at once unless ghosts overlap, in which case any of them
 * will do. */
static void ghost_granted(struct lock_request *request)
{
    struct ghost *ghost = container_of(request, struct ghost, lock);
    image_fence(ghost->truth, fenced, ghost);
}

void disk_add_ghost(struct disk *disk, struct extent extent)
{
    struct ghost *ghost = calloc(1, sizeof(*ghost));
    if (!ghost)
        abort(); /* a lost ghost loses data; the next worker tries again */
    ghost->disk = disk_get(disk);
    ghost->truth = disk_truth(disk);
    ghost->lock.mode = LOCK_MODE_WRITE;
    ghost->lock.extent = extent;
    ghost->lock.granted = ghost_granted;
    if (region_lock_acquire(&disk->lock, &ghost->lock))
        ghost_granted(&ghost->lock);
}

int disk_attach(struct disk *disk, struct mirror *mirror)
{
    pthread_mutex_lock(&disk->mutex);
    int error = disk->mirror ? -EBUSY : 0;
    if (!error)
        disk->mirror = mirror_get(mirror);
    pthread_mutex_unlock(&disk->mutex);
    return error;
}

void disk_flip(struct disk *disk, struct mirror *mirror)
{
    pthread_mutex_lock(&disk->mutex);
    struct image *source = disk->truth;
    mirror_flip(mirror);
    disk->truth = image_get(mirror_target(mirror));
    pthread_mutex_unlock(&disk->mutex);
    image_put(source);
}

void disk_detach(struct disk *disk, struct mirror *mirror)
{
    pthread_mutex_lock(&disk->mutex);
    bool ours = disk->mirror == mirror;
    if (ours)
        disk->mirror = NULL;
    pthread_mutex_unlock(&disk->mutex);
    if (ours)
        mirror_put(mirror);
}

bool disk_mirror_idle(struct disk *disk, struct mirror *mirror)
{
    return atomic_load(&disk->mirrored) == 0;
}
