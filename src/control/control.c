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
#include "control/control_private.h"
#include "control/scrubs.h"
#include "catalog/names.h"

#define PREFIX       "user.svmfs."
#define COPY_WINDOW  8 /* regions in flight a job */
#define GUEST_WINDOW 2 /* and while the guest is at work */
#define FAMILY_MAX   1024

static int open_disk(void *argument, uint64_t node, struct disk **out)
{
    struct control *control = argument;
    return control->disks.open(control->disks.argument, node, out);
}

static int open_journals(struct control *control, const struct config *config)
{
    char directory[PATH_MAX];
    struct sentence why = {""};
    snprintf(directory, sizeof(directory), "%s/jobs", config->state);
    int error = journal_files_open(&control->journals, directory, config->journal_faults, &why);
    if (error)
        log_error("%s", why.text[0] ? why.text : error_text(error));
    return error;
}

int control_open(struct control **out, const struct config *config, struct catalog *catalog,
    const struct control_disks *disks, struct reactor **reactors, unsigned reactor_count)
{
    struct control *control = calloc(1, sizeof(*control));
    if (!control)
        return -ENOMEM;
    control->catalog = catalog;
    control->disks = *disks;
    int error = open_journals(control, config);
    if (error == 0)
        error = board_new(&control->board, config->jobs);
    if (error < 0) {
        journal_files_close(control->journals);
        free(control);
        return error;
    }
    control->services = (struct job_services){.catalog = catalog,
        .reactors = reactors,
        .reactor_count = reactor_count,
        .target_timeout_ns = config->target_timeout_ns,
        .window = COPY_WINDOW,
        .guest_window = GUEST_WINDOW,
        .journals = control->journals,
        .epoch_ns = config->epoch_ns,
        .open_disk = open_disk,
        .argument = control,
        .resting = board_resting,
        .ended = board_ended,
        .argument_of_ended = control->board};
    error = scrubs_new(&control->scrubs, &control->services, control->board, config->jobs);
    if (error == 0)
        error = control_take_up_all(control);
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
    scrubs_free(control->scrubs);
    board_free(control->board);
    journal_files_close(control->journals);
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
    if (job_told_by_the_last(job))
        return -ENOENT;
    job_describe(job, argument);
    return 0;
}

static int ask_left(void *argument, struct job *job)
{
    return job_still_keeps(job, argument) ? 0 : -ENOENT;
}

