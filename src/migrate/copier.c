/* A unit copies one region: lock (COPY) → read the source → write what is not zero to the target → routed → unlock.
 * While it runs a guest's write to that region waits for it alone; reads never wait. A window of units is in flight.
 *
 * Holes: the scout asks the source, without a lock, how far the present run of data or hole goes. Of data it is only a
 * hint that saves questions: reading a hole does no harm. A run of hole becomes one unit over many regions, which asks
 * again under its lock before it believes it (law 4), so that an empty terabyte costs one question. Zeroes that were
 * read are not written either, by pages. Where the target's region has been written through this mirror already
 * (touched), they are zeroed there.
 *
 * Passes: after the last region the sweep begins again at the first that is not routed: those that the guest's writes
 * made dirty because the source failed there, and holes that were none. Writes to routed regions never add to it, so it
 * ends.
 *
 * Failure modes: a source that cannot be read is asked again a few times, then page by page to name the offset, then
 * the job is told. A target that fails or hangs is dropped, which the job hears through the mirror. Stop lets go of all
 * locks at once: a write still in flight can only reach an image that nobody will use. */
#include "migrate/copier.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "io/datastore.h"
#include "migrate/throttle.h"
#include "migrate/zeroes.h"

#define PAGE         ZEROES_PAGE
#define READ_TRIES   3
#define RETRY_DELAY  (200 * NS_PER_MS)
#define WATCH_PERIOD (100 * NS_PER_MS)

enum unit_state { UNIT_FREE, UNIT_LOCKING, UNIT_MAPPING, UNIT_READING, UNIT_RETRYING, UNIT_WRITING };

struct unit {
    struct copier *copier;
    enum unit_state state;
    bool locked;
    struct extent extent;
    bool hole; /* the scout believes so */
    struct lock_request lock;
    uint64_t position; /* bytes of the buffer that are dealt with */
    uint64_t since;    /* when its io was sent */
    unsigned tries;
    bool narrow; /* looking for the offset of a bad page */
    struct io io;
    struct iovec iov;
    uint8_t *buffer;
    struct timer timer;
};

struct run {
    struct extent extent;
    bool data;
};

struct copier {
    struct copier_options options;
    struct image *source;
    unsigned busy, references; /* reactor's thread; references: the job's, one a busy unit, the scout, the finisher */
    bool paused, stopped, finished, scouting, finishing, tail_locked;
    uint64_t cursor;         /* region */
    struct run known, ahead; /* the run that units are made of, and the one after it */
    struct throttle throttle;
    struct timer retry, watch;
    struct io scout, resize;
    struct lock_request tail;
    uint64_t resize_since;
    _Atomic uint64_t rate, copied, skipped;
    struct unit units[];
};

static void fill(struct copier *copier);
static void unit_next(struct unit *unit);

static void copier_release(struct copier *copier)
{
    if (--copier->references)
        return;
    for (unsigned i = 0; i < copier->options.window; i++)
        free(copier->units[i].buffer);
    image_put(copier->source);
    mirror_put(copier->options.mirror);
    disk_put(copier->options.disk);
    free(copier);
}

static void unit_unlock(struct unit *unit)
{
    if (unit->locked)
        region_lock_release(disk_lock(unit->copier->options.disk), &unit->lock);
    unit->locked = false;
}

static void unit_end(struct unit *unit)
{
    struct copier *copier = unit->copier;
    unit_unlock(unit);
    unit->state = UNIT_FREE;
    copier->busy--;
    if (!copier->stopped)
        fill(copier);
    copier_release(copier);
}

static void unit_routed(struct unit *unit)
{
    if (!unit->copier->stopped)
        mirror_set_routed(unit->copier->options.mirror, unit->extent);
    unit_end(unit);
}

static void unit_io_done(struct io *io)
{
    unit_next(container_of(io, struct unit, io));
}

