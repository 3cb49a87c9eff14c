/* behalf: whose request this thread works on just now. Whoever runs a request's code says so before and takes it back
 * after; what is continued elsewhere (a lock's grant, an io's end, a pool's work) takes it along. A handler of a fatal
 * signal reads it: then it is known which request the thread died of.
 *
 * number tells this request from a later one in the same place: what is continued after the request's end is on
 * nobody's behalf. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct behalf {
    void *place; /* NULL: nobody's */
    uint64_t number;
};

extern __thread struct behalf behalf_now;

/* Gives this thread a stack of its own for handlers of signals, once; by behalf_set. */
extern __thread int behalf_ready;
void behalf_prepare(void);

/* Returns what was before. */
static inline struct behalf behalf_set(struct behalf behalf)
{
    struct behalf before = behalf_now;
    if (behalf.place && __builtin_expect(!behalf_ready, 0))
        behalf_prepare();
    behalf_now = behalf;
    atomic_signal_fence(memory_order_seq_cst);
    return before;
}
