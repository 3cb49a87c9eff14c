/* A unit compares one region: lock (COPY) → digest of the source's bytes → digest of the target's → equal, or dirty →
 * unlock. All regions are routed, so the guest's writes go to both legs meanwhile; one to the region of a unit waits
 * for that unit alone, and what comes after it does what any mirrored write does. So a region that was found equal
 * stays equal, as far as the target writes what it says, and one look at each is enough.
 *
 * Holes: under the lock the unit asks both legs for their runs. What is a hole on both is equal unread; the run that
 * was told lets the next unit lock and ask for all of it at once, so that an empty terabyte costs a few questions. What
 * is a hole on one leg alone is compared with zeroes. A leg that cannot tell is read.
 *
 * A difference makes the region dirty (mirror_set_dirty): the copier takes it again, then it is compared again; other
 * regions are not. A region that differs VERIFIER_TRIES times ends it: the target does not keep what it is given.
 *
 * Failure modes: a source that cannot be read is asked again a few times, then page by page to name the offset, then
 * the job is told. A target that cannot be read or hangs is dropped. Stop lets go of all locks at once: a unit only
 * reads.
 *
 * What it does not do: what the guest writes to a region after its comparison is believed, as it is in every move. */
#include "migrate/verifier.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/clock.h"
#include "base/log.h"
#include "io/datastore.h"
#include "migrate/throttle.h"

#define PAGE         4096u
#define READ_TRIES   3
#define RETRY_DELAY  (200 * NS_PER_MS)
#define WATCH_PERIOD (100 * NS_PER_MS)

enum unit_state { UNIT_FREE, UNIT_LOCKING, UNIT_MAPPING, UNIT_READING, UNIT_RETRYING };

enum { SOURCE, TARGET, LEGS };

struct unit {
    struct verifier *verifier;
    enum unit_state state;
    unsigned leg;
    bool locked;
    struct extent asked;     /* what is locked: whole regions */
    struct extent extent;    /* the part of it that the disk has; when it is read, of the first region */
    struct extent map[LEGS]; /* the run of hole on each leg at extent.start, empty: none, or not known */
    struct lock_request lock;
    uint64_t position; /* bytes of the buffer that are read, when narrow */
    uint64_t since;    /* when its io was sent */
    unsigned tries;
    bool narrow; /* looking for the offset of a bad page */
    struct io io;
    struct iovec iov;
    uint8_t *buffer;
    XXH128_hash_t digest[LEGS];
    struct timer timer;
};

/* The last answer to a question for a run: a hint, asked for again under the lock where a hole is to be believed. */
struct run {
    struct extent extent;
    bool data;
};

struct verifier {
    struct verifier_options options;
    struct image *legs[LEGS];
    unsigned busy, references;              /* reactor's thread; references: the job's, and one a busy unit */
    bool paused, stopped, finished, broken; /* broken: the job was told that it is in vain */
    uint64_t cursor;                        /* region */
    struct run known[LEGS];
    uint8_t *failures; /* how often each region differed; NULL: none did */
    uint64_t failure_room;
    struct throttle throttle;
    struct timer retry, watch;
    _Atomic uint64_t rate, verified, differences;
    struct unit units[];
};

static void fill(struct verifier *verifier);
static void unit_step(struct unit *unit);

static void verifier_release(struct verifier *verifier)
{
    if (--verifier->references)
        return;
    for (unsigned i = 0; i < verifier->options.window; i++)
        free(verifier->units[i].buffer);
    free(verifier->failures);
    image_put(verifier->legs[SOURCE]);
    mirror_put(verifier->options.mirror);
    disk_put(verifier->options.disk);
    free(verifier);
}

/* ---- a unit's end ---- */

static void unit_unlock(struct unit *unit)
{
    if (unit->locked)
        region_lock_release(disk_lock(unit->verifier->options.disk), &unit->lock);
    unit->locked = false;
}

static void unit_end(struct unit *unit)
{
    struct verifier *verifier = unit->verifier;
    unit_unlock(unit);
    unit->state = UNIT_FREE;
    verifier->busy--;
    if (!verifier->stopped)
        fill(verifier);
    verifier_release(verifier);
}

