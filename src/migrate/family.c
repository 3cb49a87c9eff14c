/* A directory moves with all that is below it (design, 5.7): its files switch over together or not at all.
 *
 * The directory's job has a job for each file below it, a member, which copies and mirrors as any other and then waits,
 * MIRRORED, for its directory. When all are mirrored, one commit switches all of them (together.c). Fifos, sockets,
 * symlinks and device nodes are members without bytes. The directory is looked through again each second and before the
 * commit: what was made or renamed into it meanwhile becomes a member, and at the commit itself the catalog refuses
 * while anything below is none. A member that is unlinked leaves; one that fails ends the job for all.
 *
 * After a worker's death the members go on from their journals; a committed directory is completed.
 *
 * Not done here: a file that is renamed out of the directory while it moves goes with it all the same. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "migrate/recover.h"

#define MEMBERS_MAX     1024
#define COPYING_AT_ONCE 2
#define LOOK_NS         NS_PER_S
#define RETREAT_NS      (20 * NS_PER_MS)

bool job_is_member(const struct job *job)
{
    return job->leader != NULL;
}

void family_notify(struct job *leader)
{
    pthread_mutex_lock(&leader->mutex);
    leader->news = true;
    pthread_cond_broadcast(&leader->changed);
    pthread_mutex_unlock(&leader->mutex);
}

static void member_ended(void *argument, struct job *member)
{
    family_notify(argument);
}

/* The list is the leader's thread's to change; others look at it under the mutex. */
static struct job *member_of(struct job *job, uint64_t node)
{
    for (size_t i = job->member_count; i > 0; i--)
        if (job->members[i - 1]->node == node)
            return job->members[i - 1];
    return NULL;
}

int job_with_member(struct job *job, uint64_t node, int (*use)(void *argument, struct job *job), void *argument)
{
    pthread_mutex_lock(&job->mutex);
    struct job *member = member_of(job, node);
    pthread_mutex_unlock(&job->mutex);
    return member ? use(argument, member) : -ENOENT;
}

static int keep(struct job *job, struct job *member)
{
    int error = 0;
    pthread_mutex_lock(&job->mutex);
    if (job->member_count == job->member_room) {
        size_t room = job->member_room ? 2 * job->member_room : 16;
        struct job **members = realloc(job->members, room * sizeof(struct job *));
        error = members ? 0 : -ENOMEM;
        job->members = members ? members : job->members;
        job->member_room = members ? room : job->member_room;
    }
    if (!error)
        job->members[job->member_count++] = member;
    pthread_mutex_unlock(&job->mutex);
    return error;
}

static int enrol(struct job *job, const struct job_record *record, const struct node *node)
{
    struct job *member;
    struct job_request request = job->request;
    struct job_services services = job->services;
    request.manual = request.paused = false;
    services.ended = member_ended;
    services.argument_of_ended = job;
    int error = job_new(&member, &services, &request, record);
    if (error)
        return error;
    member->leader = job;
    member->special = !S_ISREG(node->st.st_mode);
    member->total = member->special ? 0 : (uint64_t)node->st.st_size;
    error = keep(job, member);
    if (error)
        job_free(member);
    return error;
}

int job_adopt(struct job *job, const struct job_record *record)
{
    struct node node;
    int error = catalog_get(job->services.catalog, record->node, &node);
    return error ? error : enrol(job, record, &node);
}

static int add_member(struct job *job, uint64_t id)
{
    struct node node;
    int error = catalog_get(job->services.catalog, id, &node);
    if (error || node.datastore == job->record.target)
        return error == -ENOENT ? 0 : error;
    struct job_record record = {
        .node = id, .source = node.datastore, .target = job->record.target, .state = JOB_RECORD_MEMBER};
    memcpy(record.request, job->request.text, sizeof(record.request));
    error = jobs_put(job->services.catalog, &record, NULL);
    return error ? error : enrol(job, &record, &node);
}

/* What is below and no member becomes one. 0 or -errno with the sentence. */
static int gather(struct job *job)
{
    struct catalog *catalog = job->services.catalog;
    struct sentence why = {""};
    uint64_t *ids = NULL;
    size_t count = 0;
    int error = jobs_find_members(catalog, job->node, job->record.target, MEMBERS_MAX, &ids, &count, &why);
    if (error == -ENOENT)
        return job_fail(job, -ECANCELED, "the directory was removed");
    if (error < 0)
        return job_fail(job, error, "%s", why.text[0] ? why.text : error_text(error));
    for (size_t i = 0; i < count && !error; i++) {
        struct job *member = member_of(job, ids[i]);
        if (member && !job_ended(member))
            continue;
        if (jobs_moving(catalog, ids[i])) /* by a job of its own, or an ended member's that tidies up */
            error = member ? 0 : job_fail(job, -EALREADY, "a disk in it is moving already");
        else if ((error = add_member(job, ids[i])) < 0)
            job_fail(job, error, "a file in it cannot be taken along: %s", error_text(error));
    }
    free(ids);
    return error;
}

static void start_some(struct job *job)
{
    unsigned busy = 0, most = job_rate(job) ? 1 : COPYING_AT_ONCE;
    for (size_t i = 0; i < job->member_count; i++) {
        enum job_state state = job_state(job->members[i]);
        busy += job->members[i]->running && state != JOB_MIRRORED && !job_ended(job->members[i]);
    }
    for (size_t i = 0; i < job->member_count; i++) {
        struct job *member = job->members[i];
        if (member->running || (busy >= most && !job_cancelled(member)))
            continue;
        int error = job_start(member);
        if (error < 0) {
            log_error("a job's thread cannot be started: %s; it is tried again", error_text(error));
            return;
        }
        busy++;
    }
}

