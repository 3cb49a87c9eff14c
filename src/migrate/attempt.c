/* One attempt of a job: make a fresh partial on the target, attach it to the disk, copy, and switch over. Whatever goes
 * wrong before the commit leaves the disk as it was: the mirror is dropped and detached, the copier stopped, the
 * partial removed. */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrate/await.h"
#include "migrate/recover.h"
#include "migrate/undo.h"

static void diverged(void *argument, struct extent extent, enum verb verb, int error)
{
    struct job *job = argument;
    pthread_mutex_lock(&job->mutex);
    job->diverged = true;
    job->failed_at = extent;
    job->failed_verb = verb;
    job->failed_error = error;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
}

static const struct mirror_hooks hooks = {.diverged = diverged};

static void copied(void *argument)
{
    struct job *job = argument;
    pthread_mutex_lock(&job->mutex);
    job->copied = true;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
}

static void source_failed(void *argument, uint64_t offset, int error)
{
    struct job *job = argument;
    pthread_mutex_lock(&job->mutex);
    job->source_failed = true;
    job->failed_at = (struct extent){offset, offset};
    job->failed_error = error;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
}

static int target_failed(struct job *job, const char *what, int error)
{
    job_fail(job, error, "%s of the target on datastore %s: %s", what, job_target(job)->name, error_text(error));
    return job_retry(job, job_target(job), error);
}

static bool wants_thick(struct job *job, uint64_t size)
{
    char path[PATH_MAX];
    unsigned index;
    struct stat st;
    if (job->request.format != JOB_FORMAT_SAME)
        return job->request.format == JOB_FORMAT_THICK;
    if (catalog_file(job->services.catalog, job->node, &index, path) < 0)
        return false;
    struct datastore *source = job_source(job);
    return size > 0 && source->ops->lookup(source, path, &st) == 0 && (uint64_t)st.st_blocks * 512 >= size;
}

static int make_partial(struct job *job)
{
    struct sentence why = {""};
    int error = jobs_make_partial(job->services.catalog, &job->record, &why);
    if (error == -EEXIST || error == -EISDIR || error == -EOPNOTSUPP)
        return job_fail(job, error, "%s", why.text);
    if (error == 0)
        return 0;
    job_fail(job, error, "making the target: %s", why.text[0] ? why.text : error_text(error));
    return job_retry(job, job_target(job), error);
}

/* The partial of the attempt or the worker before: 0; 1: a fresh one is to be made. */
static int open_again(struct job *job, struct image **out)
{
    if (!recover_possible(job))
        return 1;
    int error = recover_open(job, out);
    if (error != -ENOENT)
        return error < 0 ? target_failed(job, "opening the partial again", error) : 0;
    log_warning("job %llu: its partial on datastore %s is gone: the copy starts over",
        (unsigned long long)job->record.id, job_target(job)->name);
    return 1;
}

static int open_fresh(struct job *job, struct image **out)
{
    struct datastore *target = job_target(job);
    int error = make_partial(job);
    if (error < 0)
        return error;
    error = recover_begin(job);
    if (error < 0)
        return job_fail(job, error, "no memory for the marks");
    error = target->ops->open_image(target, job->record.partial, true, out);
    return error < 0 ? target_failed(job, "opening the partial", error) : 0;
}

/* The partial's image with the disk's size, allocated if the disk is to be thick. */
static int open_target(struct job *job, struct image **out)
{
    uint64_t timeout = job_target(job)->timeout_ns, size = disk_size(job->disk);
    int error = open_again(job, out);
    if (error == 1)
        error = open_fresh(job, out);
    if (error < 0)
        return error;
    error = await_io(job->reactor, *out, VERB_RESIZE, (struct extent){0, size}, timeout);
    job->thick = wants_thick(job, size);
    if (error == 0 && job->thick && (*out)->limits.can_allocate)
        error = await_io(job->reactor, *out, VERB_ALLOCATE, (struct extent){0, size}, timeout);
    if (error < 0) {
        image_put(*out);
        return target_failed(job, "sizing the partial", error);
    }
    return 0;
}

