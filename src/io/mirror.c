#include "io/mirror.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

struct mirror {
    /* set at creation */
    struct image *target;
    uint64_t target_timeout_ns;
    const struct mirror_hooks *hooks;
    struct mirror *reverse; /* before the flip */
    /* under mutex */
    pthread_mutex_t mutex;
    enum mirror_phase phase;
    void *job;
    struct bits routed, touched, uncompared;
    uint64_t regions, unrouted, uncompared_count;
    bool comparing;
    struct lost lost, suspects;
    /* atomic */
    _Atomic uint32_t references;
    _Atomic uint64_t written, reads;
    _Atomic uint64_t latency_ns, served, late;
    _Atomic bool loses; /* anything */
};

static uint64_t regions_of(uint64_t size)
{
    return (size + REGION_SIZE - 1) / REGION_SIZE;
}

/* The extent's regions, cut to what the disk has. */
static struct extent regions_in(const struct mirror *mirror, struct extent extent)
{
    struct extent r = {extent.start / REGION_SIZE, regions_of(extent.end)};
    return extent_intersect(r, (struct extent){0, mirror->regions});
}

int mirror_new(struct mirror **out, struct image *target, uint64_t size, uint64_t target_timeout_ns,
    const struct mirror_hooks *hooks, void *job)
{
    struct mirror *mirror = calloc(1, sizeof(*mirror));
    if (!mirror)
        return -ENOMEM;
    mirror->target_timeout_ns = target_timeout_ns;
    mirror->hooks = hooks;
    mirror->job = job;
    mirror->phase = MIRROR_ATTACHED;
    mirror->regions = mirror->unrouted = regions_of(size);
    pthread_mutex_init(&mirror->mutex, NULL);
    atomic_init(&mirror->references, 1);
    if (bits_grow(&mirror->routed, mirror->regions + 1) || bits_grow(&mirror->touched, mirror->regions + 1)) {
        mirror_put(mirror);
        return -ENOMEM;
    }
    mirror->target = target;
    *out = mirror;
    return 0;
}

struct mirror *mirror_get(struct mirror *mirror)
{
    atomic_fetch_add(&mirror->references, 1);
    return mirror;
}

void mirror_put(struct mirror *mirror)
{
    if (!mirror || atomic_fetch_sub(&mirror->references, 1) != 1)
        return;
    image_put(mirror->target);
    mirror_put(mirror->reverse);
    bits_free(&mirror->routed);
    bits_free(&mirror->touched);
    bits_free(&mirror->uncompared);
    lost_free(&mirror->lost);
    lost_free(&mirror->suspects);
    pthread_mutex_destroy(&mirror->mutex);
    free(mirror);
}

struct image *mirror_target(const struct mirror *mirror)
{
    return mirror->target;
}

uint64_t mirror_target_timeout(const struct mirror *mirror)
{
    return mirror->target_timeout_ns;
}

enum mirror_phase mirror_phase(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    enum mirror_phase phase = mirror->phase;
    pthread_mutex_unlock(&mirror->mutex);
    return phase;
}

/* Regions wholly past the old size are empty on both legs, so they start out routed. */
static int grow(struct mirror *mirror, uint64_t size)
{
    uint64_t regions = regions_of(size);
    if (regions <= mirror->regions)
        return 0;
    if (bits_grow(&mirror->routed, regions + 1) || bits_grow(&mirror->touched, regions + 1) ||
        (mirror->comparing && bits_grow(&mirror->uncompared, regions + 1)))
        return -ENOMEM;
    for (; mirror->regions < regions; mirror->regions++)
        bits_set(&mirror->routed, mirror->regions);
    return 0;
}

void mirror_seed_all(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    for (uint64_t r = 0; r < mirror->regions; r++) {
        bits_set(&mirror->routed, r);
        bits_set(&mirror->touched, r);
    }
    mirror->unrouted = 0;
    pthread_mutex_unlock(&mirror->mutex);
}

void mirror_set_reverse(struct mirror *mirror, struct mirror *reverse)
{
    mirror_put(mirror->reverse); /* of a commit that did not come about */
    mirror->reverse = mirror_get(reverse);
}

struct mirror *mirror_reverse(struct mirror *mirror)
{
    return mirror->reverse && mirror_phase(mirror->reverse) == MIRROR_ATTACHED ? mirror->reverse : NULL;
}

