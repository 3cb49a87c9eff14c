/* Handlers that take names away: UNLINK, RMDIR, RENAME. A file that is open stays, without a name; what the kernel may
 * still hold of anything else stays in fs/removed. A job on a file that lost its name is cancelled. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "fs/handlers.h"
#include "fs/open.h"
#include "fs/removed.h"

struct names {
    const char *name, *new_name;
    uint64_t new_parent;
    unsigned flags;
};

static int parse(const struct request *request, struct names *names)
{
    const struct fuse_rename_in *rename = request->body;
    const struct fuse_rename2_in *rename2 = request->body;
    size_t next = 0;
    *names = (struct names){0};
    if (request->in->opcode == FUSE_RENAME) {
        names->new_parent = rename->newdir;
        next = sizeof(*rename);
    } else if (request->in->opcode == FUSE_RENAME2) {
        names->new_parent = rename2->newdir;
        names->flags = rename2->flags;
        next = sizeof(*rename2);
    }
    names->name = request_string(request, next, &next);
    if (names->name && names->new_parent)
        names->new_name = request_string(request, next, NULL);
    return names->name && (names->new_name || !names->new_parent) ? 0 : -EINVAL;
}

/* The last handle may have gone while the name went: then nobody else lets the orphan go. */
static void release_unused(struct filesystem *fs, uint64_t id)
{
    struct node node;
    if (catalog_get(fs->catalog, id, &node) < 0 || !node.orphan || open_files_is_open(fs->files, id))
        return;
    int error = names_release_orphan(fs->catalog, id);
    if (error && error != -ENOENT)
        log_warning("node %llu: the deleted file could not be removed: %s", (unsigned long long)id, error_text(error));
}

static int take_away(struct request *request, const struct names *names, struct open_victim *victim)
{
    struct catalog *catalog = request->fs->catalog;
    struct origin origin = request_origin(request);
    uint64_t parent = request->in->nodeid;
    switch (request->in->opcode) {
    case FUSE_UNLINK:
        return names_unlink(catalog, &origin, parent, names->name, open_files_keep, victim, &request->aux[0]);
    case FUSE_RMDIR:
        return names_rmdir(catalog, &origin, parent, names->name);
    default:
        return names_rename(catalog, &origin, parent, names->name, names->new_parent, names->new_name, names->flags,
            open_files_keep, victim, &request->aux[0]);
    }
}

/* aux[0]: the id whose name went, when a job may have to be cancelled for it. */
static int call(struct request *request)
{
    struct filesystem *fs = request->fs;
    struct open_victim victim = {fs->files, 0};
    struct names names;
    struct node gone;
    int error = parse(request, &names);
    if (error)
        return error;
    bool replaces = names.new_parent != 0;
    bool known = catalog_lookup(fs->catalog, replaces ? names.new_parent : request->in->nodeid,
                     replaces ? names.new_name : names.name, &gone) == 0;
    if (known)
        removed_add(fs->handlers->removed, &gone);
    request->aux[0] = 0;
    error = take_away(request, &names, &victim);
    open_files_settle(&victim);
    if (known && error)
        removed_forget(fs->handlers->removed, gone.id);
    if (!error && request->aux[0])
        release_unused(fs, request->aux[0]);
    if (known && !S_ISREG(gone.st.st_mode) && request->aux[0] == gone.id)
        request->aux[0] = 0;
    return error;
}

static int cancel_call(struct request *request)
{
    control_unlinked(request->fs->control, request->aux[0]);
    return 0;
}

static void after(struct request *request, int error)
{
    if (!error && request->aux[0])
        request_block_control(request, cancel_call, request_reply);
    else
        request_reply(request, error);
}

/* The pool of the datastore that is concerned; the mount's where it may be more than one. */
static void start(struct request *request, const struct node *node, const struct node *other)
{
    struct catalog *catalog = request->fs->catalog;
    bool several = S_ISDIR(node->st.st_mode) || (other && other->datastore != node->datastore);
    if (several && catalog_datastore_count(catalog) > 1)
        request_block_control(request, call, after);
    else
        request_block(request, catalog_datastore(catalog, node->datastore), call, after);
}

static void handle(struct request *request)
{
    struct catalog *catalog = request->fs->catalog;
    struct names names;
    struct node node, other;
    int error = parse(request, &names);
    if (!error && names.flags & ~(unsigned)RENAME_NOREPLACE)
        error = -EINVAL;
    if (error) {
        request_reply(request, error);
        return;
    }
    /* A name that is not there may have been taken away by a worker that died: names.h knows. */
    if (catalog_lookup(catalog, request->in->nodeid, names.name, &node) < 0 &&
        (error = catalog_get(catalog, request->in->nodeid, &node)) < 0) {
        request_reply(request, error);
        return;
    }
    bool replaces = names.new_parent && catalog_lookup(catalog, names.new_parent, names.new_name, &other) == 0;
    start(request, &node, replaces ? &other : NULL);
}

void handle_unlink(struct request *request)
{
    handle(request);
}

void handle_rmdir(struct request *request)
{
    handle(request);
}

void handle_rename(struct request *request)
{
    handle(request);
}

/* RENAME_NOREPLACE alone: EXCHANGE and WHITEOUT are EINVAL. */
void handle_rename2(struct request *request)
{
    handle(request);
}
