/* Small files of svmfs's own on the export. A file is replaced by writing a new one beside it, durably, and renaming. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nfs.h"
#include "backends/nfs_make.h"
#include "base/cleanup.h"

#define PIECE 32768

static int directory_in(
    struct nfs *nfs, const struct nfsds_handle *parent, const char *name, bool make, struct nfsds_handle *out)
{
    struct stat st = {.st_mode = S_IFDIR | 0700, .st_uid = (uid_t)-1, .st_gid = (gid_t)-1};
    struct nfsds_object object;
    int error = nfsds_look(nfs, parent, name, &object);
    if (error == -ENOENT && make) {
        error = nfsds_make(nfs, parent, name, &st, NULL, &object);
        if (error == -EEXIST)
            error = nfsds_look(nfs, parent, name, &object);
    }
    if (!error && !S_ISDIR(object.st.st_mode))
        error = -ENOTDIR;
    if (!error)
        *out = object.handle;
    return error;
}

int nfsds_private_directory(struct nfs *nfs, const char *name, bool make, struct nfsds_handle *out)
{
    int error = directory_in(nfs, &nfs->root, DATASTORE_PRIVATE, make, out);
    if (!error && *name) {
        struct nfsds_handle parent = *out;
        error = directory_in(nfs, &parent, name, make, out);
    }
    return error;
}

struct piece {
    char *to;
    uint32_t count;
    bool end;
};

static void take_piece(void *out, const void *data)
{
    const struct READ3resok *read = &((const struct READ3res *)data)->READ3res_u.resok;
    struct piece *piece = out;
    uint32_t count = read->data.data_len < piece->count ? read->data.data_len : piece->count;
    memcpy(piece->to, read->data.data_val, count);
    piece->count = count;
    piece->end = read->eof || count == 0;
}

static int read_all(struct nfs *nfs, const struct nfsds_object *object, char *text, size_t size, size_t *got)
{
    struct piece piece = {.end = false};
    *got = 0;
    while (*got < size && !piece.end) {
        piece.to = text + *got;
        piece.count = size - *got < PIECE ? (uint32_t)(size - *got) : PIECE;
        struct READ3args arguments = {nfsds_fh(&object->handle), *got, piece.count};
        int error = nfsds_ask(nfs, NFS_READ, &arguments, take_piece, &piece, NULL);
        if (error)
            return error;
        *got += piece.count;
    }
    return 0;
}

int nfsds_private_read_object(struct nfs *nfs, const struct nfsds_object *object, char **out, size_t *size)
{
    if (!S_ISREG(object->st.st_mode) || object->st.st_size > NFS_PRIVATE_MAX)
        return -EIO;
    char *text = malloc((size_t)object->st.st_size + 1);
    int error = text ? read_all(nfs, object, text, (size_t)object->st.st_size, size) : -ENOMEM;
    if (error) {
        free(text);
        return error;
    }
    text[*size] = '\0';
    *out = text;
    return 0;
}

int nfsds_private_read(
    struct nfs *nfs, const struct nfsds_handle *directory, const char *name, char **out, size_t *size)
{
    struct nfsds_object object;
    int error = nfsds_look(nfs, directory, name, &object);
    return error ? error : nfsds_private_read_object(nfs, &object, out, size);
}

struct written {
    uint32_t count;
    bool stable;
};

static void take_written(void *out, const void *data)
{
    const struct WRITE3resok *result = &((const struct WRITE3res *)data)->WRITE3res_u.resok;
    *(struct written *)out = (struct written){result->count, result->committed == FILE_SYNC};
}

int nfsds_private_write_over(struct nfs *nfs, const struct nfsds_object *object, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        uint32_t count = size - at < PIECE ? (uint32_t)(size - at) : PIECE;
        struct WRITE3args arguments = {
            nfsds_fh(&object->handle), at, count, FILE_SYNC, {count, (char *)(uintptr_t)text + at}};
        struct written written = {0};
        int error = nfsds_ask(nfs, NFS_WRITE, &arguments, take_written, &written, NULL);
        if (error)
            return error;
        if (!written.stable || written.count == 0 || written.count > count)
            return -EIO;
        at += written.count;
    }
    return 0;
}

int nfsds_private_write(
    struct nfs *nfs, const struct nfsds_handle *directory, const char *name, const char *text, size_t size)
{
    struct stat st = {.st_mode = S_IFREG | 0600};
    struct nfsds_object object;
    char fresh[NAME_MAX + 1];
    snprintf(fresh, sizeof(fresh), "%s.new", name);
    int error = nfsds_make(nfs, directory, fresh, &st, NULL, &object);
    if (error == -EEXIST) {
        error = nfsds_unlink(nfs, directory, fresh, false);
        error = error ? error : nfsds_make(nfs, directory, fresh, &st, NULL, &object);
    }
    if (!error)
        error = nfsds_private_write_over(nfs, &object, text, size);
    if (!error)
        error = nfsds_move(nfs, directory, fresh, directory, name, object.st.st_ino);
    return error;
}

int nfsds_private_remove(struct nfs *nfs, const struct nfsds_handle *directory, const char *name)
{
    return nfsds_unlink(nfs, directory, name, false);
}
