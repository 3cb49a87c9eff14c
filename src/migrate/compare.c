/* What a job does with a verifier: with verify, all that is copied is compared before the job is MIRRORED.
 *
 *   COPYING → VERIFYING → all equal: MIRRORED
 *                       → differences: COPYING, by the same copier, and VERIFYING again, of those regions alone
 *
 * The mirror refuses a commit while anything is still to be compared, so what becomes dirty later comes through here
 * again. A target that differs in the same region again and again fails the job; the source stays. */
#include <errno.h>

#include "base/log.h"
#include "migrate/inside.h"

static void verified(void *argument)
{
    struct job *job = argument;
    pthread_mutex_lock(&job->mutex);
    job->verified = true;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
}

static void differs(void *argument, struct extent extent, unsigned times)
{
    struct job *job = argument;
    bool last = times >= VERIFIER_TRIES;
    log_warning("job %llu: disk %llu: the target on datastore %s differs from the source at offset %llu, in %llu bytes "
                "(time %u of %u)%s",
        (unsigned long long)job->id, (unsigned long long)job->node, job_target(job)->name,
        (unsigned long long)extent.start, (unsigned long long)extent_length(extent), times, VERIFIER_TRIES,
        last ? "" : "; they are copied again");
    if (!last)
        return;
    pthread_mutex_lock(&job->mutex);
    job->lies = true;
    job->failed_at = extent;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
}

static void failed(void *argument, uint64_t offset, int error)
{
    struct job *job = argument;
    pthread_mutex_lock(&job->mutex);
    job->source_failed = true;
    job->failed_at = (struct extent){offset, offset};
    job->failed_error = error;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
}

static int start(struct job *job)
{
    struct verifier *verifier;
    struct verifier_options options = {.disk = job->disk,
        .mirror = job->mirror,
        .reactor = job->reactor,
        .window = job->services.window,
        .guest_window = job->services.guest_window,
        .rate = job_rate(job),
        .rescue = job->request.rescue,
        .done = verified,
        .differs = differs,
        .failed = failed,
        .job = job};
    if (verifier_start(&verifier, &options) < 0)
        return job_fail(job, -ENOMEM, "no memory for the comparisons in flight");
    pthread_mutex_lock(&job->mutex);
    job->verifier = verifier;
    verifier_set_rate(verifier, job->rate);
    pthread_mutex_unlock(&job->mutex);
    return 0;
}

int job_copied(struct job *job)
{
    if (!job->request.verify || !job->mirror) {
        job_move(job, JOB_MIRRORED);
        return 0;
    }
    pthread_mutex_lock(&job->mutex);
    job->verified = false;
    pthread_mutex_unlock(&job->mutex);
    job_move(job, JOB_VERIFYING);
    if (!job->verifier)
        return start(job);
    verifier_pause(job->verifier, false);
    verifier_kick(job->verifier);
    return 0;
}

void job_verified(struct job *job)
{
    struct verifier_progress progress = verifier_progress(job->verifier);
    if (mirror_uncompared(job->mirror) == 0) {
        log_info("job %llu: the legs are equal: verified=%llu differences=%llu", (unsigned long long)job->id,
            (unsigned long long)progress.verified, (unsigned long long)progress.differences);
        job_move(job, JOB_MIRRORED);
        return;
    }
    pthread_mutex_lock(&job->mutex);
    job->copied = false;
    pthread_mutex_unlock(&job->mutex);
    job_move(job, JOB_COPYING);
    copier_kick(job->copier);
}

int job_lies(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    uint64_t offset = job->failed_at.start;
    pthread_mutex_unlock(&job->mutex);
    return job_fail(job, -EIO,
        "the target on datastore %s returns other bytes than were written at offset %llu, %u times; the disk stays on "
        "datastore %s",
        job_target(job)->name, (unsigned long long)offset, VERIFIER_TRIES, job_source(job)->name);
}

struct verifier *job_take_verifier(struct job *job)
{
    struct verifier *verifier = job->verifier;
    job->verifier = NULL;
    if (verifier) {
        struct verifier_progress progress = verifier_progress(verifier);
        job->verified_total.verified = progress.verified;
        job->verified_total.differences += progress.differences;
    }
    return verifier;
}