static int attach(struct job *job, struct mirror *mirror)
{
    struct image *target = mirror_target(mirror);
    int error;
    while ((error = await_attach(job->reactor, job->disk, mirror, job_source(job)->timeout_ns)) == -EAGAIN) {
        struct extent whole = {0, disk_size(job->disk)};
        error = await_io(job->reactor, target, VERB_RESIZE, whole, target->datastore->timeout_ns);
        if (error < 0)
            return target_failed(job, "sizing the partial", error);
        if (mirror_extend(mirror, atomic_load(&target->size)) < 0)
            return job_fail(job, -ENOMEM, "no memory for the bookkeeping");
    }
    if (error == -ETIMEDOUT) {
        job_fail(job, error, "the source on datastore %s does not answer", job_source(job)->name);
        return job_retry(job, job_source(job), error);
    }
    return error < 0 ? job_fail(job, error, "attaching the target: %s", error_text(error)) : 0;
}

/* Law 13: a target that hangs is dropped before a request that waits for it, or for one that does, is over itself. */
uint64_t job_patience(struct job *job)
{
    uint64_t limit = job_source(job)->timeout_ns / 2;
    return job->services.target_timeout_ns < limit ? job->services.target_timeout_ns : limit;
}

int job_new_mirror(struct job *job, struct image *target, struct mirror **out)
{
    return mirror_new(out, target, atomic_load(&target->size), job_patience(job), &hooks, job);
}

/* The deadline is on record by the wall's clock, which a next worker can read, too. */
static uint64_t until_ns(const struct job *job)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t seconds = (uint64_t)now.tv_sec, until = job->request.until;
    return until ? clock_now() + (until > seconds ? until - seconds : 0) * NS_PER_S : 0;
}

static int start_copier(struct job *job, struct mirror *mirror)
{
    struct copier *copier;
    pthread_mutex_lock(&job->mutex);
    job->mirror = mirror;
    job->total = disk_size(job->disk);
    job->copying_since = clock_now();
    job->verified_total.verified = 0;
    struct copier_options options = {.disk = job->disk,
        .mirror = mirror,
        .reactor = job->reactor,
        .window = job->services.window,
        .guest_window = job->services.guest_window,
        .rate = job->rate,
        .latency_ns = job->request.latency_ns,
        .until_ns = until_ns(job),
        .marks = job->marks,
        .rescue = job->request.rescue,
        .dense = job->thick && !mirror_target(mirror)->limits.can_allocate,
        .allocate = !job->thick && mirror_target(mirror)->limits.can_allocate,
        .done = copied,
        .failed = source_failed,
        .job = job};
    pthread_mutex_unlock(&job->mutex);
    int error = copier_start(&copier, &options);
    if (error < 0)
        return job_fail(job, error, "no memory for the copies in flight");
    pthread_mutex_lock(&job->mutex);
    job->copier = copier;
    copier_set_rate(copier, job->rate); /* it may have been told meanwhile */
    pthread_mutex_unlock(&job->mutex);
    return 0;
}

/* A reverse job finds its legs as the forward move left them. */
static int take_legs(struct job *job)
{
    struct mirror *mirror = job->born;
    job->born = NULL;
    return start_copier(job, mirror);
}

static int open_legs(struct job *job)
{
    struct image *target = NULL;
    struct mirror *mirror = NULL;
    if (job->born)
        return take_legs(job);
    pthread_mutex_lock(&job->mutex);
    job->copied = job->diverged = job->source_failed = job->verified = job->lies = false;
    pthread_mutex_unlock(&job->mutex);
    int error = job->special ? make_partial(job) : open_target(job, &target);
    if (job->special)
        copied(job);
    if (error < 0 || job->special)
        return error;
    uint64_t size = atomic_load(&target->size);
    error = job_new_mirror(job, target, &mirror);
    if (error < 0) {
        image_put(target);
        return job_fail(job, error, "no memory for the bookkeeping");
    }
    error = attach(job, mirror);
    /* Not before: a write that was marked and sent meanwhile has reached the source alone. */
    uint64_t kept = !error && recover_possible(job) ? marks_seed(job->marks, mirror) * REGION_SIZE : 0;
    pthread_mutex_lock(&job->mutex);
    job->kept = kept < size ? kept : size;
    job->mirror = mirror;
    pthread_mutex_unlock(&job->mutex);
    return error < 0 ? error : start_copier(job, mirror);
}

