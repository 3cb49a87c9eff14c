#include "fs/verbs.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdlib.h>

#include "fs/handlers.h"

#define SERVED(op, length, function) [FUSE_##op] = {FUSE_##op, #op, VERB_SERVED, 0, length, function}
#define ANSWERED(op, code)           [FUSE_##op] = {FUSE_##op, #op, VERB_ANSWERED, code, 0, NULL}
#define SILENT(op)                   [FUSE_##op] = {FUSE_##op, #op, VERB_SILENT, 0, 0, NULL}
#define UNKNOWN(op)                  [FUSE_##op] = {FUSE_##op, #op, VERB_ENOSYS, 0, 0, NULL}

static const struct fuse_verb verbs[] = {
    /* names and attributes */
    SERVED(LOOKUP, 1, handle_lookup),
    SERVED(FORGET, sizeof(struct fuse_forget_in), handle_forget),
    SERVED(BATCH_FORGET, sizeof(struct fuse_batch_forget_in), handle_batch_forget),
    SERVED(GETATTR, 0, handle_getattr),
    SERVED(SETATTR, sizeof(struct fuse_setattr_in), handle_setattr),
    SERVED(READLINK, 0, handle_readlink),
    SERVED(STATFS, 0, handle_statfs),
    SERVED(ACCESS, sizeof(struct fuse_access_in), handle_access),
    SERVED(MKNOD, sizeof(struct fuse_mknod_in) + 1, handle_mknod),
    SERVED(MKDIR, sizeof(struct fuse_mkdir_in) + 1, handle_mkdir),
    SERVED(SYMLINK, 2, handle_symlink),
    SERVED(UNLINK, 1, handle_unlink),
    SERVED(RMDIR, 1, handle_rmdir),
    SERVED(RENAME, sizeof(struct fuse_rename_in) + 2, handle_rename),
    SERVED(RENAME2, sizeof(struct fuse_rename2_in) + 2, handle_rename2),
    ANSWERED(LINK, -EPERM), /* a second name could not follow a move */
    SERVED(SETXATTR, FUSE_COMPAT_SETXATTR_IN_SIZE + 1, handle_setxattr),
    SERVED(GETXATTR, sizeof(struct fuse_getxattr_in) + 1, handle_getxattr),
    SERVED(LISTXATTR, sizeof(struct fuse_getxattr_in), handle_listxattr),
    SERVED(REMOVEXATTR, 1, handle_removexattr),
    /* open files */
    SERVED(OPEN, sizeof(struct fuse_open_in), handle_open),
    SERVED(CREATE, sizeof(struct fuse_create_in) + 1, handle_create),
    SERVED(READ, sizeof(struct fuse_read_in), handle_read),
    SERVED(WRITE, sizeof(struct fuse_write_in), handle_write),
    SERVED(FSYNC, sizeof(struct fuse_fsync_in), handle_fsync),
    SERVED(FALLOCATE, sizeof(struct fuse_fallocate_in), handle_fallocate),
    SERVED(LSEEK, sizeof(struct fuse_lseek_in), handle_lseek),
    SERVED(RELEASE, sizeof(struct fuse_release_in), handle_release),
    ANSWERED(FLUSH, 0), /* close(2): nothing is held back here; an ENOSYS would be latched */
    ANSWERED(IOCTL, -ENOTTY),
    ANSWERED(TMPFILE, -EOPNOTSUPP),
    ANSWERED(SYNCFS, -EOPNOTSUPP), /* not sent to such a mount; 0 would claim a flush that was not made */
    /* open directories */
    SERVED(OPENDIR, sizeof(struct fuse_open_in), handle_opendir),
    SERVED(READDIR, sizeof(struct fuse_read_in), handle_readdir),
    SERVED(READDIRPLUS, sizeof(struct fuse_read_in), handle_readdirplus),
    SERVED(FSYNCDIR, sizeof(struct fuse_fsync_in), handle_fsyncdir),
    SERVED(RELEASEDIR, sizeof(struct fuse_release_in), handle_releasedir),
    /* locks stay with the kernel: not negotiated, not sent */
    ANSWERED(GETLK, -EOPNOTSUPP),
    ANSWERED(SETLK, -EOPNOTSUPP),
    ANSWERED(SETLKW, -EOPNOTSUPP),
    /* the connection's own */
    ANSWERED(INIT, -EIO), /* the keeper's, never a worker's */
    ANSWERED(DESTROY, 0),
    SILENT(INTERRUPT), /* a request ends by its answer or its datastore's timeout */
    SILENT(NOTIFY_REPLY),
    /* virtiofs */
    ANSWERED(SETUPMAPPING, -EOPNOTSUPP),
    ANSWERED(REMOVEMAPPING, -EOPNOTSUPP),
    /* the kernel has its own way without them */
    UNKNOWN(BMAP),
    UNKNOWN(POLL),
    UNKNOWN(COPY_FILE_RANGE),
    [VERB_STATX] = {VERB_STATX, "STATX", VERB_ENOSYS, 0, 0, NULL},
    [VERB_COPY_FILE_RANGE_64] = {VERB_COPY_FILE_RANGE_64, "COPY_FILE_RANGE_64", VERB_ENOSYS, 0, 0, NULL},
};

static const struct fuse_verb nobody_knows = {0, "?", VERB_ANSWERED, -EOPNOTSUPP, 0, NULL};

const struct fuse_verb *verb_of(uint32_t opcode)
{
    if (opcode < sizeof(verbs) / sizeof(verbs[0]) && verbs[opcode].name)
        return &verbs[opcode];
    return &nobody_knows;
}

bool verb_may_be_enosys(uint32_t opcode)
{
    return verb_of(opcode)->decision == VERB_ENOSYS;
}

void request_dispatch(struct request *request)
{
    const struct fuse_verb *verb = verb_of(request->in->opcode);
    switch (verb->decision) {
    case VERB_SERVED:
        if (request->body_length >= verb->body)
            verb->handle(request);
        else
            request_reply(request, -EIO);
        return;
    case VERB_ANSWERED:
        request_reply(request, verb->error);
        return;
    case VERB_SILENT:
        request_no_reply(request);
        return;
    case VERB_ENOSYS:
        request_reply_enosys(request);
        return;
    }
    abort();
}
