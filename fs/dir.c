/* Handlers that make names. Each is one call of catalog/names.h on the pool of the directory's home datastore. */
#include <errno.h>
#include <string.h>

#include "fs/attr.h"
#include "fs/handlers.h"
#include "fs/open.h"

#include <fcntl.h> /* after io/lock.h, whose names it takes */

/* What the new node is to be. 0 or -EINVAL for a body that is not whole. */
static int parse(const struct request *request, struct stat *st, const char **name, const char **content)
{
    const struct fuse_mknod_in *mknod = request->body;
    const struct fuse_mkdir_in *mkdir = request->body;
    const struct fuse_create_in *create = request->body;
    size_t next = 0;
    memset(st, 0, sizeof(*st));
    st->st_uid = request->in->uid;
    st->st_gid = request->in->gid;
    *content = NULL;
    switch (request->in->opcode) {
    case FUSE_MKNOD:
        st->st_mode = mknod->mode & ~(mknod->umask & 0777);
        st->st_rdev = attr_decode_device(mknod->rdev);
        *name = request_string(request, sizeof(*mknod), NULL);
        break;
    case FUSE_MKDIR:
        st->st_mode = S_IFDIR | (mkdir->mode & 07777 & ~(mkdir->umask & 0777));
        *name = request_string(request, sizeof(*mkdir), NULL);
        break;
    case FUSE_CREATE:
        st->st_mode = S_IFREG | (create->mode & 07777 & ~(create->umask & 0777));
        *name = request_string(request, sizeof(*create), NULL);
        break;
    default:
        st->st_mode = S_IFLNK | 0777;
        *name = request_string(request, 0, &next);
        *content = *name ? request_string(request, next, NULL) : NULL;
        return *content ? 0 : -EINVAL;
    }
    return *name ? 0 : -EINVAL;
}

static int make_call(struct request *request)
{
    struct origin origin = request_origin(request);
    struct stat st;
    const char *name, *content;
    int error = parse(request, &st, &name, &content);
    if (error)
        return error;
    return names_create(request->fs->catalog, &origin, request->in->nodeid, name, &st, content, &request->node);
}

static void make_after(struct request *request, int error)
{
    if (error)
        request_reply(request, error);
    else
        reply_entry(request, &request->node, true);
}

static void make(struct request *request, int (*call)(struct request *), void (*after)(struct request *, int))
{
    struct catalog *catalog = request->fs->catalog;
    struct node parent;
    int error = catalog_get(catalog, request->in->nodeid, &parent);
    if (error)
        request_reply(request, error);
    else
        request_block(request, catalog_datastore(catalog, parent.datastore), call, after);
}

void handle_mknod(struct request *request)
{
    make(request, make_call, make_after);
}

void handle_mkdir(struct request *request)
{
    make(request, make_call, make_after);
}

void handle_symlink(struct request *request)
{
    make(request, make_call, make_after);
}

/* The kernel looked before it asked; what came in between (a rescan) is opened unless O_EXCL forbids it. */
static int create_call(struct request *request)
{
    const struct fuse_create_in *in = request->body;
    int error = make_call(request);
    if (error != -EEXIST || in->flags & O_EXCL)
        return error;
    const char *name = request_string(request, sizeof(*in), NULL);
    error = catalog_lookup(request->fs->catalog, request->in->nodeid, name, &request->node);
    return !error && !S_ISREG(request->node.st.st_mode) ? -EEXIST : error;
}

static void created_opened(struct request *request, int error)
{
    const struct fuse_create_in *in = request->body;
    struct {
        struct fuse_entry_out entry;
        struct fuse_open_out open;
    } out;
    int64_t fh = error ? error : open_files_add_handle(request, in->flags);
    open_files_done(request);
    if (fh < 0) {
        request_reply(request, (int)fh);
        return;
    }
    fill_entry(request->fs, &request->node, &out.entry);
    out.open = (struct fuse_open_out){.fh = (uint64_t)fh, .open_flags = file_open_flags(in->flags)};
    request_reply_bytes(request, &out, sizeof(out));
}

static void create_after(struct request *request, int error)
{
    if (error || request->answered)
        request_reply(request, error ? error : -EIO);
    else
        open_files_want(request, request->node.id, created_opened);
}

void handle_create(struct request *request)
{
    make(request, create_call, create_after);
}
