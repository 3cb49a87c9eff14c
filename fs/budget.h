/* budget: what each datastore may hold of one reactor's slots and chunks, so that one that hangs leaves the others
 * theirs (law 14). Arithmetic; one thread; time is passed in.
 *
 *   - A datastore is stalled when it holds something and has given back nothing for BUDGET_STALL_NS.
 *   - Stalled, it gets nothing beyond half, and, while all together hold three quarters, nothing beyond its even part
 * of the last quarter: what comes for it is refused.
 *   - While all hold three quarters, reading pauses as long as one that is not stalled has more than its even part: it
 * works, so something comes back soon, or it is stalled (at the latest in BUDGET_STALL_NS) and reading goes on. So the
 * others always find something.
 *   - With one datastore there is nobody to protect: nothing is refused, nothing pauses. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "config.h"

#define BUDGET_STALL_NS 1000000000ull

struct budget {
    /* set at creation */
    unsigned slots, chunks, datastores;
    /* own thread */
    struct share {
        unsigned slots, chunks;
        uint64_t progress; /* when something came back, or the first was taken */
    } share[CONFIG_DATASTORES_MAX];
    unsigned slots_held, chunks_held; /* by all */
};

void budget_init(struct budget *budget, unsigned slots, unsigned chunks, unsigned datastores);

/* A slot and the chunks of its payload go to the datastore; false: refused, nothing was counted. */
bool budget_take(struct budget *budget, unsigned datastore, unsigned chunks, uint64_t now);
/* Further chunks for a request that is counted. */
bool budget_take_chunks(struct budget *budget, unsigned datastore, unsigned chunks, uint64_t now);
void budget_put(struct budget *budget, unsigned datastore, unsigned chunks, uint64_t now);

bool budget_stalled(const struct budget *budget, unsigned datastore, uint64_t now);
/* Do all together hold three quarters? */
bool budget_scarce(const struct budget *budget);
/* Should reading pause? False unless scarce. */
bool budget_pauses(const struct budget *budget, uint64_t now);
