/* An epoch of a job: see marks.c. The flush is one of the disk's, so that it goes to both legs as the guest's do, and what it
 * finds out about the source is told to the guest. */
#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrate/await.h"
#include "migrate/recover.h"

#define LOOK    (50 * NS_PER_MS)
#define AT_REST 6 /* where nothing is copied, epochs are so much rarer: they only end marks */

bool epoch_due(struct job *job)
{
    return job->marks && job->mirror && clock_now() >= job->epoch_at;
}

static bool disturbed(struct job *job, bool last)
{
    pthread_mutex_lock(&job->mutex);
    bool is = job->cancel || job->diverged || job->source_failed || (job->suspend && !last);
    pthread_mutex_unlock(&job->mutex);
    return is;
}

static int settle(struct job *job, bool last)
{
    uint64_t until = clock_now() + job_patience(job);
    while (!marks_epoch_settled(job->marks, LOOK))
        if (clock_now() > until || disturbed(job, last))
            return -EAGAIN;
    return 0;
}

/* What was sent before a turn is not known to the marks. */
static bool turned(struct job *job)
{
    if (job->turned && mirror_shared(job->turned))
        return true;
    mirror_put(job->turned);
    job->turned = NULL;
    return false;
}

static int make(struct job *job, bool last)
{
    struct marks *marks = job->marks;
    if (turned(job))
        return -EAGAIN;
    int error = marks_epoch_begin(marks, job->mirror, last);
    if (error)
        return error;
    error = settle(job, last);
    if (!error)
        error = await_flush(job->reactor, job->disk, job_source(job)->timeout_ns);
    if (!error && mirror_phase(job->mirror) != MIRROR_ATTACHED)
        error = -EAGAIN;
    if (error)
        marks_epoch_abandon(marks);
    else
        error = marks_epoch_end(marks, job->mirror, job_patience(job));
    return error;
}

int epoch_make(struct job *job, bool last)
{
    bool first = !marks_durable(job->marks);
    bool wanted = marks_epoch_wanted(job->marks, job->mirror);
    int error = wanted ? make(job, last) : 0;
    if (!error && first && last) /* the first only makes the journal */
        error = make(job, last);
    uint64_t period = job->services.epoch_ns;
    job->epoch_at = clock_now() + (first && wanted && !error          ? 0
                                      : job_state(job) == JOB_COPYING ? period
                                                                      : AT_REST * period);
    if (error && error != -EAGAIN)
        log_warning("job %llu: no epoch: %s", (unsigned long long)job->record.id, error_text(error));
    return error;
}
