/* nfs_rpc: the one door to libnfs: its headers, its calls by number, and what differs between its versions.
 *
 * libnfs's names begin with nfs_; ours, in all files of this backend, with nfsds_ (NFS datastore). */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <nfsc/libnfs.h>
#include <nfsc/libnfs-zdr.h>
#include <nfsc/libnfs-raw.h>
#include <nfsc/libnfs-raw-mount.h>
#include <nfsc/libnfs-raw-nfs.h>
#include <nfsc/libnfs-raw-portmap.h>

enum nfsds_procedure {
    NFS_GETATTR,
    NFS_SETATTR,
    NFS_LOOKUP,
    NFS_READLINK,
    NFS_READ,
    NFS_WRITE,
    NFS_CREATE,
    NFS_MKDIR,
    NFS_SYMLINK,
    NFS_MKNOD,
    NFS_REMOVE,
    NFS_RMDIR,
    NFS_RENAME,
    NFS_READDIRPLUS,
    NFS_FSSTAT,
    NFS_FSINFO,
    NFS_PATHCONF,
    NFS_COMMIT,
};

/* MOUNT of a path; the answer's data is a mountres3. The port of a program, by TCP; the answer's data is a uint32_t. */
int nfsds_rpc_mount(struct rpc_context *rpc, char *path, rpc_cb answered, void *private_data);
int nfsds_rpc_port(struct rpc_context *rpc, int program, int version, rpc_cb answered, void *private_data);

/* Does it change anything on the server? COMMIT does not: it only makes durable. */
bool nfsds_rpc_changes(enum nfsds_procedure procedure);

/* nfsstat3 → 0 or -errno. */
int nfsds_rpc_error(int status);
/* The server asks to be asked again later. */
bool nfsds_rpc_is_transient(int status);

/* Attributes as a stat; st_ino is the fileid. */
void nfsds_rpc_stat(const struct fattr3 *from, struct stat *out);
