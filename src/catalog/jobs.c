/* The records of moves, and what follows a commit. See jobs.h; the commit is in commit.c, the files of a move in
 * partial.c. */
#include "catalog/jobs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/event.h"
#include "base/log.h"
#include "catalog/place.h"
#include "catalog/records.h"

struct job *job_of_id(struct catalog *catalog, uint64_t id)
{
    list_for_each (link, &catalog->jobs)
        if (container_of(link, struct job, link)->record.id == id)
            return container_of(link, struct job, link);
    return NULL;
}

struct job *job_of_node(struct catalog *catalog, uint64_t node)
{
    list_for_each (link, &catalog->jobs)
        if (container_of(link, struct job, link)->record.node == node &&
            container_of(link, struct job, link)->record.state != JOB_RECORD_ABANDONED)
            return container_of(link, struct job, link);
    return NULL;
}

enum job_way job_way(struct catalog *catalog, uint64_t node)
{
    struct job *job = job_of_node(catalog, node);
    if (!job)
        return JOB_CLEAR;
    if (job->committing || job->completing)
        return JOB_WAIT;
    return job->record.state == JOB_RECORD_COMMITTED ? JOB_SETTLE : JOB_CLEAR;
}

/* What others said of the job since its thread took its copy: the request's text; and what was told to stop does not run
 * again: true. */
static bool given_up(struct catalog *catalog, struct job_record *record)
{
    tree_lock(catalog);
    struct job *job = job_of_id(catalog, record->id);
    bool is = job && job->record.state == JOB_RECORD_ABANDONED && job_record_runs(record);
    if (job)
        memcpy(record->request, job->record.request, sizeof(record->request));
    tree_unlock(catalog);
    return is;
}

int jobs_put(struct catalog *catalog, struct job_record *record, const struct origin *origin)
{
    struct job *made = calloc(1, sizeof(*made));
    if (!made)
        return -ENOMEM;
    list_init(&made->link);
    if (given_up(catalog, record)) {
        free(made);
        return -ECANCELED;
    }
    store_begin(catalog->store, true);
    record_job(catalog, record);
    uint64_t id = record->id ? record->id : store_last_id(catalog->store);
    record_applied(catalog, origin, 0, record->node);
    int error = store_commit(catalog->store);
    if (error) {
        free(made);
        return error;
    }
    record->id = id;
    tree_lock(catalog);
    struct job *job = job_of_id(catalog, id);
    if (job) {
        free(made);
    } else {
        job = made;
        list_append(&catalog->jobs, &job->link);
    }
    job->record = *record;
    tree_unlock(catalog);
    return 0;
}

int jobs_recall(struct catalog *catalog, const struct origin *origin)
{
    int result;
    uint64_t node;
    return record_recall(catalog, origin, &result, &node);
}

/* The one column: the record may be committed at this moment. */
int jobs_change(struct catalog *catalog, uint64_t id, const char *request, const struct origin *origin)
{
    tree_lock(catalog);
    struct job *job = job_of_id(catalog, id);
    if (job)
        snprintf(job->record.request, sizeof(job->record.request), "%s", request);
    tree_unlock(catalog);
    store_begin(catalog->store, true);
    store_run(catalog->store, STORE_JOB_REQUEST, "is", (int64_t)id, request);
    record_applied(catalog, origin, 0, 0);
    return store_commit(catalog->store);
}

int jobs_give_up(struct catalog *catalog, uint64_t id, const struct origin *origin)
{
    tree_lock(catalog);
    struct job *job = job_of_id(catalog, id);
    bool running = job && job_record_runs(&job->record);
    struct job_record record;
    if (running)
        record = job->record;
    tree_unlock(catalog);
    if (!running)
        return 0;
    record.state = JOB_RECORD_ABANDONED;
    return jobs_put(catalog, &record, origin);
}

int jobs_drop(struct catalog *catalog, uint64_t id)
{
    store_begin(catalog->store, true);
    store_run(catalog->store, STORE_JOB_DELETE, "i", (int64_t)id);
    int error = store_commit(catalog->store);
    if (error)
        return error;
    tree_lock(catalog);
    struct job *job = job_of_id(catalog, id);
    if (job) {
        list_remove(&job->link);
        free(job);
    }
    pthread_cond_broadcast(&catalog->tree.changed);
    tree_unlock(catalog);
    return 0;
}

