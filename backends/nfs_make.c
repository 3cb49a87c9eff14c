/* Calls that are no longer the same when they are made twice. When a connection dies the call is sent again, and the
 * answer to the second may be of the first's doing: "is there already", "is not there". nfs_ask tells when that can be;
 * then it is looked what happened. Files need no looking: an exclusive CREATE bears a number of its own, by which the
 * server knows it again. (That the object was not made by another client is the owner's record's business.) */
#include "backends/nfs_make.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/sysmacros.h>

#define MODE_BITS 07777

/* CREATE3res, MKDIR3res, SYMLINK3res and MKNOD3res begin alike: status, handle. */
static void take_made(void *out, const void *data)
{
    const struct CREATE3resok *made = &((const struct CREATE3res *)data)->CREATE3res_u.resok;
    struct nfsds_handle *handle = out;
    handle->length = 0;
    if (made->obj.handle_follows)
        nfsds_take_handle(handle, &made->obj.post_op_fh3_u.handle);
}

static int create_file(
    struct nfs *nfs, const struct nfsds_handle *directory, const char *name, struct nfsds_handle *made, bool *again)
{
    struct CREATE3args arguments = {{nfsds_fh(directory), (char *)(uintptr_t)name}, {.mode = EXCLUSIVE}};
    if (getrandom(arguments.how.createhow3_u.verf, NFS3_CREATEVERFSIZE, 0) != NFS3_CREATEVERFSIZE)
        return -EIO;
    int error = nfsds_ask(nfs, NFS_CREATE, &arguments, take_made, made, NULL);
    if (error != -EOPNOTSUPP)
        return error;
    memset(&arguments.how, 0, sizeof(arguments.how));
    arguments.how.mode = GUARDED;
    arguments.how.createhow3_u.obj_attributes.mode = (struct set_mode3){1, {0600}};
    return nfsds_ask(nfs, NFS_CREATE, &arguments, take_made, made, again);
}

static int create_node(struct nfs *nfs, const struct nfsds_handle *directory, const char *name, const struct stat *st,
    struct nfsds_handle *made, bool *again)
{
    struct sattr3 private = {.mode = {1, {0600}}};
    struct MKNOD3args arguments = {.where = {nfsds_fh(directory), (char *)(uintptr_t)name}};
    struct devicedata3 device = {private, {major(st->st_rdev), minor(st->st_rdev)}};
    switch (st->st_mode & S_IFMT) {
    case S_IFIFO:
        arguments.what.type = NF3FIFO;
        arguments.what.mknoddata3_u.pipe_attributes = private;
        break;
    case S_IFSOCK:
        arguments.what.type = NF3SOCK;
        arguments.what.mknoddata3_u.sock_attributes = private;
        break;
    case S_IFBLK:
        arguments.what.type = NF3BLK;
        arguments.what.mknoddata3_u.blk_device = device;
        break;
    default:
        arguments.what.type = NF3CHR;
        arguments.what.mknoddata3_u.chr_device = device;
        break;
    }
    return nfsds_ask(nfs, NFS_MKNOD, &arguments, take_made, made, again);
}

static int create_any(struct nfs *nfs, const struct nfsds_handle *directory, const char *name, const struct stat *st,
    const char *content, struct nfsds_handle *made, bool *again)
{
    struct diropargs3 where = {nfsds_fh(directory), (char *)(uintptr_t)name};
    switch (st->st_mode & S_IFMT) {
    case S_IFREG:
        return create_file(nfs, directory, name, made, again);
    case S_IFDIR: {
        struct MKDIR3args arguments = {where, {.mode = {1, {0700}}}};
        return nfsds_ask(nfs, NFS_MKDIR, &arguments, take_made, made, again);
    }
    case S_IFLNK: {
        struct SYMLINK3args arguments = {where, {.symlink_data = (char *)(uintptr_t)content}};
        return content ? nfsds_ask(nfs, NFS_SYMLINK, &arguments, take_made, made, again) : -EINVAL;
    }
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFBLK:
    case S_IFCHR:
        return create_node(nfs, directory, name, st, made, again);
    default:
        return -EINVAL;
    }
}

int nfsds_make(struct nfs *nfs, const struct nfsds_handle *directory, const char *name, const struct stat *st,
    const char *content, struct nfsds_object *out)
{
    struct nfsds_handle made = {0};
    bool again = false;
    int error = create_any(nfs, directory, name, st, content, &made, &again);
    if (error == -EEXIST && again) {
        error = nfsds_look(nfs, directory, name, out);
        return error ? error : (out->st.st_mode & S_IFMT) == (st->st_mode & S_IFMT) ? 0 : -EEXIST;
    }
    if (error)
        return error;
    if (!made.length)
        return nfsds_look(nfs, directory, name, out);
    out->handle = made;
    return nfsds_getattr(nfs, &made, &out->st);
}

