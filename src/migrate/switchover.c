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
#include "migrate/recover.h"
#include "migrate/undo.h"

#define COMMIT_RETRY (500 * NS_PER_MS)
#define AWAY_FIRST   (20 * NS_PER_MS)
#define AWAY_MOST    (5 * NS_PER_S)
#define TIDY_TRIES   5 /* where they are there */

static int flush_failed(struct job *job, int error)
{
    job_fail(job, error, "flush of the target on datastore %s: %s", job_target(job)->name, error_text(error));
    return job_retry(job, job_target(job), error);
}

/* While the commit's outcome is unknown the partial cannot be given up, so no write may have to wait for a journal that hangs
 * on the same disk as the catalog: all is marked before. */
static int cover(struct job *job)
{
    int error = job->marks ? marks_cover(job->marks, disk_size(job->disk), job_patience(job)) : 0;
    if (error == 0)
        return 0;
    job_fail(job, error, "the journal could not be written in time");
    job->outage = true;
    return -EAGAIN;
}

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
    if (error < 0)
        return flush_failed(job, error);
    error = rescue_settle(job);
    return error < 0 ? error : cover(job);
}

/* The catalog says for certain that nothing was recorded: the source stays the truth. */
static int not_committed(struct job *job, int error)
{
    mirror_commit_failed(job->mirror);
    undo_drop(job);
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
    struct job_record *record = &job->record, *reverse;
    error = undo_prepare(job, &reverse);
    if (error < 0)
        return error;
    if (!mirror_commit_begin(job->mirror)) {
        undo_drop(job);
        return 1; /* dirty again, or dropped just now: the loop hears of it */
    }
    event("switch-commit");
    while ((error = jobs_commit(job->services.catalog, &record, 1, NULL, reverse)) < 0) {
        if (error == -ECANCELED || error == -EAGAIN)
            return not_committed(job, error);
        log_error("job %llu: the commit could not be recorded: %s; both legs go on, it is recorded again",
            (unsigned long long)job->record.id, error_text(error));
        if (job_sleep(job, COMMIT_RETRY))
            return -ESHUTDOWN;
    }
    event("switch-committed");
    if (!undo_turn(job)) {
        disk_flip(job->disk, job->mirror);
        disk_set_log(job->disk, NULL); /* the target is the truth: nothing has to be marked any more */
    }
    jobs_flip(job->services.catalog, &job->record);
    job_unpark(job);
    event("switch-flipped");
    pthread_mutex_lock(&job->mutex);
    job->pause_ns = disk_worst(job->disk, false);
    pthread_mutex_unlock(&job->mutex);
    return 0;
}

static int tidy_up(struct job *job, struct sentence *why)
{
    if (job->directory)
        return jobs_complete_family(job->services.catalog, &job->record);
    return jobs_complete(job->services.catalog, &job->record, why);
}

/* A worker that follows another one has not reached every datastore yet: then it is waited for, so that no older record
 * stands beside the next move's. */
static bool is_away(struct job *job)
{
    return atomic_load(&job_source(job)->away) || atomic_load(&job_target(job)->away);
}

void job_complete(struct job *job)
{
    struct sentence why = {""};
    uint64_t delay = AWAY_FIRST;
    int error;
    for (unsigned tries = TIDY_TRIES;;) {
        bool away = is_away(job); /* before: it may come while it is asked */
        error = tidy_up(job, &why);
        away = away || is_away(job);
        if (error >= 0 || (!away && --tries == 0) || job_sleep(job, delay))
            break;
        delay = delay * 2 < AWAY_MOST ? delay * 2 : AWAY_MOST;
        recover_look(job); /* the reverse's */
    }
    if (error < 0) {
        job_fail(job, error,
            "the disk is on datastore %s, but what is left on datastore %s could not be tidied up: %s; it is "
            "done at the next mount",
            job_target(job)->name, job_source(job)->name, why.text[0] ? why.text : error_text(error));
    }
}
