#include "control/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/board.h"
#include "control/command.h"
#include "catalog/names.h"

#define PREFIX       "user.svmfs."
#define COPY_WINDOW  8 /* regions in flight a job */
#define GUEST_WINDOW 2 /* and while the guest is at work */
#define FAMILY_MAX   1024

struct control {
    struct catalog *catalog;
    struct control_disks disks;
    struct board *board;
    struct job_services services;
};

static int take_up_all(struct control *control);

static int open_disk(void *argument, uint64_t node, struct disk **out)
{
    struct control *control = argument;
    return control->disks.open(control->disks.argument, node, out);
}

int control_open(struct control **out, const struct config *config, struct catalog *catalog,
    const struct control_disks *disks, struct reactor **reactors, unsigned reactor_count)
{
    struct control *control = calloc(1, sizeof(*control));
    if (!control)
        return -ENOMEM;
    control->catalog = catalog;
    control->disks = *disks;
    int error = board_new(&control->board, config->jobs);
    if (error < 0) {
        free(control);
        return error;
    }
    control->services = (struct job_services){.catalog = catalog,
        .reactors = reactors,
        .reactor_count = reactor_count,
        .target_timeout_ns = config->target_timeout_ns,
        .window = COPY_WINDOW,
        .guest_window = GUEST_WINDOW,
        .open_disk = open_disk,
        .argument = control,
        .ended = board_ended,
        .argument_of_ended = control->board};
    error = take_up_all(control);
    if (error < 0) {
        control_close(control);
        return error;
    }
    *out = control;
    return 0;
}

void control_close(struct control *control)
{
    if (!control)
        return;
    board_free(control->board);
    free(control);
}

bool control_is_ours(const char *xattr)
{
    return strncmp(xattr, PREFIX, strlen(PREFIX)) == 0;
}

/* The answer of a getxattr. */
static ssize_t give(const char *text, char *out, size_t size)
{
    size_t length = strlen(text);
    if (length == 0)
        return -ENODATA;
    if (size == 0)
        return (ssize_t)length;
    if (size < length)
        return -ERANGE;
    memcpy(out, text, length);
    return (ssize_t)length;
}

static int describe(void *argument, struct job *job)
{
    job_describe(job, argument);
    return 0;
}

/* Of the job under way, or of the last one. */
static int load_result(struct control *control, uint64_t id, struct job_result *out)
{
    if (board_with(control->board, id, describe, out) == 0)
        return 0;
    return jobs_load_result(control->catalog, id, out);
}

static int read_rate(void *argument, struct job *job)
{
    snprintf(argument, 32, "%llu", (unsigned long long)job_rate(job));
    return job_ended(job) ? -ENOENT : 0;
}

ssize_t control_get(struct control *control, uint64_t id, const char *xattr, char *out, size_t size)
{
    const char *name = xattr + strlen(PREFIX);
    struct job_result result;
    struct sentence noted;
    char rate[32];
    struct node node;
    int error = catalog_get(control->catalog, id, &node);
    if (error < 0)
        return error;
    if (strcmp(name, "datastore") == 0)
        return give(catalog_datastore(control->catalog, node.datastore)->name, out, size);
    if (strcmp(name, "progress") == 0) {
        error = load_result(control, id, &result);
        return error < 0 ? error : give(result.line, out, size);
    }
    if (strcmp(name, "error") == 0) {
        if (board_noted(control->board, id, &noted) == 0)
            return give(noted.text, out, size);
        error = load_result(control, id, &result);
        return error < 0 ? error : give(result.error, out, size);
    }
    if (strcmp(name, "rate") == 0 && board_with(control->board, id, read_rate, rate) == 0)
        return give(rate, out, size);
    return -ENODATA;
}

