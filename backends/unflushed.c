/* A treap of runs that do not overlap, ordered by where they start. A run shows a slice of one block of memory, the
 * copy of one write; what a newer write covers is cut out of the runs below it, and a block is freed with its last
 * slice. The budget counts blocks, not slices: it bounds memory, also when every large write is covered but for its
 * last byte.
 *
 * Which flush settles a run is told by its number: runs are numbered as they are added, and a mark is the next number.
 * A newer write takes an older one's bytes away, but not what a flush owes: when the older one was lost by the server,
 * a flush that was sent between the two may only be answered once the newer one is durable as well. So a run remembers
 * the oldest number that it covers (oldest), and the oldest of those that bore another stamp (debt).
 *
 * Blocks of usual sizes that are free again are kept for the next writes while any run is held: memory that is given back
 * to the system must be had again and zeroed, page by page, which costs as much as the copy.
 *
 * Failure modes. Without memory a write is not held (-ENOMEM), and yet must cut what it covers, which can make one run
 * into two: one spare run is kept for that, and while there is none nothing is added. */
#include "backends/unflushed.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NEVER      UINT64_MAX
#define KEPT_FIRST 12u /* sizes that are kept: powers of two, from 4 KiB … */
#define KEPT_COUNT 9u  /* … to 1 MiB: what guests write and copies are made of */

/* One write's bytes; slices of it are shown by runs and pinned by readers. */
struct block {
    struct block *next; /* free */
    uint32_t slices;
    uint64_t size;
    unsigned char bytes[];
};

struct run {
    struct run *left, *right;
    uint32_t priority;
    struct extent extent;
    struct block *block; /* NULL: zeroes */
    uint64_t at;         /* in the block */
    uint64_t stamp, number, oldest, debt;
};

struct unflushed {
    uint64_t budget;
    /* under mutex */
    pthread_mutex_t mutex;
    struct run *root, *spare;
    struct block *free[KEPT_COUNT];   /* by size */
    uint64_t held, kept, next_number; /* kept: bytes of free blocks */
    uint32_t random;
    bool incomplete; /* a run could not be cut in two: nothing is proven until all was flushed twice */
};

/* Where free blocks of this size are kept; NULL: they are not. */
static struct block **kept(struct unflushed *unflushed, uint64_t size)
{
    unsigned power = size ? (unsigned)__builtin_ctzll(size) : 0;
    bool usual = size == 1ull << power && power >= KEPT_FIRST && power < KEPT_FIRST + KEPT_COUNT;
    return usual ? &unflushed->free[power - KEPT_FIRST] : NULL;
}

static void block_put(struct unflushed *unflushed, struct block *block)
{
    if (!block || --block->slices > 0)
        return;
    unflushed->held -= block->size;
    struct block **place = kept(unflushed, block->size);
    if (!place || unflushed->held + unflushed->kept + block->size > unflushed->budget) {
        free(block);
        return;
    }
    block->next = *place;
    *place = block;
    unflushed->kept += block->size;
}

static void free_kept(struct unflushed *unflushed)
{
    for (unsigned i = 0; i < KEPT_COUNT; i++)
        for (struct block *block; (block = unflushed->free[i]);) {
            unflushed->free[i] = block->next;
            free(block);
        }
    unflushed->kept = 0;
}

static struct block *new_block(struct unflushed *unflushed, uint64_t size)
{
    struct block **place = kept(unflushed, size), *block = NULL;
    if (place) {
        pthread_mutex_lock(&unflushed->mutex);
        if ((block = *place)) {
            *place = block->next;
            unflushed->kept -= size;
        }
        pthread_mutex_unlock(&unflushed->mutex);
    }
    if (!block)
        block = malloc(sizeof(*block) + size);
    if (block)
        *block = (struct block){.slices = 1, .size = size};
    return block;
}

/* ---- the treap ---- */

/* Runs that start before key, and the others. */
static void split(struct run *root, uint64_t key, struct run **before, struct run **after)
{
    if (!root) {
        *before = *after = NULL;
    } else if (root->extent.start < key) {
        split(root->right, key, &root->right, after);
        *before = root;
    } else {
        split(root->left, key, before, &root->left);
        *after = root;
    }
}

static struct run *merge(struct run *before, struct run *after)
{
    if (!before || !after)
        return before ? before : after;
    if (before->priority > after->priority) {
        before->right = merge(before->right, after);
        return before;
    }
    after->left = merge(before, after->left);
    return after;
}

static struct run *last_of(struct run *root)
{
    while (root && root->right)
        root = root->right;
    return root;
}

