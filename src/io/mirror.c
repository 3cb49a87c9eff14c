#include "io/mirror.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64

struct bits {
    uint64_t *words;
    size_t count; /* words */
};

struct mirror {
    /* set at creation */
    struct image *target;
    uint64_t target_timeout_ns;
    const struct mirror_hooks *hooks;
    /* under mutex */
    pthread_mutex_t mutex;
    enum mirror_phase phase;
    void *job;
    struct bits routed, touched;
    uint64_t regions, unrouted;
    /* atomic */
    _Atomic uint32_t references;
    _Atomic uint64_t written;
};

static int bits_grow(struct bits *bits, uint64_t wanted)
{
    size_t count = (size_t)(wanted + WORD_BITS - 1) / WORD_BITS;
    if (count <= bits->count)
        return 0;
    uint64_t *words = realloc(bits->words, count * sizeof(*words));
    if (!words)
        return -ENOMEM;
    memset(words + bits->count, 0, (count - bits->count) * sizeof(*words));
    bits->words = words;
    bits->count = count;
    return 0;
}

static bool bit(const struct bits *bits, uint64_t n)
{
    return bits->words[n / WORD_BITS] >> n % WORD_BITS & 1;
}

static void bit_set(struct bits *bits, uint64_t n)
{
    bits->words[n / WORD_BITS] |= 1ull << n % WORD_BITS;
}

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
    free(mirror->routed.words);
    free(mirror->touched.words);
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
    if (bits_grow(&mirror->routed, regions + 1) || bits_grow(&mirror->touched, regions + 1))
        return -ENOMEM;
    for (; mirror->regions < regions; mirror->regions++)
        bit_set(&mirror->routed, mirror->regions);
    return 0;
}

static bool any_routed(const struct mirror *mirror, struct extent regions)
{
    for (uint64_t r = regions.start; r < regions.end; r++)
        if (bit(&mirror->routed, r))
            return true;
    return false;
}

/* Does the verb change bytes at its extent, and can it lie past the end that the bookkeeping knows? */
static bool grows(enum verb verb)
{
    switch (verb) {
    case VERB_WRITE:
    case VERB_RESIZE:
        return true;
    case VERB_READ:
    case VERB_ZERO:
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

unsigned mirror_route(struct mirror *mirror, enum verb verb, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    if (grows(verb) && mirror->phase == MIRROR_ATTACHED && grow(mirror, extent.end) < 0)
        drop(mirror, extent, verb, -ENOMEM);
    struct extent regions = regions_in(mirror, extent);
    /* While committing all is routed, also what this request adds. */
    unsigned legs = route(verb, mirror->phase, mirror->phase == MIRROR_COMMITTING || any_routed(mirror, regions));
    if (legs & LEG_TARGET && verb != VERB_FLUSH && verb != VERB_RESIZE)
        for (uint64_t r = regions.start; r < regions.end; r++)
            bit_set(&mirror->touched, r);
    pthread_mutex_unlock(&mirror->mutex);
    return legs;
}

void mirror_set_routed(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    struct extent regions = regions_in(mirror, extent);
    for (uint64_t r = regions.start; r < regions.end; r++) {
        mirror->unrouted -= !bit(&mirror->routed, r);
        bit_set(&mirror->routed, r);
    }
    pthread_mutex_unlock(&mirror->mutex);
}

void mirror_set_dirty(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    struct extent regions = regions_in(mirror, extent);
    for (uint64_t r = regions.start; r < regions.end; r++) {
        mirror->unrouted += bit(&mirror->routed, r);
        mirror->routed.words[r / WORD_BITS] &= ~(1ull << r % WORD_BITS);
    }
    pthread_mutex_unlock(&mirror->mutex);
}

bool mirror_touched(struct mirror *mirror, struct extent extent)
{
    bool touched = false;
    pthread_mutex_lock(&mirror->mutex);
    struct extent regions = regions_in(mirror, extent);
    for (uint64_t r = regions.start; r < regions.end && !touched; r++)
        touched = bit(&mirror->touched, r);
    pthread_mutex_unlock(&mirror->mutex);
    return touched;
}

void mirror_touch(struct mirror *mirror, struct extent extent)
{
    pthread_mutex_lock(&mirror->mutex);
    struct extent regions = regions_in(mirror, extent);
    for (uint64_t r = regions.start; r < regions.end; r++)
        bit_set(&mirror->touched, r);
    pthread_mutex_unlock(&mirror->mutex);
}

uint64_t mirror_next_unrouted(struct mirror *mirror, uint64_t from)
{
    pthread_mutex_lock(&mirror->mutex);
    uint64_t r = from;
    while (r < mirror->regions) {
        uint64_t open = ~mirror->routed.words[r / WORD_BITS] >> r % WORD_BITS;
        if (open) {
            r += (uint64_t)__builtin_ctzll(open);
            break;
        }
        r = (r / WORD_BITS + 1) * WORD_BITS;
    }
    if (r > mirror->regions)
        r = mirror->regions;
    pthread_mutex_unlock(&mirror->mutex);
    return r;
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
    bool begun = mirror->phase == MIRROR_ATTACHED && mirror->unrouted == 0;
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

void mirror_count_written(struct mirror *mirror, uint64_t bytes)
{
    atomic_fetch_add_explicit(&mirror->written, bytes, memory_order_relaxed);
}

uint64_t mirror_written(struct mirror *mirror)
{
    return atomic_load(&mirror->written);
}
