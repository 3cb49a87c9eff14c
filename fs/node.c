/* Handlers of one node's attributes. What the catalog knows is answered at once; what changes a datastore runs on its
 * pool. */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "fs/attr.h"
#include "fs/handlers.h"
#include "fs/open.h"
#include "fs/removed.h"
#include "fs/step.h"

void fill_entry(struct filesystem *fs, const struct node *node, struct fuse_entry_out *out)
{
    struct node now = *node;
    bool settled = open_files_attributes(fs->files, &now);
    attr_entry(out, &now, settled);
}

void reply_entry(struct request *request, const struct node *node, bool changes)
{
    struct fuse_entry_out out;
    fill_entry(request->fs, node, &out);
    struct iovec iov = {&out, sizeof(out)};
    if (changes)
        request_reply_bytes(request, &out, sizeof(out));
    else
        request_reply_iov(request, &iov, 1, sizeof(out));
}

static void reply_attributes(struct request *request, struct node *node, bool changes)
{
    struct fuse_attr_out out;
    bool settled = open_files_attributes(request->fs->files, node);
    attr_answer(&out, node, settled);
    struct iovec iov = {&out, sizeof(out)};
    if (changes)
        request_reply_bytes(request, &out, sizeof(out));
    else
        request_reply_iov(request, &iov, 1, sizeof(out));
}

void handle_lookup(struct request *request)
{
    struct catalog *catalog = request->fs->catalog;
    const char *name = request_string(request, 0, NULL);
    uint64_t parent = request->in->nodeid;
    struct node node;
    int error = -EINVAL;
    if (name && (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)) {
        error = catalog_get(catalog, parent, &node);
        if (!error && name[1] == '.')
            error = catalog_get(catalog, node.parent, &node);
    } else if (name) {
        error = catalog_lookup(catalog, parent, name, &node);
    }
    if (error)
        request_reply(request, error);
    else
        reply_entry(request, &node, false);
}

static void getattr_recorded(struct request *request, int ignored)
{
    struct node node;
    int error = catalog_get(request->fs->catalog, request->in->nodeid, &node);
    if (error == -ENOENT)
        error = removed_get(request->fs->handlers->removed, request->in->nodeid, &node);
    if (error)
        request_reply(request, error);
    else
        reply_attributes(request, &node, false);
}

static int getattr_call(struct request *request)
{
    return names_refresh(request->fs->catalog, request->in->nodeid, &request->node);
}

void handle_getattr(struct request *request)
{
    struct filesystem *fs = request->fs;
    struct node node;
    int error = catalog_get(fs->catalog, request->in->nodeid, &node);
    struct datastore *datastore = error ? NULL : catalog_datastore(fs->catalog, node.datastore);
    if (!error && !node.known && !atomic_load(&datastore->away))
        request_block(request, datastore, getattr_call, getattr_recorded);
    else if (error || !open_files_refresh(fs->files, node.id, request, getattr_recorded))
        getattr_recorded(request, 0);
}

static const struct fuse_setattr_in *setattr_in(const struct request *request)
{
    return request->body;
}

/* The size is set. What it changed of the times and the blocks is the datastore's to say. */
static int setattr_call(struct request *request)
{
    const struct fuse_setattr_in *in = setattr_in(request);
    struct catalog *catalog = request->fs->catalog;
    struct stat st;
    unsigned mask = attr_changes(in, &st);
    bool kill = in->valid & FATTR_KILL_SUIDGID;
    if (mask || kill)
        return names_set_attributes(catalog, request->in->nodeid, &st, mask, kill, &request->node);
    if (names_refresh(catalog, request->in->nodeid, &request->node) == 0)
        return 0;
    return catalog_get(catalog, request->in->nodeid, &request->node);
}

static void setattr_after(struct request *request, int error)
{
    if (error)
        request_reply(request, error);
    else
        reply_attributes(request, &request->node, true);
}

static void setattr_names(struct request *request)
{
    struct catalog *catalog = request->fs->catalog;
    struct node node;
    int error = catalog_get(catalog, request->in->nodeid, &node);
    if (error || request->answered)
        request_reply(request, error ? error : -EIO);
    else
        request_block(request, catalog_datastore(catalog, node.datastore), setattr_call, setattr_after);
}

static void resized(struct request *request, const struct disk_io *io)
{
    open_files_done(request);
    if (io->result) {
        request_reply(request, io->result);
        return;
    }
    catalog_wrote(request->fs->catalog, request->in->nodeid, io->extent.end, true);
    setattr_names(request);
}

static void resize(struct request *request, int error)
{
    uint64_t size = setattr_in(request)->size;
    if (!error && size > INT64_MAX)
        error = -EFBIG;
    if (!error && open_files_read_only(request))
        error = -EROFS;
    if (error) {
        open_files_done(request);
        request_reply(request, error);
        return;
    }
    step_disk(request, VERB_RESIZE, 0, (struct extent){0, size}, resized);
}

static void setattr_removed(struct request *request)
{
    struct stat st;
    unsigned mask = attr_changes(setattr_in(request), &st);
    int error = removed_change(request->fs->handlers->removed, request->in->nodeid, &st, mask, &request->node);
    setattr_after(request, error);
}

void handle_setattr(struct request *request)
{
    struct node node;
    int error = catalog_get(request->fs->catalog, request->in->nodeid, &node);
    if (error == -ENOENT)
        setattr_removed(request);
    else if (error)
        request_reply(request, error);
    else if (!(setattr_in(request)->valid & FATTR_SIZE))
        setattr_names(request);
    else if (!S_ISREG(node.st.st_mode))
        request_reply(request, S_ISDIR(node.st.st_mode) ? -EISDIR : -EINVAL);
    else
        open_files_want(request, request->in->nodeid, resize);
}

/* Look-ups are not counted (a FORGET can be lost with a worker): only what has no name any more is let go. */
void handle_forget(struct request *request)
{
    removed_forget(request->fs->handlers->removed, request->in->nodeid);
    request_no_reply(request);
}

void handle_batch_forget(struct request *request)
{
    const struct fuse_batch_forget_in *in = request->body;
    const struct fuse_forget_one *one = (const void *)(in + 1);
    size_t room = (request->body_length - sizeof(*in)) / sizeof(*one);
    for (size_t i = 0; i < in->count && i < room; i++)
        removed_forget(request->fs->handlers->removed, one[i].nodeid);
    request_no_reply(request);
}

void handle_readlink(struct request *request)
{
    char target[PATH_MAX];
    int error = catalog_readlink(request->fs->catalog, request->in->nodeid, target);
    if (error) {
        request_reply(request, error);
        return;
    }
    struct iovec iov = {target, strlen(target)};
    request_reply_iov(request, &iov, 1, iov.iov_len);
}

/* The kernel has checked (default_permissions). */
void handle_access(struct request *request)
{
    struct node node;
    request_reply(request, catalog_get(request->fs->catalog, request->in->nodeid, &node));
}
