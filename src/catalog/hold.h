/* hold: what one change or one call by path keeps others from doing meanwhile.
 *
 * A call by path uses the node and every directory above it (shared): none of them is renamed or removed while the path
 * is under way. A change of a name owns the node (nobody else has its path in hand) and uses the directories that hold
 * it. A name that is being made is owned too. All of a hold is taken at once or nothing, so holds never wait for each
 * other in a circle, and a hung datastore keeps only what stands below the very nodes that its caller uses (law 14).
 *
 * A node that somebody wants to own turns users away for WANTED_NS of each second, so that an owner gets its turn; not
 * for longer, since the user it waits for may hang. */
#pragma once

#include "base/list.h"
#include "catalog/tree.h"

struct catalog;

struct hold {
    struct catalog *catalog;
    struct entry *used[2], *owned[2];
    struct list link; /* among the catalog's names that are being made */
    uint64_t parent;
    const char *name; /* NULL: none; the caller's memory */
};

/* Fills what is wanted: used, owned and name may be NULL or 0. */
void hold_init(struct hold *hold, struct catalog *catalog);

/* With the tree's mutex held. True: taken. False: now hold_wait and look everything up again. */
bool hold_take(struct hold *hold);
/* Gives the mutex up until something was given back, or for a tenth of a second. */
void hold_wait(struct catalog *catalog);
void hold_release_locked(struct hold *hold);
void hold_release(struct hold *hold);
