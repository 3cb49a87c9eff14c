/* Handlers of an open file's bytes.
 *
 * READ and WRITE of a disk that is open run to completion on their reactor: handle → disk → leg → reply, without an
 * allocation. A disk that is not open yet (the first request after a worker's death) is opened on the way. */
#include <errno.h>

#include "base/event.h"
#include "base/log.h"
#include "fs/handlers.h"
#include "fs/open.h"
#include "fs/step.h"

#include <fcntl.h> /* after io/lock.h, whose names it takes */

static unsigned io_flags_of(uint32_t open_flags)
{
    return open_flags & O_DIRECT ? IO_DIRECT : 0;
}

static struct open_file *file_of(const struct request *request, uint64_t fh)
{
    return open_files_by_handle(request->fs->files, fh, request->in->nodeid);
}

/* ---- OPEN ---- */

/* Everything else keeps the kernel's page cache, which it drops at each open. */
uint32_t file_open_flags(uint32_t flags)
{
    return flags & O_DIRECT ? FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES : 0;
}

static void opened(struct request *request, int error)
{
    const struct fuse_open_in *in = request->body;
    if (!error && (in->flags & O_ACCMODE) != O_RDONLY && open_files_read_only(request))
        error = -EROFS;
    int64_t fh = error ? error : open_files_add_handle(request, in->flags);
    open_files_done(request);
    if (fh < 0) {
        request_reply(request, (int)fh);
        return;
    }
    struct fuse_open_out out = {.fh = (uint64_t)fh, .open_flags = file_open_flags(in->flags)};
    request_reply_bytes(request, &out, sizeof(out));
}

void handle_open(struct request *request)
{
    struct node node;
    int error = catalog_get(request->fs->catalog, request->in->nodeid, &node);
    if (!error && !S_ISREG(node.st.st_mode))
        error = S_ISDIR(node.st.st_mode) ? -EISDIR : -EIO;
    if (error)
        request_reply(request, error);
    else
        open_files_want(request, request->in->nodeid, opened);
}

/* ---- RELEASE ---- */

static void released(struct request *request, int error)
{
    const struct fuse_release_in *in = request->body;
    if (error && error != -ENOENT)
        log_warning("node %llu: the file that was deleted while open could not be removed: %s",
            (unsigned long long)request->in->nodeid, error_text(error));
    open_files_free_handle(request->fs->files, in->fh, request->in->nodeid);
    request_reply(request, 0);
}

static int release_call(struct request *request)
{
    return names_release_orphan(request->fs->catalog, request->in->nodeid);
}

/* The entry of the session's table is freed last: a retry finds the handle as it was. */
void handle_release(struct request *request)
{
    const struct fuse_release_in *in = request->body;
    struct filesystem *fs = request->fs;
    struct node node;
    uint64_t id = request->in->nodeid;
    open_files_refresh(fs->files, id, NULL, NULL);
    bool last = open_files_drop_handle(fs->files, in->fh, id);
    if (last && catalog_get(fs->catalog, id, &node) == 0 && node.orphan)
        request_block(request, catalog_datastore(fs->catalog, node.datastore), release_call, released);
    else
        released(request, 0);
}

/* ---- READ ---- */

static void read_answered(struct disk_io *io)
{
    struct request *request = container_of(io, struct request, disk_io);
    if (io->result)
        request_reply(request, io->result);
    else
        request_reply_iov(request, request->data, request->data_count, extent_length(io->extent));
}

static void io_released(struct disk_io *io)
{
    request_drop(container_of(io, struct request, disk_io));
}

static void submit(
    struct request *request, enum verb verb, unsigned flags, struct extent extent, void (*answered)(struct disk_io *io))
{
    request->disk_io.verb = verb;
    request->disk_io.flags = flags;
    request->disk_io.extent = extent;
    request->disk_io.iov = request->data;
    request->disk_io.iov_count = request->data_count;
    request->disk_io.answered = answered;
    request->disk_io.released = io_released;
    request_hold(request);
    disk_submit(request->disk, &request->disk_io);
}

static void read_buffered(struct request *request)
{
    const struct fuse_read_in *in = request->body;
    struct extent extent = {in->offset, in->offset + request->aux[0]};
    if (request->answered)
        request_reply(request, -EIO);
    else
        submit(request, VERB_READ, io_flags_of(in->flags), extent, read_answered);
}

/* Its reference of the disk was taken when there was no buffer. */
static void read_again(struct request *request)
{
    struct disk *disk = request->disk;
    if (request_buffer(request, request->aux[0], read_again)) {
        read_buffered(request);
        disk_put(disk);
    }
}