static void insert(struct unflushed *unflushed, struct run *run)
{
    struct run **at = &unflushed->root;
    unflushed->random = unflushed->random * 1664525u + 1013904223u;
    run->priority = unflushed->random;
    while (*at && (*at)->priority >= run->priority)
        at = run->extent.start < (*at)->extent.start ? &(*at)->left : &(*at)->right;
    split(*at, run->extent.start, &run->left, &run->right);
    *at = run;
}

static bool any_overlaps(const struct run *run, struct extent extent)
{
    while (run && !extent_overlaps(run->extent, extent))
        run = extent.start < run->extent.start ? run->left : run->right;
    return run != NULL;
}

static void free_all(struct unflushed *unflushed, struct run *run)
{
    if (!run)
        return;
    free_all(unflushed, run->left);
    free_all(unflushed, run->right);
    block_put(unflushed, run->block);
    free(run);
}

/* ---- cutting ---- */

/* A run from bytes at on, which must lie inside it, becomes one of its own. */
static struct run *cut(struct unflushed *unflushed, struct run *run, uint64_t at)
{
    struct run *rest = unflushed->spare ? unflushed->spare : malloc(sizeof(*rest));
    unflushed->spare = NULL;
    if (!rest)
        return NULL;
    *rest = *run;
    rest->extent.start = at;
    rest->at += at - run->extent.start;
    run->extent.end = at;
    if (rest->block)
        rest->block->slices++;
    return rest;
}

/* No run crosses at afterwards. */
static void divide(struct unflushed *unflushed, uint64_t at)
{
    struct run *before, *after;
    split(unflushed->root, at, &before, &after);
    struct run *run = last_of(before), *rest = NULL;
    if (run && run->extent.end > at) {
        rest = cut(unflushed, run, at);
        if (!rest) {
            run->extent.end = at;
            unflushed->incomplete = true;
        }
    }
    unflushed->root = merge(before, after);
    if (rest)
        insert(unflushed, rest);
}

/* What the runs below a new one still owe, by the new one's stamp. */
static void collect_debts(const struct run *run, struct run *fresh)
{
    if (!run)
        return;
    collect_debts(run->left, fresh);
    collect_debts(run->right, fresh);
    fresh->oldest = run->oldest < fresh->oldest ? run->oldest : fresh->oldest;
    fresh->debt = run->debt < fresh->debt ? run->debt : fresh->debt;
    if (run->stamp != fresh->stamp && run->oldest < fresh->debt)
        fresh->debt = run->oldest;
}

static void take_out(struct unflushed *unflushed, struct extent extent, struct run *fresh)
{
    struct run *before, *inside, *after;
    if (!any_overlaps(unflushed->root, extent))
        return;
    divide(unflushed, extent.start);
    divide(unflushed, extent.end);
    split(unflushed->root, extent.start, &before, &inside);
    split(inside, extent.end, &inside, &after);
    if (fresh)
        collect_debts(inside, fresh);
    free_all(unflushed, inside);
    unflushed->root = merge(before, after);
}

/* ---- for backends ---- */

int unflushed_new(struct unflushed **out, uint64_t budget)
{
    struct unflushed *unflushed = calloc(1, sizeof(*unflushed));
    if (!unflushed)
        return -ENOMEM;
    unflushed->budget = budget;
    unflushed->random = 1;
    pthread_mutex_init(&unflushed->mutex, NULL);
    *out = unflushed;
    return 0;
}

void unflushed_free(struct unflushed *unflushed)
{
    if (!unflushed)
        return;
    free_all(unflushed, unflushed->root);
    free_kept(unflushed);
    free(unflushed->spare);
    pthread_mutex_destroy(&unflushed->mutex);
    free(unflushed);
}

/* Copies outside the mutex: a large write must not hold up the others. */
static struct run *new_run(struct unflushed *unflushed, struct extent extent, const struct iovec *iov, int iov_count,
    uint64_t skip, uint64_t stamp)
{
    struct run *run = malloc(sizeof(*run));
    uint64_t size = extent_length(extent), at = 0;
    if (!run)
        return NULL;
    *run = (struct run){.extent = extent, .stamp = stamp, .debt = NEVER};
    if (!iov)
        return run;
    run->block = new_block(unflushed, size);
    if (!run->block) {
        free(run);
        return NULL;
    }
    for (int i = 0; i < iov_count && at < size; i++) {
        uint64_t from = skip < iov[i].iov_len ? skip : iov[i].iov_len, length = iov[i].iov_len - from;
        length = length < size - at ? length : size - at;
        memcpy(run->block->bytes + at, (const char *)iov[i].iov_base + from, length);
        at += length;
        skip -= from;
    }
    return run;
}