static void unit_send(
    struct unit *unit, enum unit_state state, struct image *image, enum verb verb, struct extent extent)
{
    unit->state = state;
    unit->since = clock_now();
    unit->iov = (struct iovec){unit->buffer + (extent.start - unit->extent.start), extent_length(extent)};
    unit->io = (struct io){.verb = verb, .flags = IO_DIRECT | IO_MAY_UNMAP, .extent = extent, .done = unit_io_done};
    if (verb == VERB_READ || verb == VERB_WRITE) {
        unit->io.iov = &unit->iov;
        unit->io.iov_count = 1;
    }
    image_submit(image, &unit->io);
}

static void unit_read(struct unit *unit)
{
    struct extent extent = unit->extent;
    if (unit->narrow) {
        extent.start += unit->position;
        extent.end = extent.start + PAGE < extent.end ? extent.start + PAGE : extent.end;
    }
    unit_send(unit, UNIT_READING, unit->copier->source, VERB_READ, extent);
}

static void unit_retry(struct timer *timer)
{
    struct unit *unit = container_of(timer, struct unit, timer);
    if (unit->copier->stopped)
        unit_end(unit);
    else
        unit_read(unit);
}

static void unit_read_failed(struct unit *unit)
{
    struct copier *copier = unit->copier;
    if (unit->narrow) {
        uint64_t offset = unit->io.extent.start;
        int error = unit->io.result;
        copier->paused = true;
        copier->options.failed(copier->options.job, offset, error);
        unit_end(unit);
    } else if (++unit->tries < READ_TRIES) {
        unit->state = UNIT_RETRYING;
        timer_set(copier->options.reactor, &unit->timer, RETRY_DELAY);
    } else {
        unit->narrow = true;
        unit->position = 0;
        unit_read(unit);
    }
}

static void unit_write(struct unit *unit)
{
    struct copier *copier = unit->copier;
    struct mirror *mirror = copier->options.mirror;
    uint64_t length = extent_length(unit->extent);
    while (unit->position < length) {
        bool zero = false;
        uint64_t end = zeroes_run(unit->buffer, unit->position, length, &zero);
        struct extent extent = {unit->extent.start + unit->position, unit->extent.start + end};
        uint64_t bytes = end - unit->position;
        unit->position = end;
        atomic_fetch_add(zero ? &copier->skipped : &copier->copied, bytes);
        if (!zero) {
            bool allocate = copier->options.allocate && !mirror_touched(mirror, extent);
            mirror_touch(mirror, extent);
            unit_send(unit, UNIT_WRITING, mirror_target(mirror), allocate ? VERB_ALLOCATE : VERB_WRITE, extent);
            return;
        }
        if (mirror_touched(mirror, extent)) {
            unit_send(unit, UNIT_WRITING, mirror_target(mirror), VERB_ZERO, extent);
            return;
        }
    }
    unit_routed(unit);
}

static void unit_was_read(struct unit *unit)
{
    if (unit->io.result < 0) {
        unit_read_failed(unit);
        return;
    }
    if (unit->narrow) {
        unit->position += extent_length(unit->io.extent);
        if (unit->position < extent_length(unit->extent)) {
            unit_read(unit);
            return;
        }
    }
    unit->position = 0;
    unit_write(unit);
}

/* Under the lock: the run of hole as it is now, cut to whole regions. What is left is found by the next pass. */
static void unit_was_mapped(struct unit *unit)
{
    struct copier *copier = unit->copier;
    struct extent hole = {unit->extent.start, unit->io.extent.end};
    if (hole.end < unit->extent.end)
        hole.end -= hole.end % REGION_SIZE;
    if (unit->io.result < 0 || mirror_touched(copier->options.mirror, hole)) {
        unit->hole = false; /* the long way, for its first region */
        hole.end = unit->extent.start + REGION_SIZE;
        unit->extent = extent_intersect(unit->extent, (struct extent){unit->extent.start, hole.end});
        unit_read(unit);
        return;
    }
    if (unit->io.map_data || extent_empty(hole)) {
        copier->known = copier->ahead = (struct run){{0, 0}, false};
        unit_end(unit);
        return;
    }
    atomic_fetch_add(&copier->skipped, extent_length(hole));
    unit->extent = hole;
    unit_routed(unit);
}

