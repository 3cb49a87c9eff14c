/* What is on record of a job after a death: the catalog's record names the partial; the journal, which names the same
 * partial, says which of its regions agree with the source. Both together, and only then, the job goes on from there; in
 * any other case it starts over with a new partial.
 *
 * The disk's log is on before the disk is served: a write to a region that counts as copied, sent before the job has opened
 * its target again, would else be lost at the commit (law 2).
 *
 * Way out. A journal that fails or hangs must not hold the guest's writes for ever, and what stands in it must never be
 * believed again. So the partial is removed on the target, durably, or the record is made to name none; then nothing has to
 * be marked any more. The disk's log is on in every state, so somebody looks at the marks in every state: of a job that
 * waits for its turn, too. */
#include "migrate/recover.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "migrate/await.h"

static void take(struct job *job, struct marks *marks)
{
    pthread_mutex_lock(&job->mutex);
    struct marks *old = job->marks;
    job->marks = marks;
    pthread_mutex_unlock(&job->mutex);
    marks_end(old);
}

int recover_load(struct job *job, const struct job_record *record)
{
    struct marks *marks = NULL;
    bool runs = record->state == JOB_RECORD_RUNNING || record->state == JOB_RECORD_MEMBER;
    if (!job->services.journals || !runs || !record->partial[0])
        return 0;
    int error = marks_load(&marks, job->services.journals, record->id, record->partial);
    if (error && error != -ENOENT) {
        log_warning("job %llu: its journal cannot be used (%s): the copy starts over", (unsigned long long)record->id,
            error_text(error));
        if (journal_remove(job->services.journals, record->id) < 0 && marks_new_blocked(&marks) < 0)
            return -ENOMEM;
    }
    take(job, marks);
    return 0;
}

bool recover_possible(struct job *job)
{
    return job->marks && job->record.partial[0] && marks_durable(job->marks);
}

static int fence(struct job *job, struct image *image)
{
    return await_fence(job->reactor, image, job_target(job)->timeout_ns);
}

int recover_open(struct job *job, struct image **out)
{
    struct datastore *target = job_target(job);
    if (job->stale) { /* of the attempt before: what it gave up on must not land behind us (law 6) */
        int error = fence(job, job->stale);
        if (error)
            return error;
        image_put(job->stale);
        job->stale = NULL;
    }
    int error = target->ops->open_image(target, job->record.partial, true, out);
    if (error)
        return error;
    error = fence(job, *out);
    if (error)
        image_put(*out);
    return error;
}

int recover_begin(struct job *job)
{
    struct marks *marks = NULL;
    int error = 0;
    if (job->services.journals && !job->unlogged)
        error = marks_new(&marks, job->services.journals, job->record.id, job->record.partial);
    if (error)
        return error;
    if (job->marks)
        marks_void(job->marks); /* the record names another partial now */
    disk_set_log(job->disk, marks ? marks_log(marks) : NULL);
    take(job, marks);
    image_put(job->stale);
    job->stale = NULL;
    return 0;
}

void recover_keep(struct job *job, struct image *target)
{
    image_put(job->stale);
    job->stale = recover_possible(job) ? image_get(target) : NULL;
}

bool recover_failed(struct job *job)
{
    return job->marks && marks_failed(job->marks, job_patience(job));
}

/* Once the move is committed the marks are its reverse's. */
static const struct job_record *record_of(struct job *job)
{
    return job->record.state == JOB_RECORD_COMMITTED ? &job->reverse : &job->record;
}

static int remove_partial(struct job *job, const struct job_record *record)
{
    struct datastore *target = catalog_datastore(job->services.catalog, record->target);
    /* What is kept gets the partial's name when the move is completed: before, that it is not there says nothing. */
    bool early = record != &job->record ||
                 (job->request.undo_until && jobs_settle_forward(job->services.catalog, job->node) < 0);
    if (early || target->away)
        return -EIO;
    int error = target->ops->remove(target, record->partial, false);
    return error && error != -ENOENT ? error : target->ops->sync_directory(target, record->partial);
}

/* Any of these will do. */
static int invalidate(struct job *job, const struct job_record *record)
{
    int error = remove_partial(job, record);
    if (error)
        error = journal_remove(job->services.journals, record->id);
    if (error) {
        struct job_record nothing = *record;
        nothing.partial[0] = '\0';
        error = jobs_put(job->services.catalog, &nothing, NULL);
    }
    return error;
}

int recover_void(struct job *job)
{
    const struct job_record *record = record_of(job);
    int error = invalidate(job, record);
    if (error) {
        log_error(
            "job %llu: its journal cannot be written, and the partial on datastore %s cannot be removed: %s; writes to "
            "what was copied wait",
            (unsigned long long)record->id, catalog_datastore(job->services.catalog, record->target)->name,
            error_text(error));
        return error;
    }
    log_warning("job %llu: its journal cannot be written in time: the copy starts over, without a journal",
        (unsigned long long)record->id);
    marks_void(job->marks);
    if (job->disk)
        disk_set_log(job->disk, NULL);
    take(job, NULL);
    job->unlogged = true;
    image_put(job->stale);
    job->stale = NULL;
    return 0;
}

bool recover_has_marks(struct job *job)
{
    bool has = job->marks;
    for (size_t i = 0; i < job->member_count && !has; i++)
        has = job->members[i]->marks;
    return has;
}

void recover_look(struct job *job)
{
    if (recover_failed(job))
        recover_void(job);
    for (size_t i = 0; i < job->member_count; i++)
        if (!job->members[i]->running && recover_failed(job->members[i]))
            recover_void(job->members[i]);
}

void recover_forget(struct job *job)
{
    image_put(job->stale);
    job->stale = NULL;
    if (!job->marks && !job->unlogged)
        return;
    if (job->marks)
        marks_void(job->marks);
    if (job->marks && job->disk)
        disk_set_log(job->disk, NULL);
    take(job, NULL);
    int error = journal_remove(job->services.journals, job->record.id);
    if (error)
        log_warning("job %llu: its journal cannot be removed: %s; it is at the next mount",
            (unsigned long long)job->record.id, error_text(error));
}

void recover_replace(struct job *job, struct marks *marks)
{
    if (job->marks)
        marks_void(job->marks);
    take(job, marks);
    if (job->services.journals)
        journal_remove(job->services.journals, job->record.id); /* what stays goes at the next start */
}

void recover_leave(struct job *job)
{
    image_put(job->stale);
    job->stale = NULL;
    take(job, NULL);
}
