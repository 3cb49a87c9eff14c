#include "backends/nfs_rpc.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/sysmacros.h>

/* libnfs 6 gives calls as tasks. */
int nfsds_rpc_mount(struct rpc_context *rpc, char *path, rpc_cb answered, void *private_data)
{
#ifdef HAVE_NFS_TASKS
    return rpc_mount3_mnt_task(rpc, answered, path, private_data) ? 0 : -ENOMEM;
#else
    return rpc_mount3_mnt_async(rpc, answered, path, private_data) < 0 ? -ENOMEM : 0;
#endif
}

int nfsds_rpc_port(struct rpc_context *rpc, int program, int version, rpc_cb answered, void *private_data)
{
#ifdef HAVE_NFS_TASKS
    return rpc_pmap2_getport_task(rpc, program, version, IPPROTO_TCP, answered, private_data) ? 0 : -ENOMEM;
#else
    return rpc_pmap2_getport_async(rpc, program, version, IPPROTO_TCP, answered, private_data) < 0 ? -ENOMEM : 0;
#endif
}

bool nfsds_rpc_changes(enum nfsds_procedure procedure)
{
    switch (procedure) {
    case NFS_SETATTR:
    case NFS_WRITE:
    case NFS_CREATE:
    case NFS_MKDIR:
    case NFS_SYMLINK:
    case NFS_MKNOD:
    case NFS_REMOVE:
    case NFS_RMDIR:
    case NFS_RENAME:
        return true;
    case NFS_GETATTR:
    case NFS_LOOKUP:
    case NFS_READLINK:
    case NFS_READ:
    case NFS_READDIRPLUS:
    case NFS_FSSTAT:
    case NFS_FSINFO:
    case NFS_PATHCONF:
    case NFS_COMMIT:
        return false;
    }
    return true;
}

int nfsds_rpc_error(int status)
{
    switch (status) {
    case NFS3_OK:
        return 0;
    case NFS3ERR_PERM:
        return -EPERM;
    case NFS3ERR_NOENT:
        return -ENOENT;
    case NFS3ERR_NXIO:
        return -ENXIO;
    case NFS3ERR_ACCES:
        return -EACCES;
    case NFS3ERR_EXIST:
        return -EEXIST;
    case NFS3ERR_XDEV:
        return -EXDEV;
    case NFS3ERR_NODEV:
        return -ENODEV;
    case NFS3ERR_NOTDIR:
        return -ENOTDIR;
    case NFS3ERR_ISDIR:
        return -EISDIR;
    case NFS3ERR_INVAL:
    case NFS3ERR_BADTYPE:
        return -EINVAL;
    case NFS3ERR_FBIG:
        return -EFBIG;
    case NFS3ERR_NOSPC:
        return -ENOSPC;
    case NFS3ERR_ROFS:
        return -EROFS;
    case NFS3ERR_MLINK:
        return -EMLINK;
    case NFS3ERR_NAMETOOLONG:
        return -ENAMETOOLONG;
    case NFS3ERR_NOTEMPTY:
        return -ENOTEMPTY;
    case NFS3ERR_DQUOT:
        return -EDQUOT;
    case NFS3ERR_STALE:
    case NFS3ERR_BADHANDLE:
        return -ESTALE;
    case NFS3ERR_NOTSUPP:
        return -EOPNOTSUPP;
    case NFS3ERR_BAD_COOKIE:
        return -EAGAIN;
    default:
        return -EIO;
    }
}

bool nfsds_rpc_is_transient(int status)
{
    return status == NFS3ERR_JUKEBOX || status == NFS3ERR_SERVERFAULT;
}

void nfsds_rpc_stat(const struct fattr3 *from, struct stat *out)
{
    static const mode_t types[] = {[NF3REG] = S_IFREG,
        [NF3DIR] = S_IFDIR,
        [NF3BLK] = S_IFBLK,
        [NF3CHR] = S_IFCHR,
        [NF3LNK] = S_IFLNK,
        [NF3SOCK] = S_IFSOCK,
        [NF3FIFO] = S_IFIFO};
    unsigned type = (unsigned)from->type;
    memset(out, 0, sizeof(*out));
    out->st_ino = from->fileid;
    out->st_dev = from->fsid;
    out->st_mode = (type < sizeof(types) / sizeof(types[0]) ? types[type] : 0) | (from->mode & 07777);
    out->st_nlink = from->nlink;
    out->st_uid = from->uid;
    out->st_gid = from->gid;
    out->st_size = (off_t)from->size;
    out->st_blksize = 4096;
    out->st_blocks = (blkcnt_t)((from->used + 511) / 512);
    out->st_rdev = makedev(from->rdev.specdata1, from->rdev.specdata2);
    out->st_atim = (struct timespec){from->atime.seconds, (long)from->atime.nseconds};
    out->st_mtim = (struct timespec){from->mtime.seconds, (long)from->mtime.nseconds};
    out->st_ctim = (struct timespec){from->ctime.seconds, (long)from->ctime.nseconds};
}