/* Is there room? Thin needs what is allocated, thick the size. */
static int check_space(
    struct datastore *target, const struct stat *st, const struct job_request *request, struct sentence *why)
{
    struct statvfs fs;
    uint64_t allocated = (uint64_t)st->st_blocks * 512, size = (uint64_t)st->st_size;
    bool thick = request->format == JOB_FORMAT_THICK || (request->format == JOB_FORMAT_SAME && allocated >= size);
    uint64_t needed = thick ? size : allocated < size ? allocated : size;
    int error = target->ops->statfs(target, &fs);
    if (error < 0)
        return refuse(why, error, "datastore %s cannot tell its free space: %s", target->name, error_text(error));
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (needed <= room)
        return 0;
    return refuse(why, -ENOSPC, "the disk needs %llu bytes, datastore %s has %llu left", (unsigned long long)needed,
        target->name, (unsigned long long)room);
}

/* Is the node's path free on the target? */
static int check_path(struct control *control, uint64_t id, struct datastore *target, struct sentence *why)
{
    char path[PATH_MAX];
    struct stat st;
    int error = catalog_path(control->catalog, id, path);
    if (error < 0)
        return refuse(why, error, "its path cannot be told: %s", error_text(error));
    error = target->ops->lookup(target, path, &st);
    if (error == 0 && S_ISDIR(st.st_mode))
        return refuse(why, -EISDIR, "datastore %s has a directory /%s", target->name, path);
    if (error == 0)
        return refuse(why, -EEXIST, "datastore %s has a file /%s already", target->name, path);
    if (error == -ENOTDIR)
        return refuse(why, -ENOTDIR, "datastore %s has a file where a directory of /%s should be", target->name, path);
    if (error != -ENOENT)
        return refuse(why, error, "datastore %s cannot be asked for /%s: %s", target->name, path, error_text(error));
    return 0;
}

/* Each file below as if it moved alone, and room for all. */
static int check_family(
    struct control *control, const struct node *node, const struct job_request *request, struct sentence *why)
{
    struct datastore *target = catalog_datastore(control->catalog, request->target);
    struct stat sum = {.st_size = 0};
    uint64_t *ids = NULL;
    size_t count = 0;
    int error = jobs_find_members(control->catalog, node->id, request->target, FAMILY_MAX, &ids, &count, why);
    if (error < 0)
        return why->text[0] ? error : refuse(why, error, "what is in it cannot be told: %s", error_text(error));
    if (count == 0 && node->datastore == request->target)
        error = refuse(why, -EEXIST, "all of it is on datastore %s already", target->name);
    for (size_t i = 0; i < count && !error; i++) {
        struct node file;
        if (catalog_get(control->catalog, ids[i], &file) < 0)
            continue;
        sum.st_size += file.st.st_size;
        sum.st_blocks += file.st.st_blocks;
        error = check_path(control, ids[i], target, why);
    }
    free(ids);
    return error ? error : check_space(target, &sum, request, why);
}

/* Every refusal that can be known before the job starts. */
static int check_migrate(
    struct control *control, const struct node *node, const struct job_request *request, struct sentence *why)
{
    struct datastore *target = catalog_datastore(control->catalog, request->target);
    char other[PATH_MAX] = "";
    bool directory = S_ISDIR(node->st.st_mode);
    if (!directory && !S_ISREG(node->st.st_mode))
        return refuse(why, -EINVAL, "only regular files and directories can be moved");
    if (node->orphan)
        return refuse(why, -ENOENT, "the disk has been unlinked");
    if (board_busy(control->board, node->id))
        return refuse(why, -EALREADY, "the %s is moving already", directory ? "directory" : "disk");
    uint64_t overlap = jobs_overlap(control->catalog, node->id);
    if (overlap && overlap != node->id && catalog_path(control->catalog, overlap, other) == 0)
        return refuse(why, -EALREADY, "/%s is moving already", other);
    if (target->away)
        return refuse(why, -ENODEV, "datastore %s is away", target->name);
    if (directory)
        return check_family(control, node, request, why);
    if (node->datastore == request->target)
        return refuse(why, -EEXIST, "the disk is on datastore %s already", target->name);
    int error = check_path(control, node->id, target, why);
    return error ? error : check_space(target, &node->st, request, why);
}