int unflushed_add(
    struct unflushed *unflushed, struct extent extent, const struct iovec *iov, int iov_count, uint64_t stamp)
{
    return unflushed_add_from(unflushed, extent, iov, iov_count, 0, stamp);
}

int unflushed_add_from(struct unflushed *unflushed, struct extent extent, const struct iovec *iov, int iov_count,
    uint64_t skip, uint64_t stamp)
{
    struct run *run = new_run(unflushed, extent, iov, iov_count, skip, stamp);
    pthread_mutex_lock(&unflushed->mutex);
    if (!unflushed->spare)
        unflushed->spare = malloc(sizeof(*unflushed->spare));
    if (run)
        run->number = run->oldest = unflushed->next_number;
    unflushed->next_number++;
    take_out(unflushed, extent, run);
    if (run) {
        unflushed->held += run->block ? run->block->size : 0;
        insert(unflushed, run);
    }
    pthread_mutex_unlock(&unflushed->mutex);
    return run ? 0 : -ENOMEM;
}

void unflushed_truncate(struct unflushed *unflushed, uint64_t size)
{
    pthread_mutex_lock(&unflushed->mutex);
    take_out(unflushed, (struct extent){size, UINT64_MAX}, NULL);
    pthread_mutex_unlock(&unflushed->mutex);
}

uint64_t unflushed_bytes(struct unflushed *unflushed)
{
    pthread_mutex_lock(&unflushed->mutex);
    uint64_t held = unflushed->held;
    pthread_mutex_unlock(&unflushed->mutex);
    return held;
}

bool unflushed_full(struct unflushed *unflushed)
{
    return unflushed_bytes(unflushed) > unflushed->budget;
}

uint64_t unflushed_mark(struct unflushed *unflushed)
{
    pthread_mutex_lock(&unflushed->mutex);
    uint64_t mark = unflushed->next_number;
    pthread_mutex_unlock(&unflushed->mutex);
    return mark;
}

/* Gives back the runs that stay. */
static struct run *settle(struct unflushed *unflushed, struct run *run, uint64_t mark, uint64_t stamp, bool *complete)
{
    if (!run)
        return NULL;
    run->left = settle(unflushed, run->left, mark, stamp, complete);
    run->right = settle(unflushed, run->right, mark, stamp, complete);
    bool kept = run->oldest >= mark || (run->stamp == stamp && (run->debt >= mark || run->number < mark));
    if (!kept) {
        *complete = false;
        return run;
    }
    if (run->number >= mark) {
        run->oldest = run->oldest < mark ? mark : run->oldest;
        return run;
    }
    struct run *rest = merge(run->left, run->right);
    block_put(unflushed, run->block);
    free(run);
    return rest;
}

bool unflushed_settle(struct unflushed *unflushed, uint64_t mark, uint64_t stamp)
{
    bool complete = true;
    pthread_mutex_lock(&unflushed->mutex);
    unflushed->root = settle(unflushed, unflushed->root, mark, stamp, &complete);
    complete = complete && !unflushed->incomplete;
    if (!unflushed->root) {
        unflushed->incomplete = false;
        free_kept(unflushed);
    }
    pthread_mutex_unlock(&unflushed->mutex);
    return complete;
}

/* The first run that ends after offset and does not bear stamp. */
static struct run *find(struct run *run, uint64_t offset, uint64_t stamp)
{
    if (!run)
        return NULL;
    if (run->extent.end <= offset)
        return find(run->right, offset, stamp);
    struct run *earlier = find(run->left, offset, stamp);
    if (earlier)
        return earlier;
    return run->stamp != stamp ? run : find(run->right, offset, stamp);
}

bool unflushed_lost(
    struct unflushed *unflushed, uint64_t offset, uint64_t stamp, uint64_t most, struct unflushed_run *out)
{
    pthread_mutex_lock(&unflushed->mutex);
    struct run *run = find(unflushed->root, offset, stamp);
    if (run) {
        struct extent extent = run->extent;
        if (extent.start < offset)
            extent.start = offset;
        if (extent_length(extent) > most)
            extent.end = extent.start + most;
        out->extent = extent;
        out->handle = run->block;
        out->memory = run->block ? run->block->bytes + run->at + (extent.start - run->extent.start) : NULL;
        if (run->block)
            run->block->slices++;
    }
    pthread_mutex_unlock(&unflushed->mutex);
    return run != NULL;
}

void unflushed_put(struct unflushed *unflushed, struct unflushed_run *run)
{
    pthread_mutex_lock(&unflushed->mutex);
    block_put(unflushed, run->handle);
    pthread_mutex_unlock(&unflushed->mutex);
    run->handle = NULL;
}
