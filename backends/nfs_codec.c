#include "backends/nfs_codec.h"

#include <endian.h>
#include <string.h>

/* Name, number, name of the member of struct nfsds_answer. */
#define PROCEDURES(X)                                                                                                  \
    X(GETATTR, 1, getattr)                                                                                             \
    X(SETATTR, 2, setattr)                                                                                             \
    X(LOOKUP, 3, lookup)                                                                                               \
    X(READLINK, 5, readlink)                                                                                           \
    X(READ, 6, read)                                                                                                   \
    X(WRITE, 7, write)                                                                                                 \
    X(CREATE, 8, create)                                                                                               \
    X(MKDIR, 9, mkdir)                                                                                                 \
    X(SYMLINK, 10, symlink)                                                                                            \
    X(MKNOD, 11, mknod)                                                                                                \
    X(REMOVE, 12, remove)                                                                                              \
    X(RMDIR, 13, rmdir)                                                                                                \
    X(RENAME, 14, rename)                                                                                              \
    X(READDIRPLUS, 17, readdirplus)                                                                                    \
    X(FSSTAT, 18, fsstat)                                                                                              \
    X(FSINFO, 19, fsinfo)                                                                                              \
    X(PATHCONF, 20, pathconf)                                                                                          \
    X(COMMIT, 21, commit)

#define PRE_ATTRIBUTES  24 /* bytes of a wcc_attr */
#define POST_ATTRIBUTES 84 /* of a fattr3 */

uint32_t nfsds_procedure_number(enum nfsds_procedure procedure)
{
#define NUMBER(name, number, member)                                                                                   \
    case NFS_##name:                                                                                                   \
        return number;
    switch (procedure) {
        PROCEDURES(NUMBER)
    }
    return 0;
}

/* ---- arguments ---- */

static uint8_t *put32(uint8_t *to, uint32_t value)
{
    value = htobe32(value);
    memcpy(to, &value, sizeof(value));
    return to + sizeof(value);
}

static uint8_t *put64(uint8_t *to, uint64_t value)
{
    value = htobe64(value);
    memcpy(to, &value, sizeof(value));
    return to + sizeof(value);
}

static uint8_t *put_handle(uint8_t *to, const struct nfs_fh3 *handle)
{
    uint32_t length = handle->data.data_len;
    to = put32(to, length);
    memset(to, 0, (length + 3) / 4 * 4);
    memcpy(to, handle->data.data_val, length);
    return to + (length + 3) / 4 * 4;
}

static size_t encode_by_zdr(enum nfsds_procedure procedure, void *arguments, uint8_t *to, size_t room)
{
    ZDR zdr;
    uint32_t good = 0;
    zdrmem_create(&zdr, (caddr_t)to, (uint32_t)room, ZDR_ENCODE);
#define ENCODE(name, number, member)                                                                                   \
    case NFS_##name:                                                                                                   \
        good = zdr_##name##3args(&zdr, arguments);                                                                     \
        break;
    switch (procedure) {
        PROCEDURES(ENCODE)
    }
    size_t size = good ? zdr_getpos(&zdr) : 0;
    zdr_destroy(&zdr);
    return size;
}

size_t nfsds_encode(enum nfsds_procedure procedure, const void *arguments, uint8_t *to, size_t room)
{
    uint8_t *at = to;
    if (room < 4 + NFS3_FHSIZE + 24)
        return 0;
    if (procedure == NFS_READ) {
        const struct READ3args *read = arguments;
        at = put_handle(at, &read->file);
        at = put64(at, read->offset);
        at = put32(at, read->count);
    } else if (procedure == NFS_WRITE) {
        const struct WRITE3args *write = arguments;
        at = put_handle(at, &write->file);
        at = put64(at, write->offset);
        at = put32(at, write->count);
        at = put32(at, (uint32_t)write->stable);
        at = put32(at, write->data.data_len);
    } else {
        return encode_by_zdr(procedure, (void *)(uintptr_t)arguments, to, room);
    }
    return (size_t)(at - to);
}

/* ---- results ---- */

struct cursor {
    const uint8_t *at, *end;
    bool short_of; /* bytes */
};

