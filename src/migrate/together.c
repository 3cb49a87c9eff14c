/* The switchover of a directory's members: as switchover.c does it for one disk, with one commit record for all. Until
 * it is durable each source is the truth and both legs of every member go on (law 1). While the directory's job has a
 * member in hand (enlisted), the member's own thread only waits; whatever comes out, it is told by led_result:
 * 0: switched · 1: nothing happened, copy on · -EAGAIN: its target failed, it tries again · -ESHUTDOWN. */
#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/log.h"
#include "migrate/inside.h"

#define COMMIT_RETRY (500 * NS_PER_MS)

struct company {
    struct job *job;
    struct job **members;
    struct job_record **records;
    size_t count, committing; /* mirrors in COMMITTING: those of the first so many members */
};

static bool enlist(struct job *member)
{
    pthread_mutex_lock(&member->mutex);
    bool ready = member->state == JOB_MIRRORED && !member->suspend && !member->cancel && !member->pause &&
                 !member->diverged && !member->source_failed && !member->led;
    member->enlisted = ready;
    pthread_mutex_unlock(&member->mutex);
    return ready;
}

static void release(struct job *member, int result)
{
    pthread_mutex_lock(&member->mutex);
    member->enlisted = false;
    member->led = true;
    member->led_result = result;
    member->copied = false;
    pthread_cond_broadcast(&member->changed);
    pthread_mutex_unlock(&member->mutex);
}

/* Nobody switches; the member that was the reason may have another result than the others. */
static void retreat(struct company *company, const struct job *reason, int result)
{
    for (size_t i = 0; i < company->committing; i++)
        if (!company->members[i]->special)
            mirror_commit_failed(company->members[i]->mirror);
    if (company->committing)
        job_unpark(company->job);
    for (size_t i = 0; i < company->count; i++)
        release(company->members[i], company->members[i] == reason ? result : 1);
    company->committing = 0;
}

/* False: not all are ready. */
static bool enlist_all(struct company *company)
{
    for (size_t i = 0; i < company->job->member_count; i++) {
        struct job *member = company->job->members[i];
        if (job_ended(member))
            continue;
        if (!enlist(member)) {
            for (size_t j = 0; j < company->count; j++) {
                pthread_mutex_lock(&company->members[j]->mutex);
                company->members[j]->enlisted = false;
                pthread_cond_broadcast(&company->members[j]->changed);
                pthread_mutex_unlock(&company->members[j]->mutex);
            }
            return false;
        }
        company->records[company->count] = &member->record;
        company->members[company->count++] = member;
    }
    return true;
}

static int prepare_directories(struct job *job)
{
    struct catalog *catalog = job->services.catalog;
    struct sentence why = {""};
    uint64_t *ids = NULL;
    size_t count = 0;
    int error = jobs_find_directories(catalog, job->node, &ids, &count);
    for (size_t i = 0; i < count && error == 0; i++) {
        struct node node;
        error = jobs_copy_directory(catalog, &job->record, ids[i], &why);
        if (error && catalog_get(catalog, ids[i], &node) == -ENOENT) /* removed meanwhile */
            error = 0;
    }
    free(ids);
    return error < 0 ? job_fail(job, error, "%s", why.text[0] ? why.text : error_text(error)) : 0;
}

/* 0; 1: they retreated; -errno: the job fails. */
static int prepare_all(struct company *company)
{
    struct job *job = company->job;
    for (size_t i = 0; i < company->count; i++) {
        struct job *member = company->members[i];
        if (!member->special)
            disk_worst(member->disk, true);
        int error = job_prepare(member);
        if (error < 0) {
            retreat(company, member, error);
            return 1;
        }
    }
    int error = prepare_directories(job);
    if (error < 0) {
        retreat(company, NULL, 1);
        return error;
    }
    rescue_settle_family(job, company->members, company->count);
    pthread_mutex_lock(&job->mutex);
    bool begun = !job->cancel && !job->suspend; /* from here on a cancel is refused */
    pthread_mutex_unlock(&job->mutex);
    for (size_t i = 0; i < company->count && begun; i++)
        begun = !job_cancelled(company->members[i]);
    for (size_t i = 0; i < company->count && begun; i++) {
        begun = company->members[i]->special || mirror_commit_begin(company->members[i]->mirror);
        company->committing += begun;
    }
    if (!begun)
        retreat(company, NULL, 1);
    return begun ? 0 : 1;
}

/* Certainly not committed: a disk that was unlinked leaves, the others wait for the next time. */
static void drop_unlinked(struct company *company)
{
    for (size_t i = 0; i < company->count; i++) {
        struct node node;
        struct job *member = company->members[i];
        if (catalog_get(member->services.catalog, member->node, &node) == 0 && !node.orphan)
            continue;
        pthread_mutex_lock(&member->mutex);
        member->cancel = true;
        pthread_mutex_unlock(&member->mutex);
    }
}

static int commit(struct company *company)
{
    struct job *job = company->job;
    int error;
    event("family-commit");
    while ((error = jobs_commit(job->services.catalog, company->records, company->count, &job->record, NULL)) < 0) {
        if (error == -ECANCELED || error == -EAGAIN) {
            drop_unlinked(company);
            retreat(company, NULL, 1);
            return 1;
        }
        log_error("job %llu: the commit could not be recorded: %s; both legs go on, it is recorded again",
            (unsigned long long)job->record.id, error_text(error));
        if (job_sleep(job, COMMIT_RETRY)) {
            for (size_t i = 0; i < company->count; i++)
                release(company->members[i], -ESHUTDOWN);
            return -ESHUTDOWN;
        }
    }
    event("family-committed");
    return 0;
}

static void flip(struct company *company)
{
    struct job *job = company->job;
    for (size_t i = 0; i < company->count; i++) {
        struct job *member = company->members[i];
        if (!member->special) {
            disk_flip(member->disk, member->mirror);
            disk_set_log(member->disk, NULL);
        }
        jobs_flip(job->services.catalog, &member->record);
    }
    jobs_flip(job->services.catalog, &job->record);
    job_unpark(job);
    event("family-flipped");
    for (size_t i = 0; i < company->count; i++) {
        struct job *member = company->members[i];
        uint64_t worst = member->special ? 0 : disk_worst(member->disk, false);
        pthread_mutex_lock(&member->mutex);
        member->pause_ns = worst;
        pthread_mutex_unlock(&member->mutex);
        pthread_mutex_lock(&job->mutex);
        job->pause_ns = worst > job->pause_ns ? worst : job->pause_ns;
        pthread_mutex_unlock(&job->mutex);
        release(member, 0);
    }
}

static int switch_company(struct company *company)
{
    if (!enlist_all(company))
        return 1;
    job_move(company->job, JOB_SWITCHING);
    for (size_t i = 0; i < company->count; i++)
        job_move(company->members[i], JOB_SWITCHING);
    int result = prepare_all(company);
    if (result == 0)
        result = commit(company);
    if (result == 0)
        flip(company);
    return result;
}

int family_switch(struct job *job)
{
    struct company company = {.job = job};
    company.members = calloc(job->member_count + 1, sizeof(struct job *));
    company.records = calloc(job->member_count + 1, sizeof(struct job_record *));
    int result = company.members && company.records ? switch_company(&company)
                                                    : job_fail(job, -ENOMEM, "no memory for the switchover");
    free(company.members);
    free(company.records);
    return result;
}
