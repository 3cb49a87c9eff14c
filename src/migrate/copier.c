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
 * the job is told. With rescue the region is put aside instead, and when all others are routed it is read page by page:
 * what then cannot be read is zeroes on the target and noted as lost (mirror_set_lost). A source of which nothing can be
 * read any more is no disk with bad pages: before a page is given up, one that could be read is asked for again, and if
 * that fails, too, the job is told that the source is gone. Outages are never taken for bad pages. A target that fails or hangs is dropped, which the job hears through the mirror. Stop lets go of all
 * locks at once: a write still in flight can only reach an image that nobody will use. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io/datastore.h"
#include "migrate/copier_inside.h"

void copier_release(struct copier *copier)
{
    if (--copier->references)
        return;
    for (unsigned i = 0; i < copier->options.window; i++)
        free(copier->units[i].buffer);
    bits_free(&copier->aside);
    free(copier->probe);
    image_put(copier->source);
    mirror_put(copier->options.mirror);
    disk_put(copier->options.disk);
    free(copier);
}

static void scouted(struct io *io)
{
    struct copier *copier = container_of(io, struct copier, scout);
    copier->scouting = false;
    copier->ahead = (struct run){io->extent, io->result < 0 || io->map_data}; /* not known: read it */
    if (!copier->stopped)
        copier_fill(copier);
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
        copier_fill(copier);
    else if (!copier->stopped && mirror_phase(copier->options.mirror) == MIRROR_ATTACHED) {
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
    bool in_use = !copier->stopped && mirror_phase(copier->options.mirror) == MIRROR_ATTACHED;
    if (!in_use || atomic_load(&target->size) == size) {
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
    copier_fill(container_of(timer, struct copier, retry));
}

static bool others_at_work(const struct copier *copier)
{
    return datastore_guests(copier->source->datastore) > 0 ||
           datastore_guests(mirror_target(copier->options.mirror)->datastore) > 0;
}

/* While guests have requests in flight the window is small: what stands in the disks' queues before a request of a guest is
 * what it waits for. Of many jobs each has one. */
static unsigned window(struct copier *copier)
{
    bool own = disk_in_flight(copier->options.disk) > 0;
    if (own || others_at_work(copier)) {
        uint64_t now = clock_now();
        pace_seen(&copier->pace, now, own);
        copier->gentle = copier->pace.gentle && now >= copier->coarse_until;
    }
    unsigned most = own ? copier->options.guest_window : copier->options.window;
    if (!copier->gentle)
        return most;
    copier->crowded = datastore_copies(copier->source->datastore) +
                          datastore_copies(mirror_target(copier->options.mirror)->datastore) >=
                      GENTLE_IN_ALL;
    unsigned gentle = copier->options.latency_ns ? LATENCY_WINDOW : copier->crowded ? 1 : GENTLE_WINDOW;
    return most < gentle ? most : gentle;
}

static struct unit *free_unit(struct copier *copier)
{
    if (copier->busy >= window(copier))
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

/* The next that is not routed, nor put aside until the others are. */
static uint64_t next_region(struct copier *copier, uint64_t from)
{
    struct mirror *mirror = copier->options.mirror;
    uint64_t region = mirror_next_unrouted(mirror, from);
    while (!copier->last && bits_has(&copier->aside, region) && region < mirror_regions(mirror))
        region = mirror_next_unrouted(mirror, region + 1);
    return region;
}

/* What the next unit would be; false: nothing to start now. */
static bool next_extent(struct copier *copier, struct extent *extent, bool *hole)
{
    uint64_t size = atomic_load(&copier->source->size);
    uint64_t region = next_region(copier, copier->cursor);
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
    *hole = !copier->known.data && !copier->options.dense && !extent_empty(run) &&
            !mirror_touched(copier->options.mirror, run);
    if (!*hole)
        run.end = start + REGION_SIZE < size ? start + REGION_SIZE : size;
    *extent = run;
    return true;
}

static uint64_t ask_rate(struct copier *copier, uint64_t bytes)
{
    uint64_t now = clock_now(), rate = atomic_load(&copier->rate), pace = copier->pace.rate;
    if (pace && (!rate || pace < rate))
        rate = pace;
    if (rate != copier->throttle.rate)
        throttle_set(&copier->throttle, now, rate);
    return throttle_ask(&copier->throttle, now, bytes);
}

void copier_fill(struct copier *copier)
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
            copier->last = copier->last || next_region(copier, 0) == mirror_regions(copier->options.mirror);
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

static void set_pace(struct copier *copier, uint64_t now)
{
    struct mirror *mirror = copier->options.mirror;
    struct pace_figures figures = {.now = now,
        .copied = atomic_load(&copier->copied) + atomic_load(&copier->skipped),
        .left = mirror_unrouted(mirror) * REGION_SIZE,
        .busy = disk_in_flight(copier->options.disk) > 0};
    if (++copier->periods == STEADY_AFTER) {
        atomic_store(&copier->steady, figures.copied);
        atomic_store(&copier->steady_at, now);
    }
    mirror_lateness(mirror, &figures.served, &figures.late);
    pace_step(&copier->pace, &figures);
    if (copier->gentle && !copier->crowded && !copier->options.latency_ns && copier->piece_ns > PIECE_SLOW) {
        copier->coarse_until = now + COARSE_NS;
        copier->piece_ns = 0;
    }
    copier->gentle = copier->pace.gentle && now >= copier->coarse_until;
    copier_fill(copier);
}

/* Does a leg hang? */
static void watch(struct timer *timer)
{
    struct copier *copier = container_of(timer, struct copier, watch);
    uint64_t now = clock_now(), target_timeout = mirror_target_timeout(copier->options.mirror);
    uint64_t source_timeout = copier->source->datastore->timeout_ns;
    for (unsigned i = 0; i < copier->options.window; i++) {
        struct unit *unit = &copier->units[i];
        if (unit->state == UNIT_WRITING && now - unit->since > target_timeout)
            mirror_drop(copier->options.mirror, unit->io.extent, unit->io.verb, -ETIMEDOUT);
        bool reads = unit->state == UNIT_READING || unit->state == UNIT_PROBING;
        if (reads && !copier->paused && now - unit->since > source_timeout) {
            copier->paused = true;
            copier->options.failed(copier->options.job, unit->io.extent.start, -ETIMEDOUT);
        }
    }
    if (copier->tail_locked && now - copier->resize_since > target_timeout)
        mirror_drop(copier->options.mirror, copier->resize.extent, VERB_RESIZE, -ETIMEDOUT);
    if (!copier->finished)
        set_pace(copier, now);
    timer_set(copier->options.reactor, &copier->watch, WATCH_PERIOD);
}

static void start_here(void *argument)
{
    struct copier *copier = argument;
    timer_set(copier->options.reactor, &copier->watch, WATCH_PERIOD);
    set_pace(copier, clock_now());
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
    copier->pace = (struct pace){.latency_ns = options->latency_ns, .until_ns = options->until_ns};
    mirror_set_latency(options->mirror, options->latency_ns);
    for (unsigned i = 0; i < options->window; i++) {
        copier->units[i].copier = copier;
        copier->units[i].timer.fired = unit_retry;
        if (posix_memalign((void **)&copier->units[i].buffer, PAGE, REGION_SIZE)) {
            copier_release(copier);
            return -ENOMEM;
        }
    }
    copier->sound = NOWHERE;
    if (posix_memalign((void **)&copier->probe, PAGE, PAGE)) {
        copier_release(copier);
        return -ENOMEM;
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
    for (unsigned i = 0; i < copier->options.window; i++)
        unit_stop(&copier->units[i]);
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
    copier_fill(steer->copier);
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
    copier->finished = copier->last = false;
    bits_clear_all(&copier->aside);
    copier_fill(copier);
}

void copier_kick(struct copier *copier)
{
    reactor_call(copier->options.reactor, kick_here, copier);
}

struct copier_progress copier_progress(struct copier *copier)
{
    return (struct copier_progress){atomic_load(&copier->copied), atomic_load(&copier->skipped),
        atomic_load(&copier->steady_at), atomic_load(&copier->steady)};
}
