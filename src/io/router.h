/* router: which legs a request goes to. Pure; one exhaustive switch decides every verb for both legs (law 11). */
#pragma once

#include <stdbool.h>

#include "io/io.h"

enum leg { LEG_SOURCE = 1 << 0, LEG_TARGET = 1 << 1 };

/* attached: COMMITTING counts as ATTACHED. */
enum mirror_phase {
    MIRROR_NONE,       /* no job: the source leg is the disk's one image */
    MIRROR_ATTACHED,   /* the source is the truth */
    MIRROR_COMMITTING, /* the commit's outcome is unknown: only both legs' word counts (law 1) */
    MIRROR_FLIPPED,    /* the commit is durable: the target is the truth; the source is only still in flight */
    MIRROR_DROPPED,    /* the target was given up: the source alone counts */
};

/* routed: is any region of the extent routed? Returns the legs that a new request goes to. */
unsigned route(enum verb verb, enum mirror_phase phase, bool routed);

enum verdict {
    VERDICT_WAIT,   /* a leg that counts has not answered yet */
    VERDICT_SOURCE, /* the source's result is the request's */
    VERDICT_TARGET, /* the target's result is the request's */
    VERDICT_DROP,   /* the target failed: drop it, then the source's result is the request's */
    VERDICT_PARK,   /* the legs disagree while the commit is unknown: wait for its outcome */
};

/* A READ of the truth has failed by source_result: may the other leg be asked for it, under the region lock (law 1's only
 * exception)? holds: the target has these bytes: all their regions are routed, and nothing of them was given up as lost. */
bool route_again(enum mirror_phase phase, enum verb verb, unsigned to, int source_result, bool holds);

/* What becomes of a request that was sent to `to`, of which `pending` have not answered, with the results of those that
 * have. */
enum verdict route_verdict(
    enum mirror_phase phase, unsigned to, unsigned pending, int source_result, int target_result);
