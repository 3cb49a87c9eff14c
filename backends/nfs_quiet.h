/* nfs_quiet: what must wait until nothing that was sent before can land any more (law 6). An NFSv3 server may execute
 * a call long after its connection is gone; nothing in the protocol ends it. What is known: once the server has answered
 * the same call on a new connection it has had the old connection's bytes, and has reached its disk; the quiet time (an
 * option, 3 s) is what it is given to work the rest off. It counts only while the server is alive: as long as something
 * is held the server is asked for the root's attributes, four times in a quiet time and at its end, and when one answer
 * takes long the time begins again with it. (Long is a quarter of the quiet time, and twice as long as the last answer:
 * a server that is always slow does not hold anything for ever.) A server process that was started later (its write
 * verifier is another one) cannot execute old calls at all.
 *
 * All of it happens on the names' reactor, which lives as long as the datastore. */
#pragma once

#include <stdint.h>

#include "backends/nfs_connection.h"
#include "base/list.h"
#include "io/reactor.h"

struct nfsds_quiet {
    struct nfs *nfs;
    struct timer timer;
    struct list held; /* by time */
    struct nfsds_call probe;
    struct GETATTR3args arguments;
    uint64_t asked; /* when; 0: nothing is asked */
    uint64_t took;  /* the last answer */
};

/* Embedded in what waits. */
struct nfsds_hold {
    struct list link;
    struct task task;
    struct nfsds_quiet *quiet;
    uint64_t until;
    void (*released)(struct nfsds_hold *hold); /* on the names' reactor */
};

void nfsds_quiet_init(struct nfsds_quiet *quiet, struct nfs *nfs);
/* Calls hold->released when the server has been alive until then (clock_now), not before. Any thread, never from
 * within. */
void nfsds_quiet_hold(struct nfsds_quiet *quiet, struct nfsds_hold *hold, uint64_t until);