/* A step of a unit has ended. */
static void unit_next(struct unit *unit)
{
    struct copier *copier = unit->copier;
    if (copier->stopped) {
        unit_end(unit);
        return;
    }
    switch (unit->state) {
    case UNIT_FREE:
    case UNIT_RETRYING:
        abort();
    case UNIT_LOCKING:
        unit->locked = true;
        if (unit->hole)
            unit_send(unit, UNIT_MAPPING, copier->source, VERB_MAP, unit->extent);
        else
            unit_read(unit);
        return;
    case UNIT_MAPPING:
        unit_was_mapped(unit);
        return;
    case UNIT_READING:
        unit_was_read(unit);
        return;
    case UNIT_WRITING:
        if (unit->io.result < 0) {
            mirror_drop(copier->options.mirror, unit->io.extent, unit->io.verb, unit->io.result);
            unit_end(unit);
        } else if (unit->io.verb == VERB_ALLOCATE) {
            unit_send(unit, UNIT_WRITING, mirror_target(copier->options.mirror), VERB_WRITE, unit->io.extent);
        } else {
            unit_write(unit);
        }
        return;
    }
}

static void unit_granted(struct lock_request *request)
{
    struct unit *unit = container_of(request, struct unit, lock);
    unit->locked = true;
    unit_next(unit);
}

static void unit_start(struct unit *unit, struct extent extent, bool hole)
{
    struct copier *copier = unit->copier;
    copier->references++;
    copier->busy++;
    unit->state = UNIT_LOCKING;
    unit->extent = extent;
    unit->hole = hole;
    unit->tries = 0;
    unit->narrow = false;
    unit->position = 0;
    unit->lock = (struct lock_request){.mode = LOCK_MODE_COPY, .extent = extent, .granted = unit_granted};
    if (region_lock_acquire(disk_lock(copier->options.disk), &unit->lock))
        unit_next(unit);
}

static void scouted(struct io *io)
{
    struct copier *copier = container_of(io, struct copier, scout);
    copier->scouting = false;
    copier->ahead = (struct run){io->extent, io->result < 0 || io->map_data}; /* not known: read it */
    if (!copier->stopped)
        fill(copier);
    copier_release(copier);
}

static void scout(struct copier *copier, struct extent extent)
{
    copier->references++;
    copier->scouting = true;
    copier->scout = (struct io){.verb = VERB_MAP, .extent = extent, .done = scouted};
    image_submit(copier->source, &copier->scout);
}

/* All is routed; the target's end may still be short of a last hole. Under the lock of the tail the sizes are made
 * equal. */
static void finish_end(struct copier *copier, int result)
{
    if (copier->tail_locked)
        region_lock_release(disk_lock(copier->options.disk), &copier->tail);
    copier->tail_locked = false;
    copier->finishing = false;
    if (result < 0)
        mirror_drop(copier->options.mirror, copier->resize.extent, VERB_RESIZE, result);
    else if (!copier->stopped && mirror_unrouted(copier->options.mirror))
        fill(copier);
    else if (!copier->stopped) {
        copier->finished = true;
        copier->options.done(copier->options.job);
    }
    copier_release(copier);
}

/* Stop: the tail's lock goes at once, whether waited for or held by a target that hangs in its resize. */
static void finish_abandon(struct copier *copier)
{
    if (copier->tail_locked) {
        region_lock_release(disk_lock(copier->options.disk), &copier->tail);
        copier->tail_locked = false;
    } else if (copier->finishing && region_lock_cancel(disk_lock(copier->options.disk), &copier->tail)) {
        finish_end(copier, 0);
    }
}

static void finish_resized(struct io *io)
{
    finish_end(container_of(io, struct copier, resize), io->result);
}

static void finish_granted(struct lock_request *request)
{
    struct copier *copier = container_of(request, struct copier, tail);
    struct image *target = mirror_target(copier->options.mirror);
    uint64_t size = atomic_load(&copier->source->size);
    copier->tail_locked = true;
    copier->resize_since = clock_now();
    if (copier->stopped || atomic_load(&target->size) == size) {
        finish_end(copier, 0);
        return;
    }
    copier->resize = (struct io){.verb = VERB_RESIZE, .extent = {0, size}, .done = finish_resized};
    image_submit(target, &copier->resize);
}

