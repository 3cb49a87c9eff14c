/* fence: proof that every write that was in flight when the proof was asked for has ended (law 6). Writes enter and
 * leave; a waiter is told when those that entered before it have left, however many enter after it. For backends. */
#pragma once

#include <pthread.h>
#include <stdint.h>

#include "io/io.h"

struct fence {
    pthread_mutex_t mutex;
    unsigned epoch;          /* 0 or 1: which count a write that enters now belongs to */
    uint32_t writes[2];      /* in flight, by epoch */
    struct list first, then; /* first waits for the count of the other epoch; then comes after it */
};

/* Does the verb change an image, so that a fence waits for it? */
bool fence_counts(enum verb verb);

void fence_init(struct fence *fence);
void fence_destroy(struct fence *fence);

/* Any thread. What enter returned is given to leave. */
unsigned fence_enter(struct fence *fence);
void fence_leave(struct fence *fence, unsigned epoch);

/* Calls fenced(argument) on a thread of the pool, never from within. Without memory for the waiter it is never called:
 * a ghost that keeps its lock is the safe side. */
void fence_wait(struct fence *fence, struct pool *pool, void (*fenced)(void *argument), void *argument);
