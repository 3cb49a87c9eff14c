/* The commit of a move: one transaction after which the target is the disk's image, of one disk or of all that moves
 * with a directory. See jobs.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/event.h"
#include "base/log.h"
#include "catalog/place.h"
#include "catalog/records.h"

/* Waits until no call by path is at the node, and marks the commit as under way: from now on its names stay and its
 * attributes go to both files. 1: done; 0: the attributes must be copied first; -ECANCELED: there is no such file. */
static int begin(struct catalog *catalog, struct job_record *record)
{
    struct hold hold;
    int result;
    hold_init(&hold, catalog);
    tree_lock(catalog);
    for (;;) {
        struct entry *entry = tree_get(&catalog->tree, record->node);
        struct job *job = job_of_id(catalog, record->id);
        result = !entry || entry->orphan || !job ? -ECANCELED : job->committing ? 1 : 0;
        if (result || !job->copied || job->attributes != entry->attribute_changes)
            break;
        hold.owned[0] = entry;
        if (hold_take(&hold)) {
            result = tree_path(entry, record->source_file);
            if (!result) {
                job->committing = true;
                result = 1;
            }
            hold_release_locked(&hold);
            break;
        }
        hold_wait(catalog);
    }
    tree_unlock(catalog);
    return result;
}

static int begin_with_attributes(struct catalog *catalog, struct job_record *record)
{
    struct sentence why = {""};
    int result;
    while ((result = begin(catalog, record)) == 0)
        if (jobs_copy_attributes(catalog, record, &why) < 0) {
            log_warning("%s", why.text);
            return -EAGAIN;
        }
    return result < 0 ? result : 0;
}

static void take_back(struct catalog *catalog, struct job_record **records, size_t count)
{
    tree_lock(catalog);
    for (size_t i = 0; i < count; i++) {
        struct job *job = job_of_id(catalog, records[i]->id);
        if (job)
            job->committing = false;
    }
    pthread_cond_broadcast(&catalog->tree.changed);
    tree_unlock(catalog);
}

/* Is all that is below the directory on the target, or about to be; and is it made there as it is now? */
static bool whole(struct catalog *catalog, const struct entry *directory, const struct job_record *family)
{
    if (directory->owned || directory->copied_for != family->id ||
        directory->copied_changes != directory->attribute_changes ||
        !(directory->carriers & catalog_bit(catalog, family->target)))
        return false;
    for (unsigned i = 0; i < directory->child_count; i++) {
        const struct entry *child = directory->children[i];
        struct job *job = job_of_node(catalog, child->id);
        if (entry_is_directory(child) ? !whole(catalog, child, family)
                                      : child->datastore != family->target && !(job && job->committing))
            return false;
    }
    return true;
}

static void come_home(struct entry *directory, unsigned target)
{
    directory->datastore = target;
    for (unsigned i = 0; i < directory->child_count; i++)
        if (entry_is_directory(directory->children[i]))
            come_home(directory->children[i], target);
}

/* From here on new entries are made on the target: nothing that is no member can appear on the source, but by a rename,
 * and that is where its owner put it. */
static int begin_family(struct catalog *catalog, const struct job_record *family)
{
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, family->node);
    struct job *job = job_of_id(catalog, family->id);
    int error = !entry || !job ? -ECANCELED : !job->committing && !whole(catalog, entry, family) ? -EAGAIN : 0;
    if (!error && !job->committing) {
        job->committing = true;
        come_home(entry, family->target);
    }
    tree_unlock(catalog);
    return error;
}

static void record_commit(struct catalog *catalog, const struct job_record *record)
{
    struct job_record committed = *record;
    tree_lock(catalog);
    struct place place = place_of(tree_get(&catalog->tree, record->node));
    tree_unlock(catalog);
    place.datastore = record->target;
    place.file = record->partial;
    committed.state = JOB_RECORD_COMMITTED;
    record_job(catalog, &committed);
    record_place(catalog, record->node, &place);
}

static void record_homes(struct catalog *catalog, const struct job_record *family, const uint64_t *ids, size_t count)
{
    struct job_record committed = *family;
    committed.state = JOB_RECORD_COMMITTED;
    record_job(catalog, &committed);
    for (size_t i = 0; i < count; i++)
        store_run(catalog->store, STORE_NODE_HOME, "ii", (int64_t)ids[i], (int64_t)catalog->rows[family->target]);
}

static struct job *make_job(void)
{
    struct job *job = calloc(1, sizeof(*job));
    if (job)
        list_init(&job->link);
    return job;
}

/* The reverse's record is the catalog's from now on. */
static void keep_reverse(struct catalog *catalog, struct job *made, struct job_record *reverse)
{
    made->record = *reverse;
    tree_lock(catalog);
    list_append(&catalog->jobs, &made->link);
    tree_unlock(catalog);
}

int jobs_commit(struct catalog *catalog, struct job_record **records, size_t count, struct job_record *family,
    struct job_record *reverse)
{
    uint64_t *ids = NULL;
    size_t directories = 0, begun = 0;
    int error = 0;
    while (begun < count && (error = begin_with_attributes(catalog, records[begun])) == 0)
        begun++;
    if (!error && family)
        error = begin_family(catalog, family);
    if (error) {
        take_back(catalog, records, begun);
        return error;
    }
    if (family && (error = jobs_find_directories(catalog, family->node, &ids, &directories)) < 0)
        return error == -ENOENT ? -EIO : error;
    struct job *made = reverse ? make_job() : NULL;
    if (reverse && !made)
        return -ENOMEM;
    event("job-commit");
    store_begin(catalog->store, true);
    for (size_t i = 0; i < count; i++)
        record_commit(catalog, records[i]);
    if (family)
        record_homes(catalog, family, ids, directories);
    if (reverse)
        record_job(catalog, reverse);
    uint64_t id = store_last_id(catalog->store);
    error = store_commit(catalog->store);
    free(ids);
    if (error) {
        free(made);
        return error;
    }
    if (reverse) {
        reverse->id = id;
        keep_reverse(catalog, made, reverse);
    }
    event("job-committed");
    for (size_t i = 0; i < count; i++)
        records[i]->state = JOB_RECORD_COMMITTED;
    if (family)
        family->state = JOB_RECORD_COMMITTED;
    return 0;
}

void jobs_flip(struct catalog *catalog, const struct job_record *record)
{
    char *file = strdup(record->partial);
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, record->node);
    struct job *job = job_of_id(catalog, record->id);
    if (entry && !entry_is_directory(entry)) {
        catalog_count_file(catalog, entry, -1);
        entry->datastore = record->target;
        catalog_count_file(catalog, entry, 1);
        free(entry->file);
        entry->file = file;
        file = NULL;
    }
    if (job) {
        job->record = *record;
        job->committing = false;
    }
    pthread_cond_broadcast(&catalog->tree.changed);
    tree_unlock(catalog);
    free(file);
}
