/* pace: how fast a copy may go, from how the guest fares (latency=) and from when it is to be done (deadline=). Pure but for
 * the state that the caller keeps and the figures that it passes; one thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct pace {
    /* set by the caller; 0: none */
    uint64_t latency_ns; /* of a hundred requests of the guest at most one may take longer */
    uint64_t until_ns;   /* clock_now() units: the copy is to be done */
    /* as the last step left them */
    uint64_t rate; /* bytes a second; 0: as fast as it goes */
    bool gentle;   /* for the guest's sake: small requests, few at a time */
    /* own */
    uint64_t allowed, served, late, copied, at, quiet_since, others_until;
    unsigned patience;
    bool met; /* requests that were late: from then on it goes up slowly */
};

/* As of now, since the copy began. */
struct pace_figures {
    uint64_t now;          /* clock_now() */
    uint64_t served, late; /* the guest's requests, and those over the latency */
    uint64_t copied, left; /* bytes that are dealt with, and that are not */
    bool busy;             /* the guest has requests in flight */
};

#define PACE_PERIOD_NS 100000000ull /* from step to step */

/* A guest is at work: the disk's own, or another's on one of its legs' datastores. Sets gentle, and
 * for its own guest rate, at once. */
void pace_seen(struct pace *pace, uint64_t now, bool own);
/* The first step begins. Sets rate and gentle. */
void pace_step(struct pace *pace, const struct pace_figures *figures);