static void read_disk(struct request *request)
{
    const struct fuse_read_in *in = request->body;
    uint64_t size = disk_size(request->disk);
    size_t length = in->size < MAX_WRITE ? in->size : MAX_WRITE;
    if (in->offset >= size)
        length = 0;
    else if (length > size - in->offset)
        length = (size_t)(size - in->offset);
    request->aux[0] = length;
    if (length == 0)
        request_reply_iov(request, NULL, 0, 0);
    else if (request_buffer(request, length, read_again))
        read_buffered(request);
    else
        disk_get(request->disk);
}

/* ---- WRITE ---- */

static void reply_written(struct request *request)
{
    const struct fuse_write_in *in = request->body;
    struct fuse_write_out out = {.size = in->size};
    request_reply_bytes(request, &out, sizeof(out));
}

static int kill_suid_call(struct request *request)
{
    struct stat st = {0};
    return names_set_attributes(request->fs->catalog, request->in->nodeid, &st, 0, true, &request->node);
}

static void kill_suid_after(struct request *request, int error)
{
    if (error)
        request_reply(request, error);
    else
        reply_written(request);
}

static void write_answered(struct disk_io *io)
{
    struct request *request = container_of(io, struct request, disk_io);
    const struct fuse_write_in *in = request->body;
    struct catalog *catalog = request->fs->catalog;
    struct node node;
    if (io->result) {
        request_reply(request, io->result);
        return;
    }
    /* Answered before: its time was over, and the handle may be gone. */
    struct open_file *file = request->answered ? NULL : file_of(request, in->fh);
    catalog_wrote(catalog, request->in->nodeid, io->extent.end, false);
    if (file)
        open_file_wrote(file);
    if (in->write_flags & FUSE_WRITE_KILL_SUIDGID && catalog_get(catalog, request->in->nodeid, &node) == 0 &&
        node.st.st_mode & (S_ISUID | S_ISGID))
        request_block(request, catalog_datastore(catalog, node.datastore), kill_suid_call, kill_suid_after);
    else
        reply_written(request);
}

static void write_disk(struct request *request)
{
    const struct fuse_write_in *in = request->body;
    size_t length = 0;
    for (int i = 0; i < request->data_count; i++)
        length += request->data[i].iov_len;
    event_at("write", in->offset);
    if (length != in->size || length == 0)
        request_reply(request, -EIO);
    else if (in->offset > INT64_MAX - length)
        request_reply(request, -EFBIG);
    else
        submit(request, VERB_WRITE, io_flags_of(in->flags), (struct extent){in->offset, in->offset + length},
            write_answered);
}

/* ---- READ and WRITE ---- */

static void transfer(struct request *request)
{
    if (request->in->opcode == FUSE_READ)
        read_disk(request);
    else
        write_disk(request);
}

static void transfer_ready(struct request *request, int error)
{
    struct disk *disk = error ? NULL : disk_get(request->disk);
    open_files_done(request);
    if (error)
        request_reply(request, error);
    else
        transfer(request);
    disk_put(disk);
}

static void handle_transfer(struct request *request, uint64_t fh)
{
    struct open_file *file = file_of(request, fh);
    if (!file) {
        request_reply(request, -EBADF);
        return;
    }
    request->disk = open_file_disk(file);
    if (!request->disk)
        open_files_want(request, request->in->nodeid, transfer_ready);
    else if (request_account(request, disk_datastore(request->disk)->index))
        transfer(request);
    else
        request_reply(request, -EIO);
}

void handle_read(struct request *request)
{
    handle_transfer(request, ((const struct fuse_read_in *)request->body)->fh);
}

void handle_write(struct request *request)
{
    handle_transfer(request, ((const struct fuse_write_in *)request->body)->fh);
}

/* ---- FSYNC ---- */

static void flushed(struct request *request, const struct disk_io *io)
{
    open_files_done(request);
    open_files_refresh(request->fs->files, request->in->nodeid, NULL, NULL);
    request_reply(request, io->result);
}

static void flush(struct request *request, int error)
{
    const struct fuse_fsync_in *in = request->body;
    if (error) {
        open_files_done(request);
        request_reply(request, error);
        return;
    }
    step_disk(
        request, VERB_FLUSH, in->fsync_flags & FUSE_FSYNC_FDATASYNC ? IO_DATA_ONLY : 0, (struct extent){0, 0}, flushed);
}

void handle_fsync(struct request *request)
{
    open_files_want(request, request->in->nodeid, flush);
}
