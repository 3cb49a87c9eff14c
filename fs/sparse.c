/* Handlers of FALLOCATE and LSEEK: several verbs on the disk for one request, each when the one before is answered. */
#include "fs/sparse.h"

#include <errno.h>
#include <unistd.h>

#include "fs/handlers.h"
#include "fs/open.h"
#include "fs/step.h"

#include <fcntl.h> /* after io/lock.h, whose names it takes */
#include <linux/falloc.h>

/* ---- FALLOCATE ---- */

int sparse_plan(uint32_t mode, uint64_t offset, uint64_t length, uint64_t size, struct sparse_step steps[SPARSE_STEPS])
{
    const uint32_t keep = FALLOC_FL_KEEP_SIZE, punch = FALLOC_FL_PUNCH_HOLE, zero = FALLOC_FL_ZERO_RANGE;
    if (mode != 0 && mode != keep && mode != (punch | keep) && mode != zero && mode != (zero | keep))
        return -EOPNOTSUPP;
    if (length == 0 || offset > INT64_MAX || length > INT64_MAX)
        return -EINVAL;
    if (length > INT64_MAX - offset)
        return -EFBIG;
    struct extent whole = {offset, offset + length}, inside = extent_intersect(whole, (struct extent){0, size});
    unsigned unmap = mode & punch ? IO_MAY_UNMAP : 0;
    int count = 0;
    if (!(mode & punch))
        steps[count++] = (struct sparse_step){VERB_ALLOCATE, 0, whole};
    if (mode & (punch | zero) && !extent_empty(inside))
        steps[count++] = (struct sparse_step){VERB_ZERO, unmap, inside};
    if (!(mode & keep) && whole.end > size)
        steps[count++] = (struct sparse_step){VERB_RESIZE, 0, {0, whole.end}};
    return count;
}

/* What the steps changed of the blocks and the times is the datastore's to say; they stand without it. */
static int fallocate_call(struct request *request)
{
    struct catalog *catalog = request->fs->catalog;
    uint64_t id = request->in->nodeid;
    struct node node;
    struct stat st = {0};
    if (request->in->uid != 0 && catalog_get(catalog, id, &node) == 0 && node.st.st_mode & (S_ISUID | S_ISGID))
        return names_set_attributes(catalog, id, &st, 0, true, &node);
    names_refresh(catalog, id, &node);
    return 0;
}

static void fallocate_next(struct request *request);

static void fallocate_stepped(struct request *request, const struct disk_io *io)
{
    if (io->result || request->answered) {
        open_files_done(request);
        request_reply(request, io->result ? io->result : -EIO);
        return;
    }
    if (io->verb == VERB_RESIZE)
        catalog_wrote(request->fs->catalog, request->in->nodeid, io->extent.end, false);
    request->aux[0]++;
    fallocate_next(request);
}

/* aux[0]: steps done; aux[1]: the size at the start, by which all steps are planned. */
static void fallocate_next(struct request *request)
{
    const struct fuse_fallocate_in *in = request->body;
    struct catalog *catalog = request->fs->catalog;
    struct sparse_step steps[SPARSE_STEPS];
    struct node node;
    int count = sparse_plan(in->mode, in->offset, in->length, request->aux[1], steps);
    if (count > 0 && (int)request->aux[0] < count) {
        const struct sparse_step *step = &steps[request->aux[0]];
        step_disk(request, step->verb, step->flags, step->extent, fallocate_stepped);
        return;
    }
    int error = count < 0 ? count : catalog_get(catalog, request->in->nodeid, &node);
    open_files_done(request);
    if (error)
        request_reply(request, error);
    else
        request_block(request, catalog_datastore(catalog, node.datastore), fallocate_call, request_reply);
}

static void fallocate_ready(struct request *request, int error)
{
    if (!error && open_files_read_only(request))
        error = -EROFS;
    if (error) {
        open_files_done(request);
        request_reply(request, error);
        return;
    }
    request->aux[0] = 0;
    request->aux[1] = disk_size(request->disk);
    fallocate_next(request);
}

void handle_fallocate(struct request *request)
{
    open_files_want(request, request->in->nodeid, fallocate_ready);
}

/* ---- LSEEK ---- */

static void reply_offset(struct request *request, int error, uint64_t offset)
{
    struct fuse_lseek_out out = {.offset = offset};
    struct iovec iov = {&out, sizeof(out)};
    open_files_done(request);
    if (error)
        request_reply(request, error);
    else
        request_reply_iov(request, &iov, 1, sizeof(out));
}

static void seek_from(struct request *request, uint64_t offset);

static void mapped(struct request *request, const struct disk_io *io)
{
    const struct fuse_lseek_in *in = request->body;
    if (io->result || request->answered)
        reply_offset(request, io->result ? io->result : -EIO, 0);
    else if (io->map_data == (in->whence == SEEK_DATA))
        reply_offset(request, 0, io->extent.start);
    else
        seek_from(request, io->extent.end);
}

/* Behind the last data a hole begins, at the latest at the end. */
static void seek_from(struct request *request, uint64_t offset)
{
    const struct fuse_lseek_in *in = request->body;
    uint64_t size = disk_size(request->disk);
    if (offset < size)
        step_disk(request, VERB_MAP, 0, (struct extent){offset, size}, mapped);
    else if (in->whence == SEEK_HOLE && in->offset < size)
        reply_offset(request, 0, size);
    else
        reply_offset(request, -ENXIO, 0);
}

static void seek_ready(struct request *request, int error)
{
    const struct fuse_lseek_in *in = request->body;
    if (error)
        reply_offset(request, error, 0);
    else
        seek_from(request, in->offset);
}

void handle_lseek(struct request *request)
{
    const struct fuse_lseek_in *in = request->body;
    if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
        request_reply(request, -EINVAL);
    else
        open_files_want(request, request->in->nodeid, seek_ready);
}
