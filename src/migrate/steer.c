/* What a person asks of a job that is under way: flags, which its thread sees (job_next). */
#include <errno.h>

#include "migrate/inside.h"
#include "migrate/undo.h"

/* Sets a flag if the state is one of the mask. */
static int steer(struct job *job, unsigned states, bool *flag, bool value)
{
    pthread_mutex_lock(&job->mutex);
    int error = states >> job->state & 1 ? 0 : job->state == JOB_SWITCHING ? -EBUSY : -EINVAL;
    if (error == 0)
        *flag = value;
    job->news = true;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
    return error;
}

#define RUNNING (1u << JOB_OPENING | 1u << JOB_COPYING | 1u << JOB_VERIFYING | 1u << JOB_MIRRORED | 1u << JOB_PAUSED)

int job_cancel(struct job *job)
{
    return steer(job, RUNNING | 1u << JOB_QUEUED, &job->cancel, true);
}

int job_pause(struct job *job)
{
    return steer(job, RUNNING, &job->pause, true);
}

int job_resume(struct job *job)
{
    return steer(job, RUNNING, &job->pause, false);
}

bool job_keeps(struct job *job, uint64_t *left)
{
    pthread_mutex_lock(&job->mutex);
    bool keeps = undo_waits(job);
    *left = undo_left(job);
    pthread_mutex_unlock(&job->mutex);
    return keeps;
}

bool job_still_keeps(struct job *job, uint64_t *left)
{
    pthread_mutex_lock(&job->mutex);
    bool keeps = job->request.undo_until && job->request.manual && !job->switchover && !job->ended;
    *left = job->cancel ? 0 : undo_left(job);
    pthread_mutex_unlock(&job->mutex);
    return keeps;
}

/* Said once more while it is under way, as after a worker's death, it is no error. */
int job_undo(struct job *job)
{
    uint64_t left;
    pthread_mutex_lock(&job->mutex);
    bool under_way = job->request.undo_until && (!job->request.manual || job->switchover) && !job->ended;
    pthread_mutex_unlock(&job->mutex);
    return under_way               ? 0
           : job_keeps(job, &left) ? steer(job, RUNNING | 1u << JOB_QUEUED, &job->switchover, true)
                                   : -ENOENT;
}

int job_release(struct job *job)
{
    uint64_t left;
    return job_keeps(job, &left) ? steer(job, RUNNING | 1u << JOB_QUEUED, &job->cancel, true) : -ENOENT;
}

bool job_told_by_the_last(struct job *job)
{
    uint64_t left;
    return job_still_keeps(job, &left) || (job->request.undo_until && job_ended(job) && job_state(job) != JOB_DONE);
}

int job_switchover(struct job *job)
{
    return steer(job, RUNNING | 1u << JOB_QUEUED, &job->switchover, true);
}