bool mirror_shared(struct mirror *mirror)
{
    return atomic_load(&mirror->references) > 1;
}

int mirror_extend(struct mirror *mirror, uint64_t size)
{
    uint64_t regions = regions_of(size);
    pthread_mutex_lock(&mirror->mutex);
    int error = 0;
    if (regions > mirror->regions &&
        (bits_grow(&mirror->routed, regions + 1) || bits_grow(&mirror->touched, regions + 1) ||
            (mirror->comparing && bits_grow(&mirror->uncompared, regions + 1))))
        error = -ENOMEM;
    if (!error && regions > mirror->regions) {
        mirror->unrouted += regions - mirror->regions;
        mirror->regions = regions;
    }
    pthread_mutex_unlock(&mirror->mutex);
    return error;
}

static bool any_routed(const struct mirror *mirror, struct extent regions)
{
    for (uint64_t r = regions.start; r < regions.end; r++)
        if (bits_has(&mirror->routed, r))
            return true;
    return false;
}

/* Does the verb change bytes at its extent, and can it lie past the end that the bookkeeping knows? */
static bool grows(enum verb verb)
{
    switch (verb) {
    case VERB_WRITE:
    case VERB_RESIZE:
    case VERB_ZERO: /* where the disk grew by a write that another mirror sent (see undo.c) */
        return true;
    case VERB_READ:
    case VERB_ALLOCATE:
    case VERB_FLUSH:
    case VERB_MAP:
        return false;
    }
    abort();
}

/* Under the mutex, so that no hook runs once mirror_forget_job has returned. */
static void drop(struct mirror *mirror, struct extent extent, enum verb verb, int error)
{
    mirror->phase = MIRROR_DROPPED;
    if (mirror->job)
        mirror->hooks->diverged(mirror->job, extent, verb, error);
}

/* What is written may be readable from then on. */
static void acquit(struct mirror *mirror, enum verb verb, struct extent extent)
{
    if (verb == VERB_RESIZE)
        extent = (struct extent){extent.end, UINT64_MAX - LOST_PAGE};
    if (verb == VERB_WRITE || verb == VERB_ZERO || verb == VERB_RESIZE)
        lost_remove(&mirror->suspects, extent_round_out(extent, LOST_PAGE));
}

unsigned mirror_route(struct mirror *mirror, enum verb verb, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    if (mirror->suspects.count)
        acquit(mirror, verb, extent);
    if (grows(verb) && mirror->phase == MIRROR_ATTACHED && grow(mirror, extent.end) < 0)
        drop(mirror, extent, verb, -ENOMEM);
    struct extent regions = regions_in(mirror, extent);
    /* While committing all is routed, also what this request adds. */
    unsigned legs = route(verb, mirror->phase, mirror->phase == MIRROR_COMMITTING || any_routed(mirror, regions));
    if (legs & LEG_TARGET && verb != VERB_FLUSH && verb != VERB_RESIZE)
        for (uint64_t r = regions.start; r < regions.end; r++)
            bits_set(&mirror->touched, r);
    pthread_mutex_unlock(&mirror->mutex);
    return legs;
}

void mirror_set_routed(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    struct extent regions = regions_in(mirror, extent);
    for (uint64_t r = regions.start; r < regions.end; r++) {
        mirror->unrouted -= !bits_has(&mirror->routed, r);
        bits_set(&mirror->routed, r);
    }
    pthread_mutex_unlock(&mirror->mutex);
}

void mirror_set_dirty(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    if (mirror->phase == MIRROR_ATTACHED && grow(mirror, extent.end) < 0)
        drop(mirror, extent, VERB_WRITE, -ENOMEM);
    struct extent regions = regions_in(mirror, extent);
    for (uint64_t r = regions.start; r < regions.end; r++) {
        mirror->unrouted += bits_has(&mirror->routed, r);
        bits_clear(&mirror->routed, r);
        if (mirror->comparing) {
            mirror->uncompared_count += !bits_has(&mirror->uncompared, r);
            bits_set(&mirror->uncompared, r);
        }
    }
    pthread_mutex_unlock(&mirror->mutex);
}

