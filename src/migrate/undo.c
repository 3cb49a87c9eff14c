/* A move with keep=TIME goes on after its switchover in the other direction: the target is the truth now, and the old source
 * is the target of a reverse job whose regions all agree, so that a switchover back costs no copy. It is a job like any other:
 * its record is made by the very transaction that commits the forward move, it has a journal and marks of its own, a kept leg
 * that fails is dropped and the guest sees nothing, and after a death it goes on from its journal. What makes it another: its
 * switchover waits for control=undo, and it is cancelled by control=release or when its time is over; then the old source goes.
 *
 * Turning. Requests that were sent to both legs before the flip keep their lock until both have it (io/disk_mirror.c), so the
 * old source sees overlapping writes in the same order from both mirrors; the first epoch waits until they have ended.
 *
 * The same object and thread serve both jobs, one after the other: the disk has one job at a time.
 *
 * Not done here: a directory is not kept. */
#include "migrate/undo.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrate/recover.h"

#define SETTLE_DELAY NS_PER_S

static uint64_t seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec;
}

static int make_record(struct job *job)
{
    uint32_t random;
    struct job_record *reverse = &job->reverse;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return -EIO;
    *reverse = (struct job_record){
        .node = job->node, .source = job->record.target, .target = job->record.source, .state = JOB_RECORD_RUNNING};
    job->reverse_request = (struct job_request){
        .target = job->record.source, .manual = true, .undo_until = seconds_now() + job->request.keep_ns / NS_PER_S};
    snprintf(reverse->request, sizeof(reverse->request), "%s,switchover=manual,undo=%llu", job_source(job)->name,
        (unsigned long long)job->reverse_request.undo_until);
    memcpy(job->reverse_request.text, reverse->request, sizeof(reverse->request));
    snprintf(reverse->partial, sizeof(reverse->partial), "%s/partial-%" PRIu64 "-%08" PRIx32, DATASTORE_PRIVATE,
        job->record.id, random);
    return 0;
}

int undo_prepare(struct job *job, struct job_record **out)
{
    *out = NULL;
    if (!job->request.keep_ns || job->leader || job->record.kept[0])
        return 0;
    int error = make_record(job);
    struct image *source = disk_truth(job->disk);
    if (!error)
        error = job_new_mirror(job, source, &job->born);
    if (error) {
        image_put(source);
        return job_fail(job, error, "the old disk cannot be kept: %s", error_text(error));
    }
    mirror_seed_all(job->born);
    mirror_set_reverse(job->mirror, job->born);
    memcpy(job->record.kept, job->reverse.partial, sizeof(job->record.kept));
    *out = &job->reverse;
    return 0;
}

void undo_drop(struct job *job)
{
    if (!job->born)
        return;
    mirror_forget_job(job->born);
    mirror_drop(job->born, (struct extent){0, 0}, VERB_FLUSH, -ECANCELED);
    if (job->disk)
        disk_detach(job->disk, job->born);
    mirror_put(job->born);
    job->born = NULL;
    job->reverse.id = 0;
    job->record.kept[0] = '\0';
}

bool undo_turn(struct job *job)
{
    struct marks *marks = NULL;
    if (!job->born)
        return false;
    if (job->services.journals && marks_new(&marks, job->services.journals, job->reverse.id, job->reverse.partial) == 0)
        marks_touch_all(marks, mirror_regions(job->born));
    job->turned = mirror_get(job->mirror);
    disk_turn(job->disk, job->mirror, job->born, marks ? marks_log(marks) : NULL);
    recover_replace(job, marks);
    return true;
}

static void forget_forward(struct job *job)
{
    job->copied = job->verified = job->lies = job->source_failed = false;
    job->cancel = job->pause = job->switchover = false;
    job->rate = 0;
    job->took_ns = job->pause_ns = job->kept = 0;
}

bool undo_begin(struct job *job)
{
    char title[512];
    if (!job->reverse.id)
        return false;
    job_title(job, title, sizeof(title));
    log_info("job %" PRIu64 ", %s: done", job->record.id, title);
    pthread_mutex_lock(&job->mutex);
    job->state = JOB_DONE; /* in one step with what follows: whoever sees that it is done can undo it */
    job->record = job->reverse;
    job->id = job->reverse.id;
    job->request = job->reverse_request;
    job->reverse.id = 0;
    job->recovered = false;
    forget_forward(job);
    pthread_mutex_unlock(&job->mutex);
    if (!job->request.undo_until)
        return true;
    log_info("job %" PRIu64 ": the old disk on datastore %s is kept for %" PRIu64 " s", job->record.id,
        job_target(job)->name, undo_left(job));
    return true;
}

bool undo_waits(const struct job *job)
{
    return job->request.undo_until && job->request.manual && !job->switchover && (job->state < JOB_DONE || job->born);
}

uint64_t undo_left(const struct job *job)
{
    uint64_t now = seconds_now();
    return job->request.undo_until > now ? job->request.undo_until - now : 0;
}

bool undo_over(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    bool over = undo_waits(job) && undo_left(job) == 0;
    pthread_mutex_unlock(&job->mutex);
    return over;
}

int undo_settle(struct job *job)
{
    while (jobs_settle_forward(job->services.catalog, job->node) < 0) {
        recover_look(job);
        pthread_mutex_lock(&job->mutex);
        bool suspend = job->suspend;
        pthread_mutex_unlock(&job->mutex);
        if (suspend || job_sleep(job, SETTLE_DELAY))
            return -ESHUTDOWN;
    }
    return 0;
}
