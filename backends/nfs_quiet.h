/* nfs_quiet: what must wait until nothing that was sent before can land any more (law 6). An NFSv3 server may execute
 * a call long after its connection is gone; nothing in the protocol ends it. What is known: after a new connection's
 * first answer, the server is alive and has had the old connection's bytes before; the quiet time (an option, 3 s) is
 * what it is given to work them off. A server process that was started later (its write verifier is another one) cannot
 * execute them at all.
 *
 * Timers run on the names' reactor, which lives as long as the datastore. */
#pragma once

#include <stdint.h>

#include "base/list.h"
#include "io/reactor.h"

struct nfsds_quiet {
    struct reactor *reactor;
    struct timer timer;
    struct list held; /* by time; the reactor's own */
};

/* Embedded in what waits. */
struct nfsds_hold {
    struct list link;
    struct task task;
    struct nfsds_quiet *quiet;
    uint64_t until;
    void (*released)(struct nfsds_hold *hold); /* on the names' reactor */
};

void nfsds_quiet_init(struct nfsds_quiet *quiet, struct reactor *reactor);
/* Calls hold->released at until (clock_now), not before. Any thread, never from within. */
void nfsds_quiet_hold(struct nfsds_quiet *quiet, struct nfsds_hold *hold, uint64_t until);