/* The partial gets its name, durably, then the record forgets the hidden one. The node is owned. */
static int give_name(struct catalog *catalog, const struct job_record *record, struct entry *entry, const char *path,
    struct sentence *why)
{
    struct datastore *target = place_datastore(catalog, record->target);
    struct stat st;
    if (!target)
        return refuse(
            why, -EIO, "%s: datastore %s, the move's target, is away", path, catalog->datastores[record->target]->name);
    int error = place_directories(catalog, entry->parent, record->target, false);
    if (!error)
        error = place_rename(target, record->partial, path, false, true);
    if (error == -ENOENT && target->ops->lookup(target, record->partial, &st) == 0) {
        error = place_directories(catalog, entry->parent, record->target, true);
        if (!error)
            error = place_rename(target, record->partial, path, false, true);
    }
    if (error == -EEXIST)
        return refuse(why, error,
            "%s: datastore %s has another file there; rename it, the moved disk is %s/%s meanwhile", path, target->name,
            target->url ? target->url : target->name, record->partial);
    if (error)
        return refuse(why, error, "%s: the moved disk on datastore %s (%s) could not be given its name: %s", path,
            target->name, record->partial, error_text(error));
    event("job-renamed");
    error = target->ops->sync_directory(target, path);
    if (error)
        return refuse(why, error, "%s: the directory on datastore %s could not be made durable: %s", path, target->name,
            error_text(error));
    tree_lock(catalog);
    struct place place = place_of(entry);
    tree_unlock(catalog);
    place.file = NULL;
    place.trouble = entry->trouble == TROUBLE_LOST ? TROUBLE_NONE : entry->trouble;
    store_begin(catalog->store, true);
    record_place(catalog, entry->id, &place);
    error = store_commit(catalog->store);
    if (error)
        return refuse(why, error, "%s: the catalog could not be written", path);
    event("job-named");
    tree_lock(catalog);
    free(entry->file);
    entry->file = NULL;
    entry->trouble = place.trouble;
    tree_unlock(catalog);
    return 0;
}

/* Only after the target's file stands durably under its name (law 16). What was kept is nobody's any more: a person's. */
static int remove_source(
    struct catalog *catalog, const struct job_record *record, const char *path, struct sentence *why)
{
    struct datastore *source = place_datastore(catalog, record->source);
    if (!source)
        return refuse(why, -EIO, "%s: datastore %s, the move's source, is away; its old file stays until it is back",
            path, catalog->datastores[record->source]->name);
    const char *kept = record->kept;
    int error = kept[0] ? place_hide(source, path, kept, true) : source->ops->remove(source, path, false);
    if (error == -ENOENT || error == -ENOTDIR)
        error = 0;
    event("job-source-removed");
    if (!error)
        error = source->ops->sync_directory(source, path);
    if (!error && kept[0])
        error = source->ops->sync_directory(source, kept);
    if (error == -ENOENT)
        error = 0;
    if (error && kept[0])
        return refuse(why, error,
            "%s: the old file on datastore %s, the move's source, could not be set aside as %s: %s; nothing is removed",
            path, source->name, kept, error_text(error));
    if (error)
        return refuse(why, error, "%s: the old file on datastore %s, the move's source, could not be removed: %s", path,
            source->name, error_text(error));
    return 0;
}

static int complete(struct catalog *catalog, const struct job_record *record, struct sentence *why)
{
    struct hold hold;
    char path[PATH_MAX];
    int error = 0;
    hold_init(&hold, catalog);
    tree_lock(catalog);
    for (;;) {
        struct entry *entry = tree_get(&catalog->tree, record->node);
        error = !entry || entry->orphan || !entry->parent ? -ENOENT : tree_path(entry, path);
        if (error)
            break;
        hold.used[0] = entry->parent;
        hold.owned[0] = entry;
        if (hold_take(&hold))
            break;
        hold_wait(catalog);
    }
    tree_unlock(catalog);
    if (error == -ENOENT)
        return refuse(why, 0, "the disk of job %llu is gone; nothing was removed", (unsigned long long)record->id);
    if (error)
        return refuse(why, error, "the path of job %llu is too long", (unsigned long long)record->id);
    error = give_name(catalog, record, hold.owned[0], path, why);
    hold_release(&hold);
    if (error)
        return error;
    /* The disk is in use again while its source's file goes: only its path stays. */
    struct visit visit;
    error = visit_begin(&visit, catalog, record->node);
    if (error)
        return refuse(why, error, "%s: the move's end has to wait: %s", path, error_text(error));
    error = remove_source(catalog, record, visit.path, why);
    visit_end(&visit);
    return error;
}