/* Makes the record and the job and hands it to the board. */
static int add_job(
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

static int set_migrate(struct control *control, const struct node *node, const char *text, const struct origin *origin,
    struct sentence *why)
{
    struct job_request request;
    struct node fresh;
    int error = jobs_recall(control->catalog, origin);
    if (error)
        return error < 0 ? error : 0;
    error = command_parse_migrate(control->catalog, text, &request, why);
    if (error < 0)
        return error;
    error = names_refresh(control->catalog, node->id, &fresh);
    if (error < 0)
        return refuse(why, error, "the disk's attributes cannot be read: %s", error_text(error));
    error = check_migrate(control, &fresh, &request, why);
    if (error < 0)
        return error;
    struct job_record record = {.node = node->id, .source = fresh.datastore, .target = request.target};
    strcpy(record.request, request.text);
    error = add_job(control, &request, &record, origin);
    if (error == -EALREADY) {
        jobs_abandon(control->catalog, &record);
        return refuse(why, error, "the disk is moving already");
    }
    return error < 0 ? refuse(why, error, "the job cannot be recorded: %s", error_text(error)) : 0;
}

struct verb_call {
    enum command_verb verb;
    bool unlinked;      /* the file is gone: a member may leave its directory's job */
    uint64_t cancelled; /* id of the record */
};

struct request_call {
    uint64_t id;
    struct job_request request;
};

static int read_request(void *argument, struct job *job)
{
    struct request_call *call = argument;
    call->id = job_id(job);
    call->request = job_request(job);
    return 0;
}

/* A pause and a rate hold for the worker that starts the job over, too. */
static int keep_request(struct control *control, uint64_t node)
{
    struct request_call call;
    char text[COMMAND_MAX + 1];
    if (board_with(control->board, node, read_request, &call) < 0)
        return 0;
    command_format(control->catalog, &call.request, text);
    return jobs_change(control->catalog, call.id, text);
}

static int apply_verb(void *argument, struct job *job)
{
    struct verb_call *call = argument;
    if (job_is_member(job) && !call->unlinked)
        return job_ended(job) ? -EINVAL : -EXDEV;
    switch (call->verb) {
    case COMMAND_CANCEL:
        call->cancelled = job_id(job);
        return job_cancel(job);
    case COMMAND_PAUSE:
        return job_pause(job);
    case COMMAND_RESUME:
        return job_resume(job);
    case COMMAND_SWITCHOVER:
        return job_switchover(job);
    }
    abort();
}

static int set_control(struct control *control, uint64_t id, const char *text, struct sentence *why)
{
    struct verb_call call = {.cancelled = 0};
    int error = command_parse_control(text, &call.verb, why);
    if (error < 0)
        return error;
    error = board_with(control->board, id, apply_verb, &call);
    if (error == 0)
        error = call.cancelled ? jobs_give_up(control->catalog, call.cancelled) : keep_request(control, id);
    if (error == -ENOENT)
        return refuse(why, -EINVAL, "%s: the disk has no job", text);
    if (error == -EXDEV)
        return refuse(why, -EBUSY, "%s: the disk moves with its directory; say it to that", text);
    if (error == -EBUSY)
        return refuse(why, -EBUSY, "%s: the switchover is under way", text);
    return error < 0 ? refuse(why, error, "%s: the job has ended or is not in a state for that", text) : 0;
}

static int apply_rate(void *argument, struct job *job)
{
    return job_is_member(job) ? -EXDEV : job_set_rate(job, *(uint64_t *)argument);
}

static int set_rate(struct control *control, uint64_t id, const char *text, struct sentence *why)
{
    uint64_t rate;
    if (config_parse_size(text, &rate) < 0)
        return refuse(why, -EINVAL, "\"%s\" is no rate, as 200M", text);
    int error = board_with(control->board, id, apply_rate, &rate);
    if (error == 0)
        return keep_request(control, id);
    if (error == -EXDEV)
        return refuse(why, -EBUSY, "the disk moves with its directory; say the rate to that");
    return error < 0 ? refuse(why, -EINVAL, "the disk has no job under way") : 0;
}

static int set_checked(struct control *control, const struct node *node, const char *name, const char *value,
    size_t size, const struct origin *origin, struct sentence *why)
{
    static const char *const read_only[] = {"progress", "datastore", "error", "worker"};
    char text[COMMAND_MAX + 1];
    for (unsigned i = 0; i < sizeof(read_only) / sizeof(*read_only); i++)
        if (strcmp(name, read_only[i]) == 0)
            return refuse(why, -EPERM, PREFIX "%s can only be read", name);
    int error = command_text(value, size, text, why);
    if (error < 0)
        return error;
    if (strcmp(name, "migrate") == 0)
        return set_migrate(control, node, text, origin, why);
    if (strcmp(name, "control") == 0)
        return set_control(control, node->id, text, why);
    if (strcmp(name, "rate") == 0)
        return set_rate(control, node->id, text, why);
    return refuse(why, -EINVAL, "there is no " PREFIX "%.64s", name);
}

int control_set(struct control *control, uint64_t id, const char *xattr, const char *value, size_t size,
    const struct origin *origin)
{
    const char *name = xattr + strlen(PREFIX);
    struct sentence why = {""}, whole;
    struct node node;
    char path[PATH_MAX];
    int error = catalog_get(control->catalog, id, &node);
    if (error < 0)
        return error;
    error = set_checked(control, &node, name, value, size, origin, &why);
    if (error == 0) {
        board_note(control->board, id, &why);
        return 0;
    }
    if (catalog_path(control->catalog, id, path) < 0)
        path[0] = '\0';
    refuse(&whole, error, "/%.200s on datastore %s: %.20s: %.220s", path,
        catalog_datastore(control->catalog, node.datastore)->name, name, why.text[0] ? why.text : error_text(error));
    log_warning("%s", whole.text);
    board_note(control->board, id, &whole);
    return error;
}

void control_note(struct control *control, uint64_t id, const struct sentence *sentence)
{
    board_note(control->board, id, sentence);
}

void control_unlinked(struct control *control, uint64_t id)
{
    struct verb_call call = {.verb = COMMAND_CANCEL, .unlinked = true};
    if (board_with(control->board, id, apply_verb, &call) == 0)
        jobs_give_up(control->catalog, call.cancelled);
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

/* A record is a job again. An abandoned one stays for control_recover: it keeps nobody from moving the disk. */
static void take_up(struct control *control, struct job_record record)
{
    struct job_request request;
    struct sentence why = {""};
    if (record.state == JOB_RECORD_ABANDONED)
        return;
    if (record.state == JOB_RECORD_MEMBER) { /* its directory's job makes it anew */
        jobs_give_up(control->catalog, record.id);
        return;
    }
    int error = command_parse_migrate(control->catalog, record.request, &request, &why);
    if (error == 0)
        error = add_job(control, &request, &record, NULL);
    if (error < 0)
        log_error("job %llu could not be taken up: %s", (unsigned long long)record.id,
            why.text[0] ? why.text : error_text(error));
}

static int take_up_all(struct control *control)
{
    struct found found = {NULL, 0};
    int error = jobs_list(control->catalog, collect, &found);
    for (size_t i = 0; i < found.count && error >= 0; i++)
        take_up(control, found.records[i]);
    free(found.records);
    return error;
}

int control_recover(struct control *control)
{
    struct found found = {NULL, 0};
    int error = jobs_list(control->catalog, collect, &found);
    board_open(control->board);
    for (size_t i = 0; i < found.count && error >= 0; i++)
        if (found.records[i].state == JOB_RECORD_ABANDONED && jobs_abandon(control->catalog, &found.records[i]) < 0)
            log_warning("job %llu: its partial on datastore %s could still not be removed",
                (unsigned long long)found.records[i].id,
                catalog_datastore(control->catalog, found.records[i].target)->name);
    free(found.records);
    int strays = jobs_set_aside_strays(control->catalog);
    return error < 0 ? error : strays;
}
