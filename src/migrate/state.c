/* The job's states as a table. */
#include "migrate/job.h"

static const char *const names[JOB_STATES] = {
    [JOB_QUEUED] = "queued",
    [JOB_OPENING] = "opening",
    [JOB_COPYING] = "copying",
    [JOB_VERIFYING] = "verifying",
    [JOB_MIRRORED] = "mirrored",
    [JOB_SWITCHING] = "switching",
    [JOB_PAUSED] = "paused",
    [JOB_DONE] = "done",
    [JOB_CANCELLED] = "cancelled",
    [JOB_FAILED] = "failed",
    [JOB_RESCUED] = "rescued",
};

#define TO(state) (1u << (state))
#define TO_END    (TO(JOB_CANCELLED) | TO(JOB_FAILED))

/* QUEUED → SWITCHING: the record of a dead worker says that it is committed. PAUSED → OPENING: the target was given up,
 * and a new partial is made. SWITCHING → COPYING: the commit is known not to have happened and regions became dirty.
 * VERIFYING → COPYING: the legs differ. */
static const unsigned moves[JOB_STATES] = {
    [JOB_QUEUED] = TO(JOB_OPENING) | TO(JOB_SWITCHING) | TO_END,
    [JOB_OPENING] = TO(JOB_COPYING) | TO(JOB_PAUSED) | TO_END,
    [JOB_COPYING] = TO(JOB_VERIFYING) | TO(JOB_MIRRORED) | TO(JOB_PAUSED) | TO_END,
    [JOB_VERIFYING] = TO(JOB_MIRRORED) | TO(JOB_COPYING) | TO(JOB_PAUSED) | TO_END,
    [JOB_MIRRORED] = TO(JOB_SWITCHING) | TO(JOB_COPYING) | TO(JOB_PAUSED) | TO_END,
    [JOB_SWITCHING] = TO(JOB_DONE) | TO(JOB_RESCUED) | TO(JOB_COPYING) | TO(JOB_PAUSED) | TO_END,
    [JOB_DONE] = TO(JOB_OPENING) | TO_END, /* the old disk is kept: the reverse job begins */
    [JOB_PAUSED] = TO(JOB_COPYING) | TO(JOB_OPENING) | TO_END,
};

const char *job_state_name(enum job_state state)
{
    return names[state];
}

bool job_may_move(enum job_state from, enum job_state to)
{
    return moves[from] & TO(to);
}
