/* nfs_codec: what a call's arguments and its answer look like on the wire (RFC 1813). Reads, writes and commits, which
 * are all that a disk's requests need, are put together here; the rest, which names need, by libnfs's codecs. Pure. */
#pragma once

#include <stddef.h>

#include "backends/nfs_rpc.h"

#define NFS_ARGUMENTS_MOST 8192 /* bytes, without a WRITE's data */

/* The procedure's number. */
uint32_t nfsds_procedure_number(enum nfsds_procedure procedure);

/* Arguments (its XXX3args), without a WRITE's data but with the data's length. The bytes written; 0: there is no room. */
size_t nfsds_encode(enum nfsds_procedure procedure, const void *arguments, uint8_t *to, size_t room);

/* An answer while it is looked at. */
struct nfsds_answer {
    ZDR zdr;
    bool by_zdr;
    union {
        nfsstat3 status;
        struct GETATTR3res getattr;
        struct SETATTR3res setattr;
        struct LOOKUP3res lookup;
        struct READLINK3res readlink;
        struct READ3res read;
        struct WRITE3res write;
        struct CREATE3res create;
        struct MKDIR3res mkdir;
        struct SYMLINK3res symlink;
        struct MKNOD3res mknod;
        struct REMOVE3res remove;
        struct RMDIR3res rmdir;
        struct RENAME3res rename;
        struct READDIRPLUS3res readdirplus;
        struct FSSTAT3res fsstat;
        struct FSINFO3res fsinfo;
        struct PATHCONF3res pathconf;
        struct COMMIT3res commit;
    } data;
};

/* A whole answer's results. What it points to lies in from, or is freed by nfsds_answer_end, which is called in any
 * case. False: it makes no sense. */
bool nfsds_decode(enum nfsds_procedure procedure, const uint8_t *from, size_t size, struct nfsds_answer *answer);
void nfsds_answer_end(struct nfsds_answer *answer);

/* The results of a READ of which there are size bytes yet: those before its data (0: not all of them are there yet).
 * data.data_len is the data's length, data_val is not set. */
size_t nfsds_decode_read(const uint8_t *from, size_t size, struct READ3res *result);
