/* Region lock: orders overlapping requests of one disk (law 5). A request waits for every earlier request, held or
 * waiting, that overlaps its extent and conflicts by mode:
 *
 *   waits for →   READ   WRITE  COPY
 *   READ           no     yes    no      (a read never waits for the copier, and never makes anybody wait)
 *   WRITE          no     yes    yes
 *   COPY           no     yes    yes
 *
 * First come, first served among conflicting ones, so nobody starves. A ghost keeps its request held until fenced (law
 * 6). */
#pragma once

#include <pthread.h>

#include "base/behalf.h"
#include "io/extent.h"
#include "io/reactor.h"

enum lock_mode { LOCK_MODE_READ, LOCK_MODE_WRITE, LOCK_MODE_COPY };

struct region_lock {
    pthread_mutex_t mutex;
    struct list requests; /* in order of arrival */
    uint64_t block;       /* extents are rounded out to it; a power of two */
};

struct lock_request {
    /* set by the caller */
    enum lock_mode mode;
    struct extent extent;
    void (*granted)(struct lock_request *request); /* on the reactor that asked */
    /* the lock's */
    struct list link;
    struct reactor *reactor;
    struct task task;
    struct behalf behalf;
    unsigned blockers;
};

void region_lock_init(struct region_lock *lock, uint64_t block);

/* True: held now, granted is not called. False: granted is called later, once. From a reactor's thread. Never blocks.
 */
bool region_lock_acquire(struct region_lock *lock, struct lock_request *request);

/* Any thread. What waited for it alone is granted by a task on its own reactor. */
void region_lock_release(struct region_lock *lock, struct lock_request *request);

/* Gives up waiting: true when it was still waiting: it is out and granted is never called. False: granted, or about to
 * be. Own reactor only. */
bool region_lock_cancel(struct region_lock *lock, struct lock_request *request);

/* Is there a held or waiting WRITE or COPY that overlaps? For tests and progress. */
bool region_lock_busy(struct region_lock *lock, struct extent extent);