bool mirror_touched(struct mirror *mirror, struct extent extent)
{
    bool touched = false;
    pthread_mutex_lock(&mirror->mutex);
    struct extent regions = regions_in(mirror, extent);
    for (uint64_t r = regions.start; r < regions.end && !touched; r++)
        touched = bits_has(&mirror->touched, r);
    pthread_mutex_unlock(&mirror->mutex);
    return touched;
}

void mirror_touch(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    struct extent regions = regions_in(mirror, extent);
    for (uint64_t r = regions.start; r < regions.end; r++)
        bits_set(&mirror->touched, r);
    pthread_mutex_unlock(&mirror->mutex);
}

uint64_t mirror_next_unrouted(struct mirror *mirror, uint64_t from)
{
    pthread_mutex_lock(&mirror->mutex);
    uint64_t r = bits_next(&mirror->routed, from, mirror->regions, false);
    pthread_mutex_unlock(&mirror->mutex);
    return r;
}

void mirror_seed(struct mirror *mirror, const struct bits *routed, const struct bits *touched, uint64_t group)
{
    pthread_mutex_lock(&mirror->mutex);
    for (uint64_t r = 0; r < mirror->regions; r++) {
        if (bits_has(routed, r)) {
            mirror->unrouted -= !bits_has(&mirror->routed, r);
            bits_set(&mirror->routed, r);
        }
        if (bits_has(touched, r / group))
            bits_set(&mirror->touched, r);
    }
    pthread_mutex_unlock(&mirror->mutex);
}

uint64_t mirror_keep_routed(struct mirror *mirror, struct bits *regions)
{
    pthread_mutex_lock(&mirror->mutex);
    uint64_t count = mirror->regions;
    for (size_t i = 0; i < regions->count; i++)
        regions->words[i] &= i < mirror->routed.count ? mirror->routed.words[i] : 0;
    pthread_mutex_unlock(&mirror->mutex);
    return count;
}

int mirror_routed(struct mirror *mirror, struct bits *out)
{
    pthread_mutex_lock(&mirror->mutex);
    int error = bits_copy(out, &mirror->routed);
    for (size_t i = 0; i < mirror->lost.count && !error; i++)
        bits_clear(out, mirror->lost.list[i].region);
    pthread_mutex_unlock(&mirror->mutex);
    return error;
}

int mirror_set_lost(struct mirror *mirror, struct extent extent, const struct lost *pages)
{
    struct extent run = {extent.start, extent.start};
    int error = 0;
    pthread_mutex_lock(&mirror->mutex);
    lost_remove(&mirror->lost, extent_round_out(extent, LOST_PAGE));
    while (!error && lost_run(pages, run.end, &run))
        error = lost_add(&mirror->lost, run);
    atomic_store(&mirror->loses, mirror->lost.count > 0);
    pthread_mutex_unlock(&mirror->mutex);
    return error;
}

void mirror_heal(struct mirror *mirror, struct extent extent)
{
    if (!atomic_load_explicit(&mirror->loses, memory_order_acquire))
        return;
    pthread_mutex_lock(&mirror->mutex);
    lost_remove(&mirror->lost, extent);
    atomic_store(&mirror->loses, mirror->lost.count > 0);
    pthread_mutex_unlock(&mirror->mutex);
}

int mirror_suspect(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    int error = lost_add(&mirror->suspects, extent);
    pthread_mutex_unlock(&mirror->mutex);
    return error;
}

bool mirror_suspects(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    bool suspects = lost_overlaps(&mirror->suspects, extent);
    pthread_mutex_unlock(&mirror->mutex);
    return suspects;
}

bool mirror_loses(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    bool loses = lost_overlaps(&mirror->lost, extent);
    pthread_mutex_unlock(&mirror->mutex);
    return loses;
}

int mirror_lost(struct mirror *mirror, struct lost *out)
{
    pthread_mutex_lock(&mirror->mutex);
    int error = lost_copy(out, &mirror->lost);
    pthread_mutex_unlock(&mirror->mutex);
    return error;
}

bool mirror_holds(struct mirror *mirror, struct extent extent)
{
    struct extent regions = {extent.start / REGION_SIZE, regions_of(extent.end)};
    pthread_mutex_lock(&mirror->mutex);
    bool holds = regions.end <= mirror->regions && mirror->phase != MIRROR_DROPPED &&
                 bits_next(&mirror->routed, regions.start, regions.end, false) == regions.end &&
                 !lost_overlaps(&mirror->lost, extent);
    pthread_mutex_unlock(&mirror->mutex);
    return holds;
}