static int setattr(struct nfs *nfs, const struct nfsds_handle *handle, const struct sattr3 *attributes)
{
    struct SETATTR3args arguments = {nfsds_fh(handle), *attributes, {0}};
    return nfsds_ask(nfs, NFS_SETATTR, &arguments, NULL, NULL, NULL);
}

static bool is_refused(int error)
{
    return error == -EPERM || error == -EACCES;
}

/* Owner, then mode: a change of owner may clear bits of the mode. */
static int change_owner(struct nfs *nfs, const struct nfsds_object *object, const struct stat *st)
{
    struct sattr3 want = {0};
    if (st->st_uid != (uid_t)-1 && st->st_uid != object->st.st_uid)
        want.uid = (struct set_uid3){1, {st->st_uid}};
    if (st->st_gid != (gid_t)-1 && st->st_gid != object->st.st_gid)
        want.gid = (struct set_gid3){1, {st->st_gid}};
    if (!want.uid.set_it && !want.gid.set_it)
        return 0;
    int error = setattr(nfs, &object->handle, &want);
    if (is_refused(error))
        return nfsds_sidecar_set_owner(nfs, object, st);
    return error ? error : nfsds_sidecar_supersede(nfs, object, want.uid.set_it, want.gid.set_it, false);
}

static int change_mode(struct nfs *nfs, const struct nfsds_object *object, mode_t mode)
{
    struct sattr3 want = {.mode = {1, {mode & MODE_BITS}}};
    int error = setattr(nfs, &object->handle, &want);
    if (is_refused(error))
        return nfsds_sidecar_set_mode(nfs, object, mode & MODE_BITS);
    return error ? error : nfsds_sidecar_supersede(nfs, object, false, false, true);
}

static enum time_how how(const struct timespec *time)
{
    return time->tv_nsec == UTIME_NOW ? SET_TO_SERVER_TIME : SET_TO_CLIENT_TIME;
}

static int change_times(struct nfs *nfs, const struct nfsds_object *object, const struct stat *st, unsigned mask)
{
    struct sattr3 want = {0};
    if (mask & ATTRIBUTE_ATIME)
        want.atime = (struct set_atime){how(&st->st_atim), {{(u_int)st->st_atim.tv_sec, (u_int)st->st_atim.tv_nsec}}};
    if (mask & ATTRIBUTE_MTIME)
        want.mtime = (struct set_mtime){how(&st->st_mtim), {{(u_int)st->st_mtim.tv_sec, (u_int)st->st_mtim.tv_nsec}}};
    return setattr(nfs, &object->handle, &want);
}

int nfsds_change(struct nfs *nfs, const struct nfsds_object *object, const struct stat *st, unsigned mask)
{
    int error = 0;
    if (mask & ATTRIBUTE_MODE && S_ISLNK(object->st.st_mode))
        return -EOPNOTSUPP;
    if (mask & ATTRIBUTE_OWNER)
        error = change_owner(nfs, object, st);
    if (!error && mask & ATTRIBUTE_MODE)
        error = change_mode(nfs, object, st->st_mode);
    if (!error && mask & (ATTRIBUTE_ATIME | ATTRIBUTE_MTIME))
        error = change_times(nfs, object, st, mask);
    return error;
}

int nfsds_unlink(struct nfs *nfs, const struct nfsds_handle *directory, const char *name, bool is_directory)
{
    struct REMOVE3args arguments = {{nfsds_fh(directory), (char *)(uintptr_t)name}}; /* RMDIR3args is the same */
    bool again;
    int error = nfsds_ask(nfs, is_directory ? NFS_RMDIR : NFS_REMOVE, &arguments, NULL, NULL, &again);
    return error == -ENOENT && again ? 0 : error;
}

int nfsds_move(struct nfs *nfs, const struct nfsds_handle *from, const char *from_name, const struct nfsds_handle *to,
    const char *to_name, uint64_t fileid)
{
    struct RENAME3args arguments = {
        {nfsds_fh(from), (char *)(uintptr_t)from_name}, {nfsds_fh(to), (char *)(uintptr_t)to_name}};
    struct nfsds_object moved;
    bool again;
    int error = nfsds_ask(nfs, NFS_RENAME, &arguments, NULL, NULL, &again);
    if (error == -ENOENT && again && nfsds_look(nfs, to, to_name, &moved) == 0 && moved.st.st_ino == fileid)
        error = 0;
    return error;
}
