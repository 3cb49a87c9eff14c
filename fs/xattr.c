/* Handlers of extended attributes. user.* stands on the datastore; user.svmfs.* is the control surface, which is not
 * listed; security.*, system.* and trusted.* do not exist here, and are answered without leaving the reactor: the
 * kernel asks for security.capability often. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "fs/handlers.h"

#define OURS       "user.svmfs."
#define WORKER     "user.svmfs.worker"
#define CONTROL    "user.svmfs.control"
#define RESCAN     "rescan"
#define VALUE_MAX  65536u
#define NAME_LIMIT 255u

enum kind { KIND_USER, KIND_CONTROL, KIND_WORKER, KIND_ABSENT, KIND_NONSENSE, KIND_TOO_LONG, KIND_EMPTY };

static bool starts(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static enum kind kind_of(const char *name)
{
    if (strlen(name) > NAME_LIMIT)
        return KIND_TOO_LONG;
    if (strcmp(name, WORKER) == 0)
        return KIND_WORKER;
    if (control_is_ours(name))
        return KIND_CONTROL;
    if (starts(name, OURS) || starts(name, "security.") || starts(name, "system.") || starts(name, "trusted."))
        return KIND_ABSENT;
    if (strcmp(name, "user.") == 0)
        return KIND_EMPTY;
    return starts(name, "user.") ? KIND_USER : KIND_NONSENSE;
}

/* What a change of such a name is told, or 0. */
static int refusal(enum kind kind)
{
    switch (kind) {
    case KIND_USER:
    case KIND_CONTROL:
        return 0;
    case KIND_EMPTY:
        return -EINVAL;
    case KIND_TOO_LONG:
        return -ERANGE;
    case KIND_WORKER:
        return -EPERM;
    case KIND_ABSENT:
    case KIND_NONSENSE:
        return -EOPNOTSUPP;
    }
    abort();
}

static void block(struct request *request, int (*call)(struct request *), void (*after)(struct request *, int))
{
    struct catalog *catalog = request->fs->catalog;
    struct node node;
    int error = catalog_get(catalog, request->in->nodeid, &node);
    if (error)
        request_reply(request, error);
    else
        request_block(request, catalog_datastore(catalog, node.datastore), call, after);
}

/* GETXATTR, LISTXATTR: a value, or its length when there is no room for it at all. */
static void reply_value(struct request *request, const void *value, size_t length, size_t room)
{
    struct fuse_getxattr_out out = {.size = (uint32_t)length};
    struct iovec iov = {&out, sizeof(out)};
    if (room)
        iov = (struct iovec){(void *)(uintptr_t)value, length};
    if (room && length > room)
        request_reply(request, -ERANGE);
    else
        request_reply_iov(request, &iov, 1, iov.iov_len);
}

static size_t room_of(const struct request *request)
{
    const struct fuse_getxattr_in *in = request->body;
    return in->size < VALUE_MAX ? in->size : VALUE_MAX;
}

static const char *get_name(const struct request *request)
{
    return request_string(request, sizeof(struct fuse_getxattr_in), NULL);
}

/* request->out holds the value, out_length its length. */
static int keep(struct request *request, ssize_t length)
{
    if (length < 0)
        return (int)length;
    request->out_length = (size_t)length;
    return 0;
}

static void get_after(struct request *request, int error)
{
    if (error)
        request_reply(request, error);
    else
        reply_value(request, request->out, request->out_length, room_of(request));
}

static int get_call(struct request *request)
{
    size_t room = room_of(request);
    return keep(
        request, names_get_xattr(request->fs->catalog, request->in->nodeid, get_name(request), request->out, room));
}

static int list_call(struct request *request)
{
    size_t room = room_of(request);
    return keep(request, names_list_xattr(request->fs->catalog, request->in->nodeid, request->out, room));
}

static int control_get_call(struct request *request)
{
    size_t room = room_of(request);
    return keep(request, control_get(request->fs->control, request->in->nodeid, get_name(request), request->out, room));
}

static bool make_room(struct request *request)
{
    size_t room = room_of(request);
    request->out = room ? malloc(room) : NULL;
    if (!room || request->out)
        return true;
    request_reply(request, -ENOMEM);
    return false;
}

static void reply_worker(struct request *request)
{
    char pid[16];
    int length = snprintf(pid, sizeof(pid), "%d", getpid());
    reply_value(request, pid, (size_t)length, room_of(request));
}

