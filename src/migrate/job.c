/* A job's life and what others may ask of it. The flow itself is in attempt.c and switchover.c. */
#include "migrate/job.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrate/recover.h"
#include "migrate/undo.h"

#define LOOK         (200 * NS_PER_MS)
#define ATTEMPTS     3 /* where a datastore answers, with an error */
#define BACK_OFF     NS_PER_S
#define BACK_OFF_MAX (30 * NS_PER_S)

int job_new(struct job **out, const struct job_services *services, const struct job_request *request,
    const struct job_record *record)
{
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return -ENOMEM;
    job->services = *services;
    job->request = *request;
    job->record = *record;
    job->id = record->id;
    job->node = record->node;
    job->rate = request->rate;
    job->pause = request->paused;
    struct node node;
    job->state = JOB_QUEUED;
    job->directory = catalog_get(services->catalog, record->node, &node) == 0 && S_ISDIR(node.st.st_mode);
    job->reactor = services->reactors[record->node % services->reactor_count];
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&job->mutex, NULL);
    pthread_cond_init(&job->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    int error = recover_load(job, &job->record);
    if (error)
        job_free(job);
    else
        *out = job;
    return error;
}

int job_follow(struct job *job, const struct job_record *record, const struct job_request *request)
{
    job->reverse = *record;
    job->reverse_request = *request;
    return recover_load(job, record);
}

struct disk_log *job_log(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    struct disk_log *log = job->marks ? disk_log_get(marks_log(job->marks)) : NULL;
    pthread_mutex_unlock(&job->mutex);
    return log;
}

struct datastore *job_source(struct job *job)
{
    return catalog_datastore(job->services.catalog, job->record.source);
}

struct datastore *job_target(struct job *job)
{
    return catalog_datastore(job->services.catalog, job->record.target);
}

void job_title(struct job *job, char *out, size_t size)
{
    char path[PATH_MAX];
    if (catalog_path(job->services.catalog, job->node, path) < 0)
        snprintf(path, sizeof(path), "(inode %llu)", (unsigned long long)job->node);
    snprintf(out, size, "moving %s /%.300s from datastore %s to datastore %s", job->directory ? "directory" : "disk",
        path, job_source(job)->name, job_target(job)->name);
}

void job_move(struct job *job, enum job_state to)
{
    char title[512];
    job_title(job, title, sizeof(title));
    pthread_mutex_lock(&job->mutex);
    enum job_state from = job->state;
    assert(job_may_move(from, to));
    job->state = to;
    bool rests = to == JOB_MIRRORED && job->request.undo_until && !job->rests;
    job->rests = job->rests || rests;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
    if (rests && job->services.resting)
        job->services.resting(job->services.argument_of_ended, job);
    if (job->leader)
        family_notify(job->leader);
    log_info(
        "job %llu, %s: %s -> %s", (unsigned long long)job->record.id, title, job_state_name(from), job_state_name(to));
}