int mirror_compare_begin(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    int error = bits_grow(&mirror->uncompared, mirror->regions + 1);
    for (uint64_t r = 0; r < mirror->regions && !error; r++)
        bits_set(&mirror->uncompared, r);
    mirror->uncompared_count = error ? 0 : mirror->regions;
    mirror->comparing = !error;
    pthread_mutex_unlock(&mirror->mutex);
    return error;
}

void mirror_set_compared(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    struct extent regions = regions_in(mirror, extent);
    for (uint64_t r = regions.start; r < regions.end; r++) {
        mirror->uncompared_count -= bits_has(&mirror->uncompared, r);
        bits_clear(&mirror->uncompared, r);
    }
    pthread_mutex_unlock(&mirror->mutex);
}

uint64_t mirror_next_uncompared(struct mirror *mirror, uint64_t from)
{
    pthread_mutex_lock(&mirror->mutex);
    uint64_t r = bits_next(&mirror->uncompared, from, mirror->regions, true);
    pthread_mutex_unlock(&mirror->mutex);
    return r;
}

uint64_t mirror_uncompared(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    uint64_t count = mirror->uncompared_count;
    pthread_mutex_unlock(&mirror->mutex);
    return count;
}

uint64_t mirror_regions(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    uint64_t regions = mirror->regions;
    pthread_mutex_unlock(&mirror->mutex);
    return regions;
}

uint64_t mirror_unrouted(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    uint64_t unrouted = mirror->unrouted;
    pthread_mutex_unlock(&mirror->mutex);
    return unrouted;
}

bool mirror_drop(struct mirror *mirror, struct extent extent, enum verb verb, int error)
{
    pthread_mutex_lock(&mirror->mutex);
    bool dropped = mirror->phase == MIRROR_ATTACHED;
    if (dropped)
        drop(mirror, extent, verb, error);
    pthread_mutex_unlock(&mirror->mutex);
    return dropped;
}

bool mirror_commit_begin(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    bool begun = mirror->phase == MIRROR_ATTACHED && mirror->unrouted == 0 && mirror->uncompared_count == 0;
    if (begun)
        mirror->phase = MIRROR_COMMITTING;
    pthread_mutex_unlock(&mirror->mutex);
    return begun;
}

static void leave_committing(struct mirror *mirror, enum mirror_phase to)
{
    pthread_mutex_lock(&mirror->mutex);
    assert(mirror->phase == MIRROR_COMMITTING);
    mirror->phase = to;
    pthread_mutex_unlock(&mirror->mutex);
}

void mirror_commit_failed(struct mirror *mirror)
{
    leave_committing(mirror, MIRROR_ATTACHED);
}

void mirror_flip(struct mirror *mirror)
{
    leave_committing(mirror, MIRROR_FLIPPED);
}

void mirror_forget_job(struct mirror *mirror)
{
    pthread_mutex_lock(&mirror->mutex);
    mirror->job = NULL;
    pthread_mutex_unlock(&mirror->mutex);
}

void mirror_set_latency(struct mirror *mirror, uint64_t ns)
{
    atomic_store(&mirror->latency_ns, ns);
}

void mirror_served(struct mirror *mirror, uint64_t took_ns)
{
    uint64_t latency_ns = atomic_load_explicit(&mirror->latency_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&mirror->served, 1, memory_order_relaxed);
    if (latency_ns && took_ns > latency_ns)
        atomic_fetch_add_explicit(&mirror->late, 1, memory_order_relaxed);
}

void mirror_lateness(const struct mirror *mirror, uint64_t *served, uint64_t *late)
{
    *served = atomic_load(&mirror->served);
    *late = atomic_load(&mirror->late);
}

void mirror_count_written(struct mirror *mirror, uint64_t bytes)
{
    atomic_fetch_add_explicit(&mirror->written, bytes, memory_order_relaxed);
}

uint64_t mirror_written(struct mirror *mirror)
{
    return atomic_load(&mirror->written);
}

uint64_t mirror_count_read(struct mirror *mirror)
{
    return atomic_fetch_add_explicit(&mirror->reads, 1, memory_order_relaxed);
}

uint64_t mirror_reads(struct mirror *mirror)
{
    return atomic_load(&mirror->reads);
}