void handle_getxattr(struct request *request)
{
    const char *name = get_name(request);
    switch (name ? kind_of(name) : KIND_EMPTY) {
    case KIND_USER:
        if (make_room(request))
            block(request, get_call, get_after);
        return;
    case KIND_CONTROL:
        if (make_room(request))
            request_block_control(request, control_get_call, get_after);
        return;
    case KIND_WORKER:
        reply_worker(request);
        return;
    case KIND_ABSENT:
        request_reply(request, -ENODATA);
        return;
    case KIND_NONSENSE:
        request_reply(request, -EOPNOTSUPP);
        return;
    case KIND_TOO_LONG:
        request_reply(request, -ERANGE);
        return;
    case KIND_EMPTY:
        request_reply(request, -EINVAL);
        return;
    }
    abort();
}

void handle_listxattr(struct request *request)
{
    if (make_room(request))
        block(request, list_call, get_after);
}

/* ---- SETXATTR ---- */

struct setting {
    const char *name, *value;
    size_t size;
    int flags;
};

static int parse(const struct request *request, struct setting *setting)
{
    const struct fuse_setxattr_in *in = request->body;
    bool extended = request->fs->session.head->init_out.flags & FUSE_SETXATTR_EXT;
    size_t next = extended ? sizeof(*in) : FUSE_COMPAT_SETXATTR_IN_SIZE;
    setting->name = request_string(request, next, &next);
    if (!setting->name || in->size > request->body_length - next)
        return -EINVAL;
    setting->value = (const char *)request->body + next;
    setting->size = in->size;
    setting->flags = (int)in->flags;
    return in->size > VALUE_MAX ? -E2BIG : 0;
}

/* Law 9: whether the attribute was there is noted in the slot before it is changed, so that a retry knows its own work.
 * The kernel holds the inode's lock: nobody else changes it in between. */
enum { NOTE_NONE, NOTE_ABSENT, NOTE_PRESENT };

static int note_presence(struct request *request, const char *name)
{
    uint64_t *note = &request->slot->note;
    if (request->retry && *note != NOTE_NONE)
        return 0;
    ssize_t length = names_get_xattr(request->fs->catalog, request->in->nodeid, name, NULL, 0);
    if (length < 0 && length != -ENODATA)
        return (int)length;
    *note = length < 0 ? NOTE_ABSENT : NOTE_PRESENT;
    return 0;
}

static int set_call(struct request *request)
{
    struct setting setting;
    int error = parse(request, &setting);
    if (!error && setting.flags & XATTR_CREATE)
        error = note_presence(request, setting.name);
    if (!error)
        error = names_set_xattr(
            request->fs->catalog, request->in->nodeid, setting.name, setting.value, setting.size, setting.flags);
    return error == -EEXIST && request->retry && request->slot->note == NOTE_ABSENT ? 0 : error;
}

/* What was found is a sentence of the root, as a refusal is: svmfs --rescan prints it. */
static int rescan(struct request *request)
{
    struct sentence why = {""}, told;
    unsigned found = 0, gone = 0;
    int error = names_rescan(request->fs->catalog, &found, &gone, &why);
    if (error) {
        refuse(&told, error, "rescan: %s", *why.text ? why.text : error_text(error));
        log_error("%s", told.text);
    } else {
        refuse(&told, 0, "rescan: %u files found, %u gone", found, gone);
        log_info("%s", told.text);
    }
    control_note(request->fs->control, NODE_ROOT, &told);
    return error;
}

/* The job that a dead worker's request started goes on by its record. */
static int control_set_call(struct request *request)
{
    struct setting setting;
    int error = parse(request, &setting);
    if (error)
        return error;
    if (request->in->nodeid == NODE_ROOT && strcmp(setting.name, CONTROL) == 0 && setting.size == strlen(RESCAN) &&
        memcmp(setting.value, RESCAN, setting.size) == 0)
        return rescan(request);
    struct origin origin = request_origin(request);
    return control_set(request->fs->control, request->in->nodeid, setting.name, setting.value, setting.size, &origin);
}

void handle_setxattr(struct request *request)
{
    struct setting setting = {0};
    int error = parse(request, &setting);
    enum kind kind = setting.name ? kind_of(setting.name) : KIND_EMPTY;
    if (!error)
        error = refusal(kind);
    if (error)
        request_reply(request, error);
    else if (kind == KIND_CONTROL)
        request_block_control(request, control_set_call, request_reply);
    else
        block(request, set_call, request_reply);
}

/* ---- REMOVEXATTR ---- */

static int remove_call(struct request *request)
{
    const char *name = request_string(request, 0, NULL);
    int error = note_presence(request, name);
    if (!error)
        error = names_remove_xattr(request->fs->catalog, request->in->nodeid, name);
    return error == -ENODATA && request->retry && request->slot->note == NOTE_PRESENT ? 0 : error;
}

void handle_removexattr(struct request *request)
{
    const char *name = request_string(request, 0, NULL);
    enum kind kind = name ? kind_of(name) : KIND_EMPTY;
    int error = kind == KIND_CONTROL ? -EPERM : refusal(kind);
    if (error)
        request_reply(request, error);
    else
        block(request, remove_call, request_reply);
}
