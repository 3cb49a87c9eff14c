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
 * Failure modes. Without memory a write is not held (-ENOMEM), and yet must cut what it covers, which can make one run
 * into two: one spare run is kept for that, and while there is none nothing is added. */
#include "backends/unflushed.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define NEVER UINT64_MAX

/* One write's bytes; slices of it are shown by runs and pinned by readers. */
struct block {
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
    uint64_t held, next_number;
    uint32_t random;
    bool incomplete; /* a run could not be cut in two: nothing is proven until all was flushed twice */
};

static void block_put(struct unflushed *unflushed, struct block *block)
{
    if (!block || --block->slices > 0)
        return;
    unflushed->held -= block->size;
    free(block);
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
    struct run *before, *after;
    unflushed->random = unflushed->random * 1664525u + 1013904223u;
    run->priority = unflushed->random;
    run->left = run->right = NULL;
    split(unflushed->root, run->extent.start, &before, &after);
    unflushed->root = merge(merge(before, run), after);
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
    free(unflushed->spare);
    pthread_mutex_destroy(&unflushed->mutex);
    free(unflushed);
}

/* Copies outside the mutex: a large write must not hold up the others. */
static struct run *new_run(struct extent extent, const struct iovec *iov, int iov_count, uint64_t stamp)
{
    struct run *run = malloc(sizeof(*run));
    uint64_t size = extent_length(extent), at = 0;
    if (!run)
        return NULL;
    *run = (struct run){.extent = extent, .stamp = stamp, .debt = NEVER};
    if (!iov)
        return run;
    run->block = malloc(sizeof(*run->block) + size);
    if (!run->block) {
        free(run);
        return NULL;
    }
    run->block->slices = 1;
    run->block->size = size;
    for (int i = 0; i < iov_count && at < size; i++) {
        uint64_t length = iov[i].iov_len < size - at ? iov[i].iov_len : size - at;
        memcpy(run->block->bytes + at, iov[i].iov_base, length);
        at += length;
    }
    return run;
}

int unflushed_add(
    struct unflushed *unflushed, struct extent extent, const struct iovec *iov, int iov_count, uint64_t stamp)
{
    struct run *run = new_run(extent, iov, iov_count, stamp);
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
    if (!unflushed->root)
        unflushed->incomplete = false;
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