/* Of what is under way, a job or a scrub, or of the last one. */
static int load_result(struct control *control, uint64_t id, struct job_result *out)
{
    if (scrubs_describe(control->scrubs, id, out) == 0)
        return 0;
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
    uint64_t left;
    struct node node;
    int error = catalog_get(control->catalog, id, &node);
    if (error < 0)
        return error;
    if (strcmp(name, "datastore") == 0)
        return give(catalog_datastore(control->catalog, node.datastore)->name, out, size);
    if (strcmp(name, "progress") == 0) {
        error = load_result(control, id, &result);
        if (error == 0 && board_with(control->board, id, ask_left, &left) == 0)
            snprintf(result.line + strlen(result.line), sizeof(result.line) - strlen(result.line), " undo=%llu",
                (unsigned long long)left);
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
        return request->keep_ns ? refuse(why, -EOPNOTSUPP, "keep: only a single disk can be kept, not a directory")
               : request->until ? refuse(why, -EOPNOTSUPP, "deadline: only of a single disk, not of a directory")
                                : check_family(control, node, request, why);
    if (node->datastore == request->target)
        return refuse(why, -EEXIST, "the disk is on datastore %s already", target->name);
    int error = check_path(control, node->id, target, why);
    return error ? error : check_space(target, &node->st, request, why);
}

struct below {
    struct catalog *catalog;
    uint64_t node;
    char path[PATH_MAX];
};

static bool is_below(void *argument, uint64_t node)
{
    struct below *below = argument;
    char path[PATH_MAX];
    size_t length = strlen(below->path);
    if (node == below->node)
        return true;
    return catalog_path(below->catalog, node, path) == 0 && strncmp(path, below->path, length) == 0 &&
           (length == 0 || path[length] == '/');
}

/* A move begins: the scrub of the disk, and those of the disks below a directory, end. */
static void forget_scrubs(struct control *control, uint64_t node)
{
    struct below below = {.catalog = control->catalog, .node = node};
    if (catalog_path(control->catalog, node, below.path) == 0)
        scrubs_forget_if(control->scrubs, is_below, &below);
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
    uint64_t left;
    if (request.undo_until)
        return refuse(why, -EINVAL, "unknown option \"undo\": say it to user.svmfs.control");
    if (board_with(control->board, node->id, ask_left, &left) == 0)
        return refuse(why, -EBUSY, "its old disk is kept: say undo or release to user.svmfs.control first");
    if (jobs_settle_forward(control->catalog, node->id) < 0)
        return refuse(why, -EBUSY, "what its last move has left is not tidied up yet: a datastore is away");
    error = check_migrate(control, &fresh, &request, why);
    if (error < 0)
        return error;
    struct job_record record = {.node = node->id, .source = fresh.datastore, .target = request.target};
    strcpy(record.request, request.text);
    error = control_add_job(control, &request, &record, origin);
    if (error == -EALREADY) {
        jobs_abandon(control->catalog, &record);
        return refuse(why, error, "the disk is moving already");
    }
    if (error < 0)
        return refuse(why, error, "the job cannot be recorded: %s", error_text(error));
    forget_scrubs(control, node->id);
    return 0;
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
static int keep_request(struct control *control, uint64_t node, const struct origin *origin)
{
    struct request_call call;
    char text[COMMAND_MAX + 1];
    if (board_with(control->board, node, read_request, &call) < 0)
        return 0;
    command_format(control->catalog, &call.request, text);
    return jobs_change(control->catalog, call.id, text, origin);
}

static int apply_verb(void *argument, struct job *job)
{
    struct verb_call *call = argument;
    uint64_t left;
    if (job_is_member(job) && !call->unlinked)
        return job_ended(job) ? -EINVAL : -EXDEV;
    switch (call->verb) {
    case COMMAND_CANCEL:
        if (!call->unlinked && job_keeps(job, &left))
            return -EINVAL;
        call->cancelled = job_id(job);
        return job_cancel(job);
    case COMMAND_PAUSE:
        return job_pause(job);
    case COMMAND_RESUME:
        return job_resume(job);
    case COMMAND_SWITCHOVER:
        return job_switchover(job);
    case COMMAND_UNDO:
        return job_undo(job);
    case COMMAND_RELEASE:
        call->cancelled = job_id(job);
        return job_release(job);
    case COMMAND_VERIFY:
        return -EINVAL; /* no verb of a job */
    }
    abort();
}

/* control=verify: a scrub of the disk. A move that begins meanwhile ends it. */
static int set_verify(struct control *control, uint64_t id, struct sentence *why)
{
    struct node node;
    int error = catalog_get(control->catalog, id, &node);
    if (error == 0 && !S_ISREG(node.st.st_mode))
        return refuse(why, -EINVAL, "verify: only a disk can be read; say it to each file");
    if (error == 0 && node.orphan)
        return refuse(why, -ENOENT, "verify: the disk has been unlinked");
    if (error == 0 && (board_busy(control->board, id) || jobs_overlap(control->catalog, id)))
        return refuse(why, -EALREADY, "verify: the disk is moving; the move's own option is verify");
    if (error == 0)
        error = scrubs_add(control->scrubs, id);
    if (error == -EALREADY)
        return refuse(why, error, "verify: the disk is being read already");
    if (error < 0)
        return refuse(why, error, "verify: it cannot be started: %s", error_text(error));
    if (board_busy(control->board, id)) { /* a move that was asked for at the same moment */
        scrubs_forget(control->scrubs, id);
        return refuse(why, -EALREADY, "verify: the disk is moving");
    }
    return 0;
}

static int set_control(
    struct control *control, uint64_t id, const char *text, const struct origin *origin, struct sentence *why)
{
    struct verb_call call = {.cancelled = 0};
    int error = jobs_recall(control->catalog, origin);
    if (error)
        return error < 0 ? error : 0;
    error = command_parse_control(text, &call.verb, why);
    if (error < 0)
        return error;
    if (call.verb == COMMAND_VERIFY)
        return set_verify(control, id, why);
    if (call.verb == COMMAND_CANCEL && scrubs_cancel(control->scrubs, id) == 0)
        return 0;
    error = board_with(control->board, id, apply_verb, &call);
    if (error == 0)
        error = call.cancelled ? jobs_give_up(control->catalog, call.cancelled, origin)
                               : keep_request(control, id, origin);
    if (error == -ENOENT && (call.verb == COMMAND_UNDO || call.verb == COMMAND_RELEASE))
        return refuse(why, -EINVAL, "%s: no old disk is kept (migrate with keep=TIME keeps it)", text);
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

static int set_rate(
    struct control *control, uint64_t id, const char *text, const struct origin *origin, struct sentence *why)
{
    uint64_t rate;
    int error = jobs_recall(control->catalog, origin);
    if (error)
        return error < 0 ? error : 0;
    if (config_parse_size(text, &rate) < 0)
        return refuse(why, -EINVAL, "\"%s\" is no rate, as 200M", text);
    error = board_with(control->board, id, apply_rate, &rate);
    if (error == 0)
        return keep_request(control, id, origin);
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
        return set_control(control, node->id, text, origin, why);
    if (strcmp(name, "rate") == 0)
        return set_rate(control, node->id, text, origin, why);
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
    scrubs_forget(control->scrubs, id);
    if (board_with(control->board, id, apply_verb, &call) == 0)
        jobs_give_up(control->catalog, call.cancelled, NULL);
}