/* From extent.start to end, which is the disk's end or a region's: equal. What is left is found by the next pass. */
static void unit_equal(struct unit *unit, uint64_t end)
{
    struct verifier *verifier = unit->verifier;
    struct extent equal = {unit->extent.start, end};
    if (end < unit->asked.end && end < unit->extent.end)
        verifier->cursor = verifier->cursor < end / REGION_SIZE ? verifier->cursor : end / REGION_SIZE;
    atomic_fetch_add(&verifier->verified, extent_length(extent_intersect(equal, unit->extent)));
    mirror_set_compared(verifier->options.mirror, equal);
    unit_end(unit);
}

/* How often the region has differed, this time counted. */
static unsigned count_failure(struct verifier *verifier, uint64_t region)
{
    if (region >= verifier->failure_room) {
        uint64_t room = mirror_regions(verifier->options.mirror);
        room = room > region ? room : region + 1;
        uint8_t *failures = realloc(verifier->failures, room);
        if (!failures)
            return VERIFIER_TRIES; /* rather than copying for ever */
        memset(failures + verifier->failure_room, 0, room - verifier->failure_room);
        verifier->failures = failures;
        verifier->failure_room = room;
    }
    return ++verifier->failures[region];
}

static void unit_differs(struct unit *unit)
{
    struct verifier *verifier = unit->verifier;
    unsigned times = count_failure(verifier, region_of(unit->extent.start));
    atomic_fetch_add(&verifier->differences, 1);
    mirror_touch(verifier->options.mirror, unit->extent); /* whatever is there: what should be zero is zeroed (law 4) */
    mirror_set_dirty(verifier->options.mirror, unit->extent);
    if (times >= VERIFIER_TRIES)
        verifier->broken = true;
    verifier->options.differs(verifier->options.job, unit->extent, times);
    unit_end(unit);
}

/* ---- reading ---- */

static void unit_io_done(struct io *io)
{
    unit_step(container_of(io, struct unit, io));
}

static void unit_send(struct unit *unit, enum unit_state state, enum verb verb, struct extent extent)
{
    unit->state = state;
    unit->since = clock_now();
    unit->iov = (struct iovec){unit->buffer + (extent.start - unit->extent.start), extent_length(extent)};
    unit->io = (struct io){.verb = verb, .flags = IO_DIRECT | IO_COPY, .extent = extent, .done = unit_io_done};
    if (verb == VERB_READ) {
        unit->io.iov = &unit->iov;
        unit->io.iov_count = 1;
    }
    image_submit(unit->verifier->legs[unit->leg], &unit->io);
}

static void unit_read(struct unit *unit)
{
    struct extent extent = unit->extent;
    if (unit->narrow) {
        extent.start += unit->position;
        extent.end = extent.start + PAGE < extent.end ? extent.start + PAGE : extent.end;
    }
    unit_send(unit, UNIT_READING, VERB_READ, extent);
}

static void unit_digest(struct unit *unit)
{
    unit->digest[unit->leg] = XXH3_128bits(unit->buffer, extent_length(unit->extent));
}

/* The legs from unit->leg on have still to be looked at: read, or known to be zeroes. */
static void unit_compare(struct unit *unit)
{
    for (; unit->leg < LEGS; unit->leg++) {
        if (unit->map[unit->leg].end < unit->extent.end) {
            unit->tries = 0;
            unit->position = 0;
            unit->narrow = false;
            unit_read(unit);
            return;
        }
        memset(unit->buffer, 0, extent_length(unit->extent));
        unit_digest(unit);
    }
    if (XXH128_isEqual(unit->digest[SOURCE], unit->digest[TARGET]))
        unit_equal(unit, unit->extent.end);
    else
        unit_differs(unit);
}

static void unit_retry(struct timer *timer)
{
    struct unit *unit = container_of(timer, struct unit, timer);
    if (unit->verifier->stopped)
        unit_end(unit);
    else
        unit_read(unit);
}

static void unit_read_failed(struct unit *unit)
{
    struct verifier *verifier = unit->verifier;
    if (unit->leg == TARGET) {
        mirror_drop(verifier->options.mirror, unit->io.extent, VERB_READ, unit->io.result);
        unit_end(unit);
    } else if (unit->narrow && verifier->options.rescue && lost_by(unit->io.result)) {
        log_warning("disk %llu: the source cannot be read at offset %llu: its region is not compared",
            (unsigned long long)disk_id(verifier->options.disk), (unsigned long long)unit->io.extent.start);
        mirror_set_compared(verifier->options.mirror, unit->extent); /* and is not counted as verified */
        unit_end(unit);
    } else if (unit->narrow) {
        verifier->broken = true;
        verifier->options.failed(verifier->options.job, unit->io.extent.start, unit->io.result);
        unit_end(unit);
    } else if (++unit->tries < READ_TRIES) {
        unit->state = UNIT_RETRYING;
        timer_set(verifier->options.reactor, &unit->timer, RETRY_DELAY);
    } else {
        unit->narrow = true;
        unit->position = 0;
        unit_read(unit);
    }
}

