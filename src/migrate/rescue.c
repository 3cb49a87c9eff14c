/* What a rescue has lost, told before the commit: it ends as RESCUED, never as DONE. The list is written to a file beside
 * the journals, the source's file is to be kept under a hidden name (law 16: what can be read of it by other means is
 * nowhere else), and the result is stored, so that a death after the commit changes nothing of that.
 *
 * Pages that the guest writes whole after the list was made are listed all the same. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "migrate/inside.h"
#include "migrate/journal_files.h"

#define TOLD 3 /* ranges in the sentence */
#define KEPT DATASTORE_PRIVATE "/rescued-"

static void name_list(const struct job *job, char out[64])
{
    snprintf(out, 64, "%" PRIu64 ".lost", job->id);
}

/* A line a range, offset and length in bytes. */
static char *list_text(struct job *job, const struct lost *lost, uint64_t size)
{
    char path[PATH_MAX] = "", *text = NULL;
    size_t length = 0;
    struct extent run = {0, 0}, disk = {0, size};
    FILE *stream = open_memstream(&text, &length);
    if (!stream)
        return NULL;
    catalog_path(job->services.catalog, job->node, path);
    fprintf(stream,
        "# job %" PRIu64 ": bytes of /%s that could not be read from datastore %s; zeroes on datastore %s\n"
        "# offset length\n",
        job->id, path, job_source(job)->name, job_target(job)->name);
    while (lost_run(lost, run.end, &run) && run.start < size)
        fprintf(stream, "%" PRIu64 " %" PRIu64 "\n", run.start, extent_length(extent_intersect(run, disk)));
    if (fclose(stream) == 0)
        return text;
    free(text);
    return NULL;
}

static int write_list(struct job *job, const struct lost *lost, uint64_t size)
{
    struct journal_files *files = job->services.journals;
    struct journal_file *file = NULL;
    char name[64], fresh[80];
    if (!files)
        return -EOPNOTSUPP;
    auto_free char *text = list_text(job, lost, size);
    if (!text)
        return -ENOMEM;
    name_list(job, name);
    snprintf(fresh, sizeof(fresh), "%s.new", name);
    int error = files->ops->open(files, fresh, true, &file);
    if (error == 0) {
        error = files->ops->write(file, text, strlen(text), 0);
        if (error == 0)
            error = files->ops->sync(file);
        files->ops->close(file);
    }
    if (error == 0)
        error = files->ops->rename(files, fresh, name);
    return error ? error : files->ops->sync_directory(files);
}

static void remove_list(struct job *job)
{
    struct journal_files *files = job->services.journals;
    char name[64];
    name_list(job, name);
    if (files)
        files->ops->remove(files, name);
}

/* The hidden name that goes with the partial's. */
static void name_kept(struct job_record *record)
{
    const char *partial = strstr(record->partial, "/partial-");
    snprintf(record->kept, sizeof(record->kept), KEPT "%s", partial ? partial + strlen("/partial-") : "");
}

static void tell(struct job *job, const struct lost *lost, uint64_t size, uint64_t runs, bool listed)
{
    char ranges[160] = "", path[PATH_MAX] = "", list[96] = "the log";
    struct extent run = {0, 0}, disk = {0, size};
    size_t at = 0;
    for (int i = 0; i < TOLD && lost_run(lost, run.end, &run) && run.start < size; i++)
        at += (size_t)snprintf(ranges + at, sizeof(ranges) - at, "%s%" PRIu64 "+%" PRIu64, i ? ", " : "", run.start,
            extent_length(extent_intersect(run, disk)));
    if (listed)
        snprintf(list, sizeof(list), "jobs/%" PRIu64 ".lost in the state directory", job->id);
    catalog_path(job->services.catalog, job->node, path);
    pthread_mutex_lock(&job->mutex);
    refuse(&job->error, -EIO,
        "disk /%.120s: %" PRIu64 " bytes at %" PRIu64
        " places (%s%s) could not be read from datastore %.40s and are zeroes "
        "on datastore %.40s; all are in %s; the old file stays as %.80s there",
        path, job->lost, runs, ranges, runs > TOLD ? ", …" : "", job_source(job)->name, job_target(job)->name, list,
        job->record.kept);
    pthread_mutex_unlock(&job->mutex);
}

int rescue_settle(struct job *job)
{
    struct lost lost;
    uint64_t size = disk_size(job->disk), runs;
    struct job_result result;
    if (!job->request.rescue)
        return 0;
    if (mirror_lost(job->mirror, &lost) < 0)
        return job_fail(job, -ENOMEM, "no memory for the list of what is lost");
    uint64_t bytes = lost_bytes(&lost, size, &runs);
    pthread_mutex_lock(&job->mutex);
    job->lost = bytes;
    pthread_mutex_unlock(&job->mutex);
    if (bytes == 0) {
        remove_list(job);
        job->record.kept[0] = '\0';
    } else {
        int error = write_list(job, &lost, size);
        if (error)
            log_error(
                "job %llu: the list of what is lost could not be written to the state directory: %s; it is in this log",
                (unsigned long long)job->id, error_text(error));
        name_kept(&job->record);
        tell(job, &lost, size, runs, error == 0);
        job_describe_as(job, JOB_RESCUED, &result);
        jobs_store_result(job->services.catalog, job->node, &result);
    }
    lost_free(&lost);
    return 0;
}

bool rescue_lost(struct job *job)
{
    bool lost = strstr(job->record.kept, "/rescued-") != NULL;
    for (size_t i = 0; i < job->member_count; i++)
        lost = lost || (job_ended(job->members[i]) && job_state(job->members[i]) == JOB_RESCUED);
    return lost;
}

uint64_t rescue_settle_family(struct job *job, struct job **members, size_t count)
{
    char path[PATH_MAX] = "";
    struct job_result result;
    uint64_t bytes = 0;
    unsigned files = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += members[i]->lost;
        files += members[i]->lost > 0;
    }
    pthread_mutex_lock(&job->mutex);
    job->lost = bytes;
    pthread_mutex_unlock(&job->mutex);
    /* It names nothing: it says that the job is no success. */
    snprintf(job->record.kept, sizeof(job->record.kept), "%s", bytes ? KEPT : "");
    if (!bytes)
        return 0;
    catalog_path(job->services.catalog, job->node, path);
    pthread_mutex_lock(&job->mutex);
    refuse(&job->error, -EIO,
        "directory /%.200s: %" PRIu64 " bytes of %u files could not be read from their datastores and are zeroes on "
        "datastore %s; user.svmfs.error of each file and the log tell where",
        path, bytes, files, job_target(job)->name);
    pthread_mutex_unlock(&job->mutex);
    job_describe_as(job, JOB_RESCUED, &result);
    jobs_store_result(job->services.catalog, job->node, &result);
    return bytes;
}

void rescue_recall(struct job *job)
{
    struct job_result stored;
    if (!job->recovered || jobs_load_result(job->services.catalog, job->node, &stored) < 0 ||
        strncmp(stored.line, "state=rescued", strlen("state=rescued")) != 0)
        return;
    const char *lost = strstr(stored.line, " lost=");
    pthread_mutex_lock(&job->mutex);
    job->request.rescue = true;
    job->lost = lost ? strtoull(lost + strlen(" lost="), NULL, 10) : 0;
    refuse(&job->error, 0, "%s", stored.error);
    pthread_mutex_unlock(&job->mutex);
}