int jobs_complete(struct catalog *catalog, const struct job_record *record, struct sentence *why)
{
    uint64_t id = record->id;
    struct sentence unused = {""};
    struct job *job;
    if (!why)
        why = &unused;
    tree_lock(catalog);
    while ((job = job_of_id(catalog, id)) && job->completing)
        hold_wait(catalog);
    if (job && job->record.state != JOB_RECORD_COMMITTED) {
        tree_unlock(catalog);
        return refuse(why, -EINVAL, "job %llu is not committed", (unsigned long long)id);
    }
    struct job_record copy;
    if (job) {
        job->completing = true;
        copy = job->record;
    }
    tree_unlock(catalog);
    if (!job)
        return 0; /* somebody else completed it */
    int error = complete(catalog, &copy, why);
    if (!error) {
        error = jobs_drop(catalog, id);
        event("job-dropped");
    }
    if (error) {
        tree_lock(catalog);
        job = job_of_id(catalog, id);
        if (job)
            job->completing = false;
        pthread_cond_broadcast(&catalog->tree.changed);
        tree_unlock(catalog);
    }
    return error;
}

int jobs_settle(struct catalog *catalog, uint64_t node)
{
    struct job_record record;
    struct sentence why = {""};
    tree_lock(catalog);
    struct job *job = job_of_node(catalog, node);
    if (job)
        record = job->record;
    tree_unlock(catalog);
    int error = job ? jobs_complete(catalog, &record, &why) : 0;
    if (error)
        log_error("%s", why.text);
    return error ? -EIO : 0;
}

int jobs_settle_forward(struct catalog *catalog, uint64_t node)
{
    struct job *job;
    tree_lock(catalog);
    job = job_of_node(catalog, node);
    bool committed = job && job->record.state == JOB_RECORD_COMMITTED;
    tree_unlock(catalog);
    return committed ? jobs_settle(catalog, node) : 0;
}

int jobs_abandon(struct catalog *catalog, const struct job_record *record)
{
    tree_lock(catalog);
    struct job *job = job_of_id(catalog, record->id);
    struct entry *entry = tree_get(&catalog->tree, record->node);
    bool needed = (job && (job->committing || job->record.state == JOB_RECORD_COMMITTED)) ||
                  (entry && entry->file && record->partial[0] && strcmp(entry->file, record->partial) == 0);
    tree_unlock(catalog);
    if (needed)
        return -EBUSY; /* it may be the disk */
    struct datastore *target = place_datastore(catalog, record->target);
    int error = 0;
    if (record->partial[0])
        error = target ? target->ops->remove(target, record->partial, false) : -EIO;
    if (error && error != -ENOENT) {
        struct job_record abandoned = *record; /* not started over; its partial goes when the target lets it */
        abandoned.state = JOB_RECORD_ABANDONED;
        jobs_put(catalog, &abandoned, NULL);
        return error;
    }
    return record->id ? jobs_drop(catalog, record->id) : 0;
}

int jobs_list(struct catalog *catalog, job_record_entry *entry, void *argument)
{
    uint64_t last = 0;
    struct job_record record;
    for (;;) {
        bool found = false;
        tree_lock(catalog);
        list_for_each (link, &catalog->jobs) {
            const struct job *job = container_of(link, struct job, link);
            if (job->record.id > last && (!found || job->record.id < record.id)) {
                record = job->record;
                found = true;
            }
        }
        tree_unlock(catalog);
        if (!found)
            return 0;
        last = record.id;
        if (entry(argument, &record) != 0)
            return 0;
    }
}

int jobs_store_result(struct catalog *catalog, uint64_t node, const struct job_result *result)
{
    store_begin(catalog->store, false);
    store_run(catalog->store, STORE_RESULT_PUT, "iss", (int64_t)node, result->line, result->error);
    return store_commit(catalog->store);
}

static int load_result(void *argument, struct store_row *row)
{
    struct job_result *result = argument;
    snprintf(result->line, sizeof(result->line), "%s", store_text(row, 0));
    snprintf(result->error, sizeof(result->error), "%s", store_text(row, 1));
    return 1;
}

int jobs_load_result(struct catalog *catalog, uint64_t node, struct job_result *out)
{
    int found = store_select(catalog->store, STORE_RESULT, load_result, out, "i", (int64_t)node);
    return found == 1 ? 0 : found < 0 ? found : -ENODATA;
}