static void unit_was_read(struct unit *unit)
{
    if (unit->io.result < 0) {
        unit_read_failed(unit);
        return;
    }
    unit->position += extent_length(unit->io.extent);
    if (unit->narrow && unit->position < extent_length(unit->extent)) {
        unit_read(unit);
        return;
    }
    unit_digest(unit);
    unit->leg++;
    unit_compare(unit);
}

/* ---- holes ---- */

static bool covers(const struct run *run, uint64_t offset)
{
    return offset >= run->extent.start && offset < run->extent.end;
}

/* Only the first region is compared by its bytes. */
static void unit_compare_first(struct unit *unit)
{
    uint64_t end = unit->extent.start + REGION_SIZE;
    struct verifier *verifier = unit->verifier;
    if (unit->extent.end > end) {
        unit->extent.end = end;
        verifier->cursor = verifier->cursor < end / REGION_SIZE ? verifier->cursor : end / REGION_SIZE;
    }
    unit->leg = SOURCE;
    unit_compare(unit);
}

/* Asks the legs from unit->leg on for their runs, where that may save reading. The target is worth asking only where
 * the source is a hole. */
static void unit_map(struct unit *unit)
{
    struct verifier *verifier = unit->verifier;
    uint64_t first = unit->extent.start + REGION_SIZE < unit->extent.end ? unit->extent.start + REGION_SIZE
                                                                         : unit->extent.end;
    for (; unit->leg < LEGS; unit->leg++) {
        const struct run *known = &verifier->known[unit->leg];
        bool data = known->data && covers(known, unit->extent.start);
        bool worth = unit->leg == SOURCE || unit->map[SOURCE].end >= first;
        if (worth && !data && verifier->legs[unit->leg]->limits.can_map) {
            uint64_t size = atomic_load(&verifier->legs[unit->leg]->size);
            /* To the image's end: what is behind the lock is the hint for the next units. */
            struct extent rest = {unit->extent.start, size > unit->extent.end ? size : unit->extent.end};
            unit_send(unit, UNIT_MAPPING, VERB_MAP, rest);
            return;
        }
    }
    uint64_t end = unit->map[SOURCE].end < unit->map[TARGET].end ? unit->map[SOURCE].end : unit->map[TARGET].end;
    if (end < unit->extent.end)
        end -= end % REGION_SIZE;
    if (end > unit->extent.start)
        unit_equal(unit, end);
    else
        unit_compare_first(unit);
}

static void unit_was_mapped(struct unit *unit)
{
    if (unit->io.result == 0) {
        unit->verifier->known[unit->leg] = (struct run){unit->io.extent, unit->io.map_data};
        if (!unit->io.map_data)
            unit->map[unit->leg] = extent_intersect(unit->io.extent, unit->extent);
    }
    unit->leg++;
    unit_map(unit);
}

/* ---- a unit's way ---- */

/* The lock is held: what of its regions is there, and is still routed? */
static void unit_locked(struct unit *unit)
{
    struct verifier *verifier = unit->verifier;
    struct mirror *mirror = verifier->options.mirror;
    uint64_t size = atomic_load(&verifier->legs[SOURCE]->size);
    uint64_t dirty = mirror_next_unrouted(mirror, region_of(unit->asked.start)) * REGION_SIZE;
    uint64_t target = atomic_load(&verifier->legs[TARGET]->size);
    struct extent routed = {unit->asked.start, dirty < unit->asked.end ? dirty : unit->asked.end};
    if (dirty >= mirror_regions(mirror) * REGION_SIZE)
        routed.end = unit->asked.end;
    unit->locked = true;
    unit->extent = extent_intersect(routed, (struct extent){0, size > target ? size : target});
    if (!extent_empty(unit->extent)) {
        unit->map[SOURCE] = unit->map[TARGET] = (struct extent){unit->extent.start, unit->extent.start};
        unit->leg = SOURCE;
        unit_map(unit);
    } else { /* shrunk meanwhile: there is nothing on either leg; or to be copied first */
        mirror_set_compared(mirror, routed);
        unit_end(unit);
    }
}