static const uint8_t *get(struct cursor *cursor, size_t size)
{
    const uint8_t *at = cursor->at;
    if (cursor->short_of || (size_t)(cursor->end - at) < size) {
        cursor->short_of = true;
        return NULL;
    }
    cursor->at += size;
    return at;
}

static uint32_t get32(struct cursor *cursor)
{
    uint32_t value = 0;
    const uint8_t *at = get(cursor, sizeof(value));
    if (at)
        memcpy(&value, at, sizeof(value));
    return be32toh(value);
}

static void skip_attributes(struct cursor *cursor, size_t size)
{
    if (get32(cursor))
        get(cursor, size);
}

static void skip_wcc(struct cursor *cursor)
{
    skip_attributes(cursor, PRE_ATTRIBUTES);
    skip_attributes(cursor, POST_ATTRIBUTES);
}

size_t nfsds_decode_read(const uint8_t *from, size_t size, struct READ3res *result)
{
    struct cursor cursor = {.at = from, .end = from + size};
    struct READ3resok *read = &result->READ3res_u.resok;
    memset(result, 0, sizeof(*result));
    result->status = (nfsstat3)get32(&cursor);
    skip_attributes(&cursor, POST_ATTRIBUTES);
    if (result->status == NFS3_OK) {
        read->count = get32(&cursor);
        read->eof = get32(&cursor);
        read->data.data_len = get32(&cursor);
    }
    return cursor.short_of ? 0 : (size_t)(cursor.at - from);
}

static bool decode_read(const uint8_t *from, size_t size, struct READ3res *result)
{
    size_t before = nfsds_decode_read(from, size, result);
    struct READ3resok *read = &result->READ3res_u.resok;
    if (before == 0)
        return false;
    if (result->status != NFS3_OK)
        return true;
    read->data.data_val = (char *)(uintptr_t)(from + before);
    return read->data.data_len <= size - before;
}

static bool decode_write(struct cursor cursor, struct WRITE3res *result)
{
    struct WRITE3resok *written = &result->WRITE3res_u.resok;
    result->status = (nfsstat3)get32(&cursor);
    if (result->status != NFS3_OK)
        return !cursor.short_of;
    skip_wcc(&cursor);
    written->count = get32(&cursor);
    written->committed = (stable_how)get32(&cursor);
    const uint8_t *verifier = get(&cursor, NFS3_WRITEVERFSIZE);
    if (verifier)
        memcpy(written->verf, verifier, NFS3_WRITEVERFSIZE);
    return verifier != NULL;
}

static bool decode_commit(struct cursor cursor, struct COMMIT3res *result)
{
    result->status = (nfsstat3)get32(&cursor);
    if (result->status != NFS3_OK)
        return !cursor.short_of;
    skip_wcc(&cursor);
    const uint8_t *verifier = get(&cursor, NFS3_WRITEVERFSIZE);
    if (verifier)
        memcpy(result->COMMIT3res_u.resok.verf, verifier, NFS3_WRITEVERFSIZE);
    return verifier != NULL;
}

static bool decode_by_zdr(enum nfsds_procedure procedure, const uint8_t *from, size_t size, struct nfsds_answer *answer)
{
    zdrmem_create(&answer->zdr, (caddr_t)(uintptr_t)from, (uint32_t)size, ZDR_DECODE);
    answer->by_zdr = true;
    memset(&answer->data, 0, sizeof(answer->data));
#define DECODE(name, number, member)                                                                                   \
    case NFS_##name:                                                                                                   \
        return zdr_##name##3res(&answer->zdr, &answer->data.member);
    switch (procedure) {
        PROCEDURES(DECODE)
    }
    return false;
}

bool nfsds_decode(enum nfsds_procedure procedure, const uint8_t *from, size_t size, struct nfsds_answer *answer)
{
    struct cursor cursor = {.at = from, .end = from + size};
    answer->by_zdr = false;
    if (procedure == NFS_READ)
        return decode_read(from, size, &answer->data.read);
    if (procedure == NFS_WRITE)
        return decode_write(cursor, &answer->data.write);
    if (procedure == NFS_COMMIT)
        return decode_commit(cursor, &answer->data.commit);
    return decode_by_zdr(procedure, from, size, answer);
}

void nfsds_answer_end(struct nfsds_answer *answer)
{
    if (answer->by_zdr)
        zdr_destroy(&answer->zdr);
}
