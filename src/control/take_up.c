/* What the records say is under way: after a worker's death, an unmount, a host's. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "control/board.h"
#include "control/command.h"
#include "control/control_private.h"

#define FIRST_LOOK_US 20000
#define LAST_LOOK_US  500000

int control_add_job(
    struct control *control, const struct job_request *request, struct job_record *record, const struct origin *origin)
{
    struct job *job = NULL;
    int error = record->id ? 0 : jobs_put(control->catalog, record, origin);
    if (error == 0)
        error = job_new(&job, &control->services, request, record);
    if (error == 0 && (error = board_add(control->board, job)) < 0)
        job_free(job);
    return error;
}

struct found {
    struct job_record *records;
    size_t count;
};

static int collect(void *argument, const struct job_record *record)
{
    struct found *found = argument;
    struct job_record *records = realloc(found->records, (found->count + 1) * sizeof(*records));
    if (!records)
        return -ENOMEM;
    found->records = records;
    records[found->count++] = *record;
    return 0;
}

static int adopt(void *argument, struct job *job)
{
    return job_adopt(job, argument);
}

/* A record is a job again. An abandoned one stays for control_recover: it keeps nobody from moving the disk. */
/* What is committed is completed first; the disk's next job, the reverse of a move with keep for one, waits for that. */
static int follow(void *argument, struct job *job)
{
    const struct job_record *record = argument;
    struct job_request request;
    struct sentence why = {""};
    int error = command_parse_migrate(job_catalog(job), record->request, &request, &why);
    return error ? error : job_follow(job, record, &request);
}

static void take_up(struct control *control, struct job_record record)
{
    struct job_request request;
    struct sentence why = {""};
    if (record.state == JOB_RECORD_ABANDONED)
        return;
    if (record.state == JOB_RECORD_MEMBER) { /* its directory's job, which is older, goes on with it */
        uint64_t directory = jobs_family_of(control->catalog, record.node);
        if (!directory || board_with(control->board, directory, adopt, &record) < 0)
            jobs_give_up(control->catalog, record.id, NULL);
        return;
    }
    int error = command_parse_migrate(control->catalog, record.request, &request, &why);
    if (error == 0 && jobs_moving(control->catalog, record.node) != record.id)
        error = board_with(control->board, record.node, follow, &record);
    else if (error == 0)
        error = control_add_job(control, &request, &record, NULL);
    if (error < 0)
        log_error("job %llu could not be taken up: %s", (unsigned long long)record.id,
            why.text[0] ? why.text : error_text(error));
}

static void drop_journal(void *argument, uint64_t id)
{
    struct control *control = argument;
    if (!jobs_running(control->catalog, id))
        journal_remove(control->journals, id);
}

static int take_log(void *argument, struct job *job)
{
    *(struct disk_log **)argument = job_log(job);
    return 0;
}

struct disk_log *control_log(struct control *control, uint64_t node)
{
    struct disk_log *log = NULL;
    board_with(control->board, node, take_log, &log);
    return log;
}

int control_take_up_all(struct control *control)
{
    struct found found = {NULL, 0};
    int error = jobs_list(control->catalog, collect, &found);
    for (size_t i = 0; i < found.count && error >= 0; i++)
        take_up(control, found.records[i]);
    free(found.records);
    board_watch(control->board);
    journal_list(control->journals, drop_journal, control);
    return error;
}

static bool may_come(struct datastore *datastore)
{
    return atomic_load(&datastore->away) && !atomic_load(datastore_stopping(datastore));
}

/* What was given up and could not be removed then. Those whose datastore is away stay in the list. */
static void tidy_up(struct control *control, struct found *found)
{
    size_t left = 0;
    for (size_t i = 0; i < found->count; i++) {
        struct job_record *record = &found->records[i];
        struct datastore *target = catalog_datastore(control->catalog, record->target);
        if (record->state != JOB_RECORD_ABANDONED || jobs_abandon(control->catalog, record) == 0)
            continue;
        if (may_come(target))
            found->records[left++] = *record;
        else
            log_warning("job %llu: its partial on datastore %s could still not be removed",
                (unsigned long long)record->id, target->name);
    }
    found->count = left;
}

int control_recover(struct control *control)
{
    struct found found = {NULL, 0};
    unsigned delay_us = FIRST_LOOK_US;
    int error = jobs_list(control->catalog, collect, &found);
    board_open(control->board);
    if (error < 0)
        found.count = 0;
    tidy_up(control, &found);
    int strays = jobs_set_aside_strays(control->catalog);
    for (; found.count && !atomic_load(&control->ending);
         delay_us = delay_us < LAST_LOOK_US ? 2 * delay_us : LAST_LOOK_US) {
        usleep(delay_us);
        tidy_up(control, &found);
    }
    free(found.records);
    return error < 0 ? error : strays;
}

void control_ends(struct control *control)
{
    atomic_store(&control->ending, true);
}
