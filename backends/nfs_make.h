/* nfs_make: objects on the server: made once, whatever becomes of the connection; changed; removed. All block. */
#pragma once

#include "backends/nfs.h"

/* As datastore_ops.create, in a directory; owner and mode are the server's choice. An object that a call of ours made
 * before its connection died is ours. */
int nfsds_make(struct nfs *nfs, const struct nfsds_handle *directory, const char *name, const struct stat *st,
    const char *content, struct nfsds_object *out);
/* What of mask the object does not have yet; what the server refuses to us for lack of rights goes to the sidecar. */
int nfsds_change(struct nfs *nfs, const struct nfsds_object *object, const struct stat *st, unsigned mask);
/* A name that was there goes. */
int nfsds_unlink(struct nfs *nfs, const struct nfsds_handle *directory, const char *name, bool is_directory);
/* Over what is there, at once. fileid: of the object that moves. */
int nfsds_move(struct nfs *nfs, const struct nfsds_handle *from, const char *from_name, const struct nfsds_handle *to,
    const char *to_name, uint64_t fileid);