/* Tells all members; those that were never started have nothing to tidy up but their records. */
static void tell_all(struct job *job, void (*tell)(struct job *member))
{
    for (size_t i = 0; i < job->member_count; i++)
        if (!job_ended(job->members[i]))
            tell(job->members[i]);
}

static void cancel(struct job *member)
{
    job_cancel(member);
}

static void pause_or_resume(struct job *member)
{
    pthread_mutex_lock(&member->leader->mutex);
    bool pause = member->leader->pause;
    pthread_mutex_unlock(&member->leader->mutex);
    if (pause)
        job_pause(member);
    else
        job_resume(member);
}

static void follow_rate(struct job *member)
{
    uint64_t rate = job_rate(member->leader);
    if (job_rate(member) != rate)
        job_set_rate(member, rate);
}

static bool all_ended(struct job *job)
{
    bool all = true;
    for (size_t i = 0; i < job->member_count; i++)
        all = all && (!job->members[i]->running || job_ended(job->members[i]));
    return all;
}

/* Until something happened, or for so long. */
static void await_news(struct job *job, uint64_t delay_ns)
{
    uint64_t until = clock_now() + delay_ns;
    struct timespec at = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    pthread_mutex_lock(&job->mutex);
    for (int error = 0; !job->news && !error;)
        error = pthread_cond_timedwait(&job->changed, &job->mutex, &at);
    job->news = false;
    pthread_mutex_unlock(&job->mutex);
}

static void end_all(struct job *job, void (*how)(struct job *member))
{
    for (;;) {
        tell_all(job, how);
        if (how == cancel)
            for (size_t i = 0; i < job->member_count; i++)
                if (!job->members[i]->running)
                    jobs_abandon(job->services.catalog, &job->members[i]->record);
        if (all_ended(job))
            return;
        await_news(job, LOOK_NS);
    }
}

/* The first member that cannot go on ends the job for all: its sentence is the job's. */
static int failure(struct job *job)
{
    for (size_t i = 0; i < job->member_count; i++) {
        struct job *member = job->members[i];
        pthread_mutex_lock(&member->mutex);
        bool failed = member->ended && member->state == JOB_FAILED;
        struct sentence why = member->error;
        pthread_mutex_unlock(&member->mutex);
        if (failed)
            return job_fail(job, -EIO, "%s", why.text);
    }
    return 0;
}

static bool all_mirrored(struct job *job)
{
    for (size_t i = 0; i < job->member_count; i++)
        if (!job_ended(job->members[i]) && job_state(job->members[i]) != JOB_MIRRORED)
            return false;
    return true;
}

static void show(struct job *job, enum job_state state)
{
    if (job_state(job) != state)
        job_move(job, state);
}

/* COPYING; VERIFYING when that is all that some members still do. */
static void show_working(struct job *job)
{
    bool copying = false;
    for (size_t i = 0; i < job->member_count; i++) {
        enum job_state state = job_state(job->members[i]);
        copying = copying || (!job_ended(job->members[i]) && state != JOB_VERIFYING && state != JOB_MIRRORED);
    }
    if (copying || job_state(job) != JOB_VERIFYING)
        show(job, JOB_COPYING);
    if (!copying)
        show(job, JOB_VERIFYING);
}

struct wishes {
    bool suspend, cancel, pause, switchover;
};

static struct wishes wishes_of(struct job *job)
{
    pthread_mutex_lock(&job->mutex);
    struct wishes wishes = {job->suspend, job->cancel, job->pause, !job->request.manual || job->switchover};
    pthread_mutex_unlock(&job->mutex);
    return wishes;
}

/* 0: switched; 1: go on; else the job ends so. */
static int step(struct job *job)
{
    struct wishes wishes = wishes_of(job);
    if (wishes.suspend)
        return -ESHUTDOWN;
    if (wishes.cancel)
        return job_fail(job, -ECANCELED, "cancelled");
    int error = failure(job);
    if (!error)
        error = gather(job);
    if (error)
        return error;
    tell_all(job, follow_rate);
    tell_all(job, pause_or_resume);
    recover_look(job);
    if (wishes.pause) {
        show(job, JOB_PAUSED);
        return 1;
    }
    start_some(job);
    if (!all_mirrored(job)) {
        show_working(job);
        return 1;
    }
    if (job_state(job) != JOB_MIRRORED && job_state(job) != JOB_VERIFYING)
        show(job, JOB_COPYING);
    show(job, JOB_MIRRORED);
    return wishes.switchover ? family_switch(job) : 1;
}

int family_run(struct job *job)
{
    int result;
    job_move(job, JOB_OPENING);
    pthread_mutex_lock(&job->mutex);
    job->copying_since = clock_now();
    pthread_mutex_unlock(&job->mutex);
    while ((result = step(job)) == 1)
        await_news(job, job_state(job) == JOB_SWITCHING ? RETREAT_NS : LOOK_NS);
    if (result == -ESHUTDOWN)
        end_all(job, job_suspend);
    else if (result < 0)
        end_all(job, cancel);
    while (result == 0 && !all_ended(job))
        await_news(job, LOOK_NS);
    return result;
}
