/* Switchover: nothing is held. All regions are routed, so every write goes to both legs already; then
 *
 *   its attributes are copied · the target is flushed, attributes and all · COMMITTING: only both legs' word counts ·
 *   the commit record is durable · flip: reads and writes go to the target
 *
 * and after it, each durable before the next: the partial gets its name, the source is removed, the record is dropped.
 * A commit whose outcome is unknown is repeated by a new transaction while both legs go on (law 1); a death in between
 * is decided by the record that the next worker finds. */
#include <errno.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/log.h"
#include "migrate/await.h"
#include "migrate/inside.h"

#define COMMIT_RETRY (500 * NS_PER_MS)

int job_prepare(struct job *job)
{
    struct sentence why = {""};
    event("switch-attributes");
    int error = jobs_copy_attributes(job->services.catalog, &job->record, &why);
    if (error < 0) {
        job_fail(job, error, "attributes of the target: %s", why.text[0] ? why.text : error_text(error));
        return job_retry(job, job_target(job), error);
    }
    if (job->special)
        return 0;
    event("switch-flush"); /* last, and whole: it makes the attributes durable too */
    error = await_io(
        job->reactor, mirror_target(job->mirror), VERB_FLUSH, (struct extent){0, 0}, job->services.target_timeout_ns);
    if (error == 0)
        return 0;
    job_fail(job, error, "flush of the target on datastore %s: %s", job_target(job)->name, error_text(error));
    return job_retry(job, job_target(job), error);
}

/* The catalog says for certain that nothing was recorded: the source stays the truth. */
static int not_committed(struct job *job, int error)
{
    mirror_commit_failed(job->mirror);
    job_unpark(job);
    if (error == -ECANCELED)
        return job_fail(job, error, "the disk was unlinked");
    return job_fail(job, error, "attributes of the target on datastore %s", job_target(job)->name);
}

int job_switch(struct job *job)
{
    job_move(job, JOB_SWITCHING);
    disk_worst(job->disk, true);
    int error = job_prepare(job);
    if (error < 0)
        return error;
    pthread_mutex_lock(&job->mutex);
    bool dropped = job->diverged, cancelled = job->cancel; /* from here on a cancel is refused */
    job->copied = false;
    pthread_mutex_unlock(&job->mutex);
    if (cancelled)
        return job_fail(job, -ECANCELED, "cancelled");
    if (dropped)
        return job_fail(job, -EAGAIN, "the target on datastore %s failed during the switchover", job_target(job)->name);
    if (!mirror_commit_begin(job->mirror))
        return 1; /* dirty again, or dropped just now: the loop hears of it */
    event("switch-commit");
    struct job_record *record = &job->record;
    while ((error = jobs_commit(job->services.catalog, &record, 1, NULL)) < 0) {
        if (error == -ECANCELED || error == -EAGAIN)
            return not_committed(job, error);
        log_error("job %llu: the commit could not be recorded: %s; both legs go on, it is recorded again",
            (unsigned long long)job->record.id, error_text(error));
        if (job_sleep(job, COMMIT_RETRY))
            return -ESHUTDOWN;
    }
    event("switch-committed");
    disk_flip(job->disk, job->mirror);
    jobs_flip(job->services.catalog, &job->record);
    job_unpark(job);
    event("switch-flipped");
    pthread_mutex_lock(&job->mutex);
    job->pause_ns = disk_worst(job->disk, false);
    pthread_mutex_unlock(&job->mutex);
    return 0;
}

void job_complete(struct job *job)
{
    struct sentence why = {""};
    int error;
    if (job->directory)
        error = jobs_complete_family(job->services.catalog, &job->record);
    else
        error = jobs_complete(job->services.catalog, &job->record, &why);
    if (error < 0) {
        job_fail(job, error,
            "the disk is on datastore %s, but what is left on datastore %s could not be tidied up: %s; it is "
            "done at the next mount",
            job_target(job)->name, job_source(job)->name, why.text[0] ? why.text : error_text(error));
    }
}