int job_fail(struct job *job, int error, const char *format, ...)
{
    char title[512], what[SENTENCE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    job_title(job, title, sizeof(title));
    pthread_mutex_lock(&job->mutex);
    refuse(&job->error, error, "%.250s: %.250s", title, what);
    pthread_mutex_unlock(&job->mutex);
    return error;
}

/* What the flags ask for, in the order of urgency; false: nothing now. Under mutex. */
static bool pending_event(const struct job *job, enum job_event *event)
{
    bool mirrored = job->state == JOB_MIRRORED && !job->leader && (!job->request.manual || job->switchover);
    if (job->enlisted || job->led)
        *event = JOB_EVENT_LED;
    else if (job->suspend)
        *event = JOB_EVENT_SUSPEND;
    else if (job->cancel)
        *event = JOB_EVENT_CANCEL;
    else if (job->diverged)
        *event = JOB_EVENT_DIVERGED;
    else if (job->source_failed)
        *event = JOB_EVENT_SOURCE;
    else if (job->lies)
        *event = JOB_EVENT_LIES;
    else if (job->pause && job->state != JOB_PAUSED)
        *event = JOB_EVENT_PAUSE;
    else if (!job->pause && job->state == JOB_PAUSED)
        *event = JOB_EVENT_RESUME;
    else if (job->copied && job->state == JOB_COPYING)
        *event = JOB_EVENT_COPIED;
    else if (job->verified && job->state == JOB_VERIFYING)
        *event = JOB_EVENT_VERIFIED;
    else if (!job->pause && mirrored)
        *event = JOB_EVENT_SWITCH;
    else
        return false;
    return !job->enlisted || job->led;
}

static struct timespec after(uint64_t delay_ns)
{
    uint64_t until = clock_now() + delay_ns;
    return (struct timespec){(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
}

/* The marks are asked without the mutex: they take the mirror's, under which the hooks take ours. */
enum job_event job_next(struct job *job)
{
    for (;;) {
        enum job_event event;
        bool failed = recover_failed(job), due = !failed && epoch_due(job), over = undo_over(job);
        struct timespec at = after(job->marks ? LOOK : NS_PER_S);
        pthread_mutex_lock(&job->mutex);
        bool pending = pending_event(job, &event);
        if (!pending && !failed && !due && !over)
            pthread_cond_timedwait(&job->changed, &job->mutex, &at);
        pthread_mutex_unlock(&job->mutex);
        if (failed && (!pending || event > JOB_EVENT_JOURNAL) && !(pending && event == JOB_EVENT_LED))
            return JOB_EVENT_JOURNAL;
        if (pending)
            return event;
        if (over)
            return JOB_EVENT_OVER;
        if (due)
            return JOB_EVENT_EPOCH;
    }
}

bool job_sleep(struct job *job, uint64_t delay_ns)
{
    struct timespec at = after(delay_ns);
    pthread_mutex_lock(&job->mutex);
    for (int error = 0; !job->suspend && !error;)
        error = pthread_cond_timedwait(&job->changed, &job->mutex, &at);
    bool suspend = job->suspend;
    pthread_mutex_unlock(&job->mutex);
    return suspend;
}

static void unpark(void *reactor)
{
    disk_unpark(reactor);
}

void job_unpark(struct job *job)
{
    for (unsigned i = 0; i < job->services.reactor_count; i++)
        reactor_call(job->services.reactors[i], unpark, job->services.reactors[i]);
}

int job_retry(struct job *job, const struct datastore *datastore, int error)
{
    switch (-error) {
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ECONNREFUSED:
    case ECONNRESET:
    case ENOTCONN:
        job->outage = true;
        return -EAGAIN;
    case EROFS: /* these do not pass by themselves */
    case EACCES:
    case EPERM:
    case ENAMETOOLONG:
    case EOPNOTSUPP:
        job->outage = false;
        return error;
    default:
        job->outage = datastore->away;
        return -EAGAIN;
    }
}

/* Between two attempts the job is PAUSED; 0: go on. */
static int back_off(struct job *job, unsigned attempt)
{
    uint64_t delay = attempt < 5 ? BACK_OFF << attempt : BACK_OFF_MAX;
    uint64_t until = clock_now() + (delay < BACK_OFF_MAX ? delay : BACK_OFF_MAX);
    if (job_state(job) != JOB_PAUSED)
        job_move(job, JOB_PAUSED);
    for (;;) {
        if (recover_failed(job) && recover_void(job) == 0)
            return 0;
        struct timespec at = after(LOOK);
        pthread_mutex_lock(&job->mutex);
        int result = job->suspend ? -ESHUTDOWN : job->cancel ? -ECANCELED : 0;
        bool over = result < 0 || (!job->pause && clock_now() >= until);
        if (!over)
            pthread_cond_timedwait(&job->changed, &job->mutex, &at);
        pthread_mutex_unlock(&job->mutex);
        if (over)
            return result;
    }
}

static int try_once(struct job *job)
{
    job->outage = false;
    if (recover_failed(job) && recover_void(job) < 0) {
        job->outage = true;
        return job_fail(job, -EAGAIN, "the journal cannot be written, and the partial cannot be removed");
    }
    job_move(job, JOB_OPENING);
    if (job->special || job->disk)
        return job_attempt(job);
    int error = job->services.open_disk(job->services.argument, job->node, &job->disk);
    if (error == 0)
        return job_attempt(job);
    job_fail(job, error, "the disk on datastore %s, the source, cannot be opened: %s", job_source(job)->name,
        error_text(error));
    job_retry(job, job_source(job), error);
    return job->outage ? -EAGAIN : error;
}

/* A datastore that does not answer is waited for; one that answers with errors has three chances in a row. */
static int try(struct job *job)
{
    unsigned failures = 0, outages = 0;
    for (;;) {
        int result = try_once(job);
        if (result != -EAGAIN)
            return result;
        failures = job->outage ? 0 : failures + 1;
        outages = job->outage ? outages + 1 : 0;
        if (job->outage)
            log_warning("%s; it is tried again until it is cancelled", job->error.text);
        else
            log_warning("%s (attempt %u of %u)", job->error.text, failures, ATTEMPTS);
        if (failures == ATTEMPTS)
            return result;
        result = back_off(job, (failures ? failures : outages) - 1);
        if (result < 0)
            return result;
    }
}

static int run(struct job *job)
{
    if (job->record.state == JOB_RECORD_COMMITTED) { /* a dead worker's: only the tidying up is left */
        job->recovered = true;
        job_move(job, JOB_SWITCHING);
        return 0;
    }
    if (job->request.undo_until && !job->born && undo_settle(job) < 0)
        return -ESHUTDOWN;
    pthread_mutex_lock(&job->mutex);
    int result = job->suspend ? -ESHUTDOWN : job->cancel ? -ECANCELED : 0;
    pthread_mutex_unlock(&job->mutex);
    if (result < 0)
        return result;
    return job->directory ? family_run(job) : try(job);
}

/* The guest is untouched; the partial goes. What cannot go now is kept on record, as nothing to be resumed. */
static void abandon(struct job *job)
{
    if (job->record.id == 0)
        return;
    job->record.state = JOB_RECORD_ABANDONED;
    int error = jobs_put(job->services.catalog, &job->record, NULL);
    if (error == 0) {
        recover_forget(job);
        error = jobs_abandon(job->services.catalog, &job->record);
    }
    if (error < 0)
        log_warning("job %llu: the partial on datastore %s could not be removed: %s; it is removed at the next mount",
            (unsigned long long)job->record.id, job_target(job)->name, error_text(error));
}

/* Does the line tell of this job, and not of an older one? Two in a row never have the same way. */
static bool tells_of(struct job *job, const char *line)
{
    char way[2 * DATASTORE_NAME_MAX + 32];
    int length = snprintf(way, sizeof(way), " source=%s target=%s", job_source(job)->name, job_target(job)->name);
    const char *found = strstr(line, way);
    return found && (found[length] == '\0' || found[length] == ' ');
}

/* Before the record is dropped, so that a death in between leaves progress something to tell. A job that only tidied up
 * for a dead worker does not talk over what that one had stored. */
static void store_result(struct job *job, enum job_state state)
{
    struct job_result summary, stored;
    if (job->request.undo_until && state != JOB_DONE) /* the move before it stays the last one that is told */
        return;
    job_describe_as(job, state, &summary);
    if (job->recovered && jobs_load_result(job->services.catalog, job->node, &stored) == 0 &&
        tells_of(job, stored.line) &&
        (strncmp(stored.line, "state=done", strlen("state=done")) == 0 || state == JOB_RESCUED))
        return;
    jobs_store_result(job->services.catalog, job->node, &summary);
}

static void end(struct job *job, int result)
{
    enum job_state state = result == -ECANCELED ? JOB_CANCELLED : result < 0 ? JOB_FAILED : JOB_DONE;
    if (result == 0 && rescue_lost(job)) {
        state = JOB_RESCUED;
        rescue_recall(job);
    }
    pthread_mutex_lock(&job->mutex);
    job->took_ns = clock_now() - job->started;
    if (state == JOB_DONE)
        job->error.text[0] = '\0';
    pthread_mutex_unlock(&job->mutex);
    store_result(job, state);
    if (result < 0)
        abandon(job);
    else if (!job->reverse.id)
        recover_forget(job);
    if (result == 0)
        job_complete(job);
    if (!job->born) {
        disk_put(job->disk);
        job->disk = NULL;
    }
    if (job->error.text[0]) {
        log_warning("%s", job->error.text);
        store_result(job, state);
    }
    if (!job->reverse.id)
        job_move(job, state);
}

/* The disk is served meanwhile, and its log is on. False: the worker ends first. */
static bool await_turn(struct job *job)
{
    for (;;) {
        struct timespec at = after(LOOK);
        pthread_mutex_lock(&job->mutex);
        if (!job->turn && !job->suspend)
            pthread_cond_timedwait(&job->changed, &job->mutex, &at);
        bool turn = job->turn, over = turn || job->suspend;
        pthread_mutex_unlock(&job->mutex);
        if (over)
            return turn;
        recover_look(job);
    }
}

static void *job_thread(void *argument)
{
    struct job *job = argument;
    int result;
    pthread_setname_np(pthread_self(), "job");
    do {
        bool turn = await_turn(job);
        job->started = clock_now();
        result = turn ? run(job) : -ESHUTDOWN;
        if (result == -ESHUTDOWN) {
            undo_drop(job);
            recover_leave(job);
            disk_put(job->disk);
            job->disk = NULL;
        } else {
            end(job, result);
        }
    } while (result == 0 && undo_begin(job));
    pthread_mutex_lock(&job->mutex);
    job->ended = true;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
    job->services.ended(job->services.argument_of_ended, job);
    return NULL;
}

static int start_thread(struct job *job)
{
    int error = job->running ? 0 : -pthread_create(&job->thread, NULL, job_thread, job);
    job->running = error == 0;
    return error;
}

int job_watch(struct job *job)
{
    return recover_has_marks(job) ? start_thread(job) : 0;
}

int job_start(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    job->turn = true;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
    return start_thread(job);
}

void job_free(struct job *job)
{
    if (!job)
        return;
    if (job->running)
        pthread_join(job->thread, NULL);
    for (size_t i = 0; i < job->member_count; i++)
        job_free(job->members[i]);
    free(job->members);
    marks_end(job->marks);
    mirror_put(job->born);
    mirror_put(job->turned);
    image_put(job->stale);
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->mutex);
    free(job);
}

uint64_t job_id(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    uint64_t id = job->id;
    pthread_mutex_unlock(&job->mutex);
    return id;
}

struct catalog *job_catalog(const struct job *job)
{
    return job->services.catalog;
}

uint64_t job_node(const struct job *job)
{
    return job->node;
}

enum job_state job_state(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    enum job_state state = job->state;
    pthread_mutex_unlock(&job->mutex);
    return state;
}

bool job_ended(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    bool ended = job->ended;
    pthread_mutex_unlock(&job->mutex);
    return ended;
}

bool job_cancelled(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    bool cancelled = job->cancel;
    pthread_mutex_unlock(&job->mutex);
    return cancelled;
}

bool job_wait(struct job *job, uint64_t delay_ns)
{
    struct timespec at = after(delay_ns);
    pthread_mutex_lock(&job->mutex);
    for (int error = 0; !job->ended && !error;)
        error = pthread_cond_timedwait(&job->changed, &job->mutex, &at);
    bool ended = job->ended;
    pthread_mutex_unlock(&job->mutex);
    return ended;
}

void job_suspend(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    job->suspend = true;
    job->news = true;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
}

struct job_request job_request(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    struct job_request request = job->request;
    request.rate = job->rate;
    request.paused = job->pause;
    request.manual = request.manual && !job->switchover; /* what was said holds for the next worker, too */
    pthread_mutex_unlock(&job->mutex);
    return request;
}

uint64_t job_rate(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    uint64_t rate = job->rate;
    pthread_mutex_unlock(&job->mutex);
    return rate;
}