/* The disk is its one image again: the source before the commit, the target after the flip. */
static void close_legs(struct job *job)
{
    struct mirror *mirror = job->mirror;
    if (!mirror)
        return;
    mirror_forget_job(mirror);
    mirror_drop(mirror, (struct extent){0, 0}, VERB_FLUSH, -ECANCELED);
    job_unpark(job);
    pthread_mutex_lock(&job->mutex);
    struct copier *copier = job->copier;
    if (copier)
        job->copied_total = copier_progress(copier);
    job->mirrored_total = mirror_written(mirror);
    job->reads_total += mirror_reads(mirror);
    job->copier = NULL;
    struct verifier *verifier = job_take_verifier(job);
    job->mirror = NULL;
    pthread_mutex_unlock(&job->mutex);
    copier_stop(copier);
    if (mirror_phase(mirror) == MIRROR_DROPPED)
        recover_keep(job, mirror_target(mirror));
    verifier_stop(verifier);
    while (!job->born && mirror_phase(mirror) == MIRROR_FLIPPED && !disk_mirror_idle(job->disk, mirror))
        if (job_sleep(job, 5 * NS_PER_MS))
            break;
    disk_detach(job->disk, mirror);
    mirror_put(mirror);
}

static int event_diverged(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    struct extent at = job->failed_at;
    enum verb verb = job->failed_verb;
    int error = job->failed_error;
    pthread_mutex_unlock(&job->mutex);
    job_fail(job, error, "%s of the target on datastore %s failed at offset %llu: %s", verb_name(verb),
        job_target(job)->name, (unsigned long long)at.start, error_text(error));
    return job_retry(job, job_target(job), error);
}

static int event_source(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    uint64_t offset = job->failed_at.start;
    int error = job->failed_error;
    pthread_mutex_unlock(&job->mutex);
    if (error == -EHOSTDOWN)
        job_fail(job, error,
            "the source on datastore %s cannot be read at all any more: nothing is given up (at offset %llu)",
            job_source(job)->name, (unsigned long long)offset);
    else
        job_fail(job, error, "read of the source on datastore %s failed at offset %llu: %s", job_source(job)->name,
            (unsigned long long)offset, error_text(error));
    job_retry(job, job_source(job), error);
    return job->outage ? -EAGAIN : error;
}

static int event_journal(struct job *job)
{
    job_fail(job, -EIO, "the journal could not be written in time");
    job->outage = true;
    return -EAGAIN;
}

static int take_result(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    int result = job->led_result;
    job->led = false;
    pthread_mutex_unlock(&job->mutex);
    return result;
}

/* Until the switchover is done or the attempt is over. */
static int copy(struct job *job)
{
    int result;
    job_move(job, JOB_COPYING);
    job->epoch_at = clock_now() + (job->request.undo_until ? 0 : job->services.epoch_ns);
    for (;;) {
        enum job_event event = job_next(job);
        switch (event) {
        case JOB_EVENT_SUSPEND:
            if (job->marks && job->mirror)
                epoch_make(job, true); /* so that nothing is copied twice */
            return -ESHUTDOWN;
        case JOB_EVENT_CANCEL:
            return job_fail(job, -ECANCELED, "cancelled");
        case JOB_EVENT_JOURNAL:
            return event_journal(job);
        case JOB_EVENT_OVER:
            return job_fail(job, -ECANCELED, "the old disk is kept no longer");
        case JOB_EVENT_EPOCH:
            epoch_make(job, false);
            break;
        case JOB_EVENT_DIVERGED:
            return event_diverged(job);
        case JOB_EVENT_SOURCE:
            return event_source(job);
        case JOB_EVENT_PAUSE:
            if (job->copier)
                copier_pause(job->copier, true);
            if (job->verifier)
                verifier_pause(job->verifier, true);
            job_move(job, JOB_PAUSED);
            break;
        case JOB_EVENT_RESUME:
            if (job->copier)
                copier_pause(job->copier, false);
            job_move(job, JOB_COPYING);
            break;
        case JOB_EVENT_COPIED:
            result = job_copied(job);
            if (result < 0)
                return result;
            break;
        case JOB_EVENT_VERIFIED:
            job_verified(job);
            break;
        case JOB_EVENT_LIES:
            return job_lies(job);
        case JOB_EVENT_SWITCH:
        case JOB_EVENT_LED:
            result = event == JOB_EVENT_LED ? take_result(job) : job_switch(job);
            if (result <= 0)
                return result;
            if (job->copier)
                copier_kick(job->copier);
            else
                copied(job);
            job_move(job, JOB_COPYING);
            break;
        }
    }
}

int job_attempt(struct job *job)
{
    int result = open_legs(job);
    if (result == 0)
        result = copy(job);
    close_legs(job);
    return result;
}