/* A step of a unit has ended. */
static void unit_step(struct unit *unit)
{
    if (unit->verifier->stopped) {
        unit_end(unit);
        return;
    }
    switch (unit->state) {
    case UNIT_FREE:
    case UNIT_RETRYING:
        abort();
    case UNIT_LOCKING:
        unit_locked(unit);
        return;
    case UNIT_MAPPING:
        unit_was_mapped(unit);
        return;
    case UNIT_READING:
        unit_was_read(unit);
        return;
    }
}

static void unit_granted(struct lock_request *request)
{
    struct unit *unit = container_of(request, struct unit, lock);
    unit->locked = true;
    unit_step(unit);
}

static void unit_start(struct unit *unit, struct extent regions)
{
    struct verifier *verifier = unit->verifier;
    verifier->references++;
    verifier->busy++;
    unit->state = UNIT_LOCKING;
    unit->asked = regions;
    unit->lock = (struct lock_request){.mode = LOCK_MODE_COPY, .extent = regions, .granted = unit_granted};
    if (region_lock_acquire(disk_lock(verifier->options.disk), &unit->lock))
        unit_step(unit);
}

/* ---- the sweep ---- */

static void retry_fill(struct timer *timer)
{
    fill(container_of(timer, struct verifier, retry));
}

/* While guests have requests in flight the window is small, as the copier's. */
static struct unit *free_unit(struct verifier *verifier)
{
    bool guests = disk_in_flight(verifier->options.disk) > 0;
    for (int leg = SOURCE; leg <= TARGET; leg++)
        guests |= datastore_guests(verifier->legs[leg]->datastore) > 0;
    if (guests && verifier->busy >= verifier->options.guest_window)
        return NULL;
    for (unsigned i = 0; i < verifier->options.window; i++)
        if (verifier->units[i].state == UNIT_FREE)
            return &verifier->units[i];
    return NULL;
}

/* Does the run say hole, as far as is known? */
static uint64_t hole_end(const struct run *run, uint64_t start)
{
    return !run->data && covers(run, start) ? run->extent.end : start;
}

/* The regions of the next unit: many where both legs are known as holes, else one. */
static struct extent next_regions(struct verifier *verifier, uint64_t region)
{
    uint64_t start = region * REGION_SIZE, size = atomic_load(&verifier->legs[SOURCE]->size);
    uint64_t source = hole_end(&verifier->known[SOURCE], start), target = hole_end(&verifier->known[TARGET], start);
    uint64_t end = source < target ? source : target;
    end = end >= size ? (size + REGION_SIZE - 1) / REGION_SIZE * REGION_SIZE : end - end % REGION_SIZE;
    return (struct extent){start, end > start + REGION_SIZE ? end : start + REGION_SIZE};
}

static uint64_t ask_rate(struct verifier *verifier, uint64_t bytes)
{
    uint64_t now = clock_now(), rate = atomic_load(&verifier->rate);
    if (rate != verifier->throttle.rate)
        throttle_set(&verifier->throttle, now, rate);
    return throttle_ask(&verifier->throttle, now, bytes);
}

/* The sweep is at its end: over, or once more from the start for what a unit has left. False: not now. */
static bool next_pass(struct verifier *verifier)
{
    struct mirror *mirror = verifier->options.mirror;
    if (verifier->busy)
        return false;
    verifier->cursor = 0;
    verifier->known[SOURCE] = verifier->known[TARGET] = (struct run){{0, 0}, false};
    if (mirror_uncompared(mirror) && !mirror_unrouted(mirror))
        return true;
    verifier->finished = true;
    verifier->options.done(verifier->options.job);
    return false;
}

static void fill(struct verifier *verifier)
{
    struct unit *unit;
    while (!verifier->paused && !verifier->finished && !verifier->broken && (unit = free_unit(verifier))) {
        struct mirror *mirror = verifier->options.mirror;
        if (mirror_phase(mirror) != MIRROR_ATTACHED)
            return;
        uint64_t region = mirror_next_uncompared(mirror, verifier->cursor);
        if (region == mirror_regions(mirror)) {
            if (!next_pass(verifier))
                return;
            continue;
        }
        struct extent regions = next_regions(verifier, region);
        uint64_t delay = extent_length(regions) > REGION_SIZE ? 0 : ask_rate(verifier, REGION_SIZE);
        if (delay) {
            timer_set(verifier->options.reactor, &verifier->retry, delay < WATCH_PERIOD ? delay : WATCH_PERIOD);
            return;
        }
        verifier->cursor = regions.end / REGION_SIZE;
        unit_start(unit, regions);
    }
}

