/* Pool: the threads of one datastore for calls that can block (law 14): submission that may block, fsync, names. A pool
 * whose datastore hangs fills up alone; its queue is bounded by the requests in flight. */
#pragma once

#include "base/behalf.h"
#include "base/list.h"

struct pool;

/* What runs on a thread of the pool. The owner keeps it alive until run was called. */
struct work {
    struct list link;
    void (*run)(struct work *work);
    struct behalf behalf; /* the pool's */
};

/* threads are started when needed, at most that many. 0 or -errno. */
int pool_open(struct pool **pool, const char *name, unsigned threads);

/* Waits for all that is queued, ends the threads, frees. NULL is fine. */
void pool_close(struct pool *pool);

/* Any thread, never blocks. */
void pool_run(struct pool *pool, struct work *work);