static void finish(struct copier *copier)
{
    uint64_t source = atomic_load(&copier->source->size);
    uint64_t target = atomic_load(&mirror_target(copier->options.mirror)->size);
    copier->references++;
    copier->finishing = true;
    copier->tail = (struct lock_request){
        .mode = LOCK_MODE_COPY, .extent = {source < target ? source : target, UINT64_MAX}, .granted = finish_granted};
    if (region_lock_acquire(disk_lock(copier->options.disk), &copier->tail))
        finish_granted(&copier->tail);
}

static void retry_fill(struct timer *timer)
{
    fill(container_of(timer, struct copier, retry));
}

/* While the guest has requests in flight the window is small: what stands in the disks' queues before a request of the
 * guest is what it waits for. */
static struct unit *free_unit(struct copier *copier)
{
    if (copier->busy >= copier->options.guest_window && disk_in_flight(copier->options.disk) > 0)
        return NULL;
    for (unsigned i = 0; i < copier->options.window; i++)
        if (copier->units[i].state == UNIT_FREE)
            return &copier->units[i];
    return NULL;
}

static bool covers(const struct run *run, uint64_t offset)
{
    return offset >= run->extent.start && offset < run->extent.end;
}

/* Is the run at start known? Else the scout is sent; and it is sent ahead, so that the window does not wait for it. */
static bool know(struct copier *copier, uint64_t start, uint64_t size)
{
    if (!covers(&copier->known, start) && covers(&copier->ahead, start)) {
        copier->known = copier->ahead;
        copier->ahead = (struct run){{0, 0}, false};
    }
    bool known = covers(&copier->known, start);
    uint64_t next = known ? copier->known.extent.end : start;
    if (!copier->scouting && next < size && !covers(&copier->ahead, next))
        scout(copier, (struct extent){next, size});
    return known;
}

/* What the next unit would be; false: nothing to start now. */
static bool next_extent(struct copier *copier, struct extent *extent, bool *hole)
{
    uint64_t size = atomic_load(&copier->source->size);
    uint64_t region = mirror_next_unrouted(copier->options.mirror, copier->cursor);
    uint64_t start = region * REGION_SIZE;
    if (region == mirror_regions(copier->options.mirror)) {
        /* What is in flight is not routed yet: the next pass begins when this one is over. */
        copier->cursor = copier->busy ? region : 0;
        copier->known = copier->ahead = (struct run){{0, 0}, false};
        return false;
    }
    if (start >= size) { /* shrunk meanwhile: there is nothing on either leg */
        *extent = (struct extent){start, start + REGION_SIZE};
        *hole = true;
        return true;
    }
    if (!know(copier, start, size))
        return false;
    uint64_t end = copier->known.extent.end;
    struct extent run = {start, end == size ? size : end - end % REGION_SIZE};
    *hole = !copier->known.data && !extent_empty(run) && !mirror_touched(copier->options.mirror, run);
    if (!*hole)
        run.end = start + REGION_SIZE < size ? start + REGION_SIZE : size;
    *extent = run;
    return true;
}

static uint64_t ask_rate(struct copier *copier, uint64_t bytes)
{
    uint64_t now = clock_now(), rate = atomic_load(&copier->rate);
    if (rate != copier->throttle.rate)
        throttle_set(&copier->throttle, now, rate);
    return throttle_ask(&copier->throttle, now, bytes);
}

static void fill(struct copier *copier)
{
    struct unit *unit;
    while (!copier->paused && !copier->finished && !copier->finishing && (unit = free_unit(copier))) {
        struct extent extent;
        bool hole;
        if (mirror_phase(copier->options.mirror) != MIRROR_ATTACHED)
            return;
        if (!next_extent(copier, &extent, &hole)) {
            if (copier->busy || copier->scouting)
                return;
            if (mirror_unrouted(copier->options.mirror) == 0) {
                finish(copier);
                return;
            }
            continue; /* the next pass */
        }
        uint64_t delay = hole ? 0 : ask_rate(copier, extent_length(extent));
        if (delay) {
            timer_set(copier->options.reactor, &copier->retry, delay < WATCH_PERIOD ? delay : WATCH_PERIOD);
            return;
        }
        copier->cursor = (extent.end + REGION_SIZE - 1) / REGION_SIZE;
        unit_start(unit, extent, hole);
    }
}