/* Does a leg hang? */
static void watch(struct timer *timer)
{
    struct verifier *verifier = container_of(timer, struct verifier, watch);
    uint64_t now = clock_now(), limits[LEGS] = {verifier->legs[SOURCE]->datastore->timeout_ns,
                                    mirror_target_timeout(verifier->options.mirror)};
    for (unsigned i = 0; i < verifier->options.window && !verifier->broken; i++) {
        struct unit *unit = &verifier->units[i];
        bool waits = unit->state == UNIT_MAPPING || unit->state == UNIT_READING;
        if (!waits || now - unit->since <= limits[unit->leg])
            continue;
        if (unit->leg == TARGET) {
            mirror_drop(verifier->options.mirror, unit->io.extent, unit->io.verb, -ETIMEDOUT);
        } else {
            verifier->broken = true;
            verifier->options.failed(verifier->options.job, unit->io.extent.start, -ETIMEDOUT);
        }
    }
    timer_set(verifier->options.reactor, &verifier->watch, WATCH_PERIOD);
}

/* ---- steering ---- */

static void start_here(void *argument)
{
    struct verifier *verifier = argument;
    timer_set(verifier->options.reactor, &verifier->watch, WATCH_PERIOD);
    fill(verifier);
}

int verifier_start(struct verifier **out, const struct verifier_options *options)
{
    struct verifier *verifier = calloc(1, sizeof(*verifier) + options->window * sizeof(struct unit));
    if (!verifier)
        return -ENOMEM;
    verifier->options = *options;
    verifier->references = 1;
    verifier->legs[SOURCE] = disk_truth(options->disk);
    verifier->legs[TARGET] = mirror_target(options->mirror);
    disk_get(options->disk);
    mirror_get(options->mirror);
    atomic_init(&verifier->rate, options->rate);
    verifier->retry.fired = retry_fill;
    verifier->watch.fired = watch;
    for (unsigned i = 0; i < options->window; i++) {
        verifier->units[i].verifier = verifier;
        verifier->units[i].timer.fired = unit_retry;
        if (posix_memalign((void **)&verifier->units[i].buffer, PAGE, REGION_SIZE)) {
            verifier_release(verifier);
            return -ENOMEM;
        }
    }
    if (mirror_compare_begin(options->mirror) < 0) {
        verifier_release(verifier);
        return -ENOMEM;
    }
    *out = verifier;
    reactor_call(options->reactor, start_here, verifier);
    return 0;
}

static void stop_here(void *argument)
{
    struct verifier *verifier = argument;
    verifier->stopped = true;
    timer_cancel(&verifier->retry);
    timer_cancel(&verifier->watch);
    for (unsigned i = 0; i < verifier->options.window; i++) {
        struct unit *unit = &verifier->units[i];
        if (unit->state == UNIT_LOCKING && region_lock_cancel(disk_lock(verifier->options.disk), &unit->lock)) {
            unit_end(unit);
        } else if (unit->state == UNIT_RETRYING) {
            timer_cancel(&unit->timer);
            unit_end(unit);
        } else {
            unit_unlock(unit);
        }
    }
    verifier_release(verifier);
}

void verifier_stop(struct verifier *verifier)
{
    if (verifier)
        reactor_call(verifier->options.reactor, stop_here, verifier);
}

struct steer {
    struct verifier *verifier;
    bool value;
};

static void pause_here(void *argument)
{
    struct steer *steer = argument;
    steer->verifier->paused = steer->value;
    fill(steer->verifier);
}

void verifier_pause(struct verifier *verifier, bool paused)
{
    struct steer steer = {verifier, paused};
    reactor_call(verifier->options.reactor, pause_here, &steer);
}

void verifier_set_rate(struct verifier *verifier, uint64_t rate)
{
    atomic_store(&verifier->rate, rate);
}

static void kick_here(void *argument)
{
    struct verifier *verifier = argument;
    verifier->finished = false;
    fill(verifier);
}

void verifier_kick(struct verifier *verifier)
{
    reactor_call(verifier->options.reactor, kick_here, verifier);
}

struct verifier_progress verifier_progress(struct verifier *verifier)
{
    return (struct verifier_progress){atomic_load(&verifier->verified), atomic_load(&verifier->differences)};
}