/* Does a leg hang? */
static void watch(struct timer *timer)
{
    struct copier *copier = container_of(timer, struct copier, watch);
    uint64_t now = clock_now(), target_timeout = mirror_target_timeout(copier->options.mirror);
    uint64_t source_timeout = copier->source->datastore->timeout_ns;
    for (unsigned i = 0; i < copier->options.window && !copier->paused; i++) {
        struct unit *unit = &copier->units[i];
        if (unit->state == UNIT_WRITING && now - unit->since > target_timeout)
            mirror_drop(copier->options.mirror, unit->io.extent, unit->io.verb, -ETIMEDOUT);
        if (unit->state == UNIT_READING && now - unit->since > source_timeout) {
            copier->paused = true;
            copier->options.failed(copier->options.job, unit->io.extent.start, -ETIMEDOUT);
        }
    }
    if (copier->tail_locked && now - copier->resize_since > target_timeout)
        mirror_drop(copier->options.mirror, copier->resize.extent, VERB_RESIZE, -ETIMEDOUT);
    timer_set(copier->options.reactor, &copier->watch, WATCH_PERIOD);
}

static void start_here(void *argument)
{
    struct copier *copier = argument;
    timer_set(copier->options.reactor, &copier->watch, WATCH_PERIOD);
    fill(copier);
}

int copier_start(struct copier **out, const struct copier_options *options)
{
    struct copier *copier = calloc(1, sizeof(*copier) + options->window * sizeof(struct unit));
    if (!copier)
        return -ENOMEM;
    copier->options = *options;
    copier->references = 1;
    copier->source = disk_truth(options->disk);
    disk_get(options->disk);
    mirror_get(options->mirror);
    atomic_init(&copier->rate, options->rate);
    for (unsigned i = 0; i < options->window; i++) {
        copier->units[i].copier = copier;
        copier->units[i].timer.fired = unit_retry;
        if (posix_memalign((void **)&copier->units[i].buffer, PAGE, REGION_SIZE)) {
            copier_release(copier);
            return -ENOMEM;
        }
    }
    copier->retry.fired = retry_fill;
    copier->watch.fired = watch;
    *out = copier;
    reactor_call(options->reactor, start_here, copier);
    return 0;
}

static void stop_here(void *argument)
{
    struct copier *copier = argument;
    copier->stopped = true;
    timer_cancel(&copier->retry);
    timer_cancel(&copier->watch);
    for (unsigned i = 0; i < copier->options.window; i++) {
        struct unit *unit = &copier->units[i];
        if (unit->state == UNIT_LOCKING && region_lock_cancel(disk_lock(copier->options.disk), &unit->lock))
            unit_end(unit);
        else if (unit->state == UNIT_RETRYING) {
            timer_cancel(&unit->timer);
            unit_end(unit);
        } else {
            unit_unlock(unit);
        }
    }
    finish_abandon(copier);
    copier_release(copier);
}

void copier_stop(struct copier *copier)
{
    if (copier)
        reactor_call(copier->options.reactor, stop_here, copier);
}

struct steer {
    struct copier *copier;
    uint64_t value;
};

static void pause_here(void *argument)
{
    struct steer *steer = argument;
    steer->copier->paused = steer->value;
    fill(steer->copier);
}

void copier_pause(struct copier *copier, bool paused)
{
    struct steer steer = {copier, paused};
    reactor_call(copier->options.reactor, pause_here, &steer);
}

void copier_set_rate(struct copier *copier, uint64_t rate)
{
    atomic_store(&copier->rate, rate);
}

static void kick_here(void *argument)
{
    struct copier *copier = argument;
    copier->finished = false;
    fill(copier);
}

void copier_kick(struct copier *copier)
{
    reactor_call(copier->options.reactor, kick_here, copier);
}

struct copier_progress copier_progress(struct copier *copier)
{
    return (struct copier_progress){atomic_load(&copier->copied), atomic_load(&copier->skipped)};
}
