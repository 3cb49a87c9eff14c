/* The calls on names, on threads that wait. NFSv3 lacks two things here:
 *
 * - a rename that does not replace. The name is looked for first, and no other name is made by this mount meanwhile
 *   (nfs->naming); other mounts are kept off by the owner's record. A program on the server itself that makes the name
 *   in that moment loses it. (LINK and REMOVE would be exact, but would leave two names after a crash.)
 * - files that live on without a name while they are open. A file that is removed while an image of it is open is
 *   moved to .svmfs/removed and goes when the image is closed, or at the next open of the datastore. */
#include "backends/nfs_names.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "backends/nfs.h"
#include "backends/nfs_make.h"
#include "base/clock.h"

#define BLOCK       4096
#define XATTR_SPACE "user."

/* NULL: not open. */
static struct nfs *state(struct datastore *datastore)
{
    return datastore->state;
}

/* May anything be changed? */
static int may_change(const struct nfs *nfs)
{
    if (!nfs || atomic_load(&nfs->disowned))
        return -EIO;
    return nfs->read_only ? -EROFS : 0;
}

static void take_space(void *out, const void *data)
{
    const struct FSSTAT3resok *space = &((const struct FSSTAT3res *)data)->FSSTAT3res_u.resok;
    struct statvfs *st = out;
    st->f_blocks = space->tbytes / BLOCK;
    st->f_bfree = space->fbytes / BLOCK;
    st->f_bavail = space->abytes / BLOCK;
    st->f_files = space->tfiles;
    st->f_ffree = space->ffiles;
    st->f_favail = space->afiles;
}

int nfsds_statfs(struct datastore *datastore, struct statvfs *out)
{
    struct nfs *nfs = state(datastore);
    if (!nfs)
        return -EIO;
    struct FSSTAT3args arguments = {nfsds_fh(&nfs->root)};
    *out = (struct statvfs){.f_bsize = BLOCK, .f_frsize = BLOCK, .f_namemax = nfs->name_max};
    return nfsds_ask(nfs, NFS_FSSTAT, &arguments, take_space, out, NULL);
}

int nfsds_lookup(struct datastore *datastore, const char *path, struct stat *out)
{
    struct nfsds_object object;
    int error = state(datastore) ? nfsds_walk(state(datastore), path, &object) : -EIO;
    if (!error)
        *out = object.st;
    return error;
}

struct filter {
    datastore_entry *entry;
    void *argument;
};

static int pass(void *argument, const char *name, const struct stat *st)
{
    struct filter *filter = argument;
    return strcmp(name, DATASTORE_PRIVATE) == 0 ? 0 : filter->entry(filter->argument, name, st);
}

int nfsds_list_path(struct datastore *datastore, const char *path, datastore_entry *entry, void *argument)
{
    struct nfs *nfs = state(datastore);
    struct nfsds_object object;
    struct filter filter = {entry, argument};
    int error = nfs ? nfsds_walk(nfs, path, &object) : -EIO;
    if (!error && !S_ISDIR(object.st.st_mode))
        error = -ENOTDIR;
    if (error)
        return error;
    return *path ? nfsds_list(nfs, &object.handle, entry, argument) : nfsds_list(nfs, &object.handle, pass, &filter);
}

/* ---- making, moving, removing ---- */

static int create(struct nfs *nfs, const char *path, const struct stat *st, const char *content)
{
    struct nfsds_object parent, made;
    const char *leaf;
    int error = nfsds_walk_parent(nfs, path, &parent, &leaf);
    error = error ? error : nfsds_make(nfs, &parent.handle, leaf, st, content, &made);
    if (error)
        return error;
    /* A file's exclusive CREATE has put its number where the times are. */
    struct stat now = *st;
    now.st_atim.tv_nsec = now.st_mtim.tv_nsec = UTIME_NOW;
    unsigned mask = ATTRIBUTE_OWNER | (S_ISLNK(st->st_mode) ? 0 : ATTRIBUTE_MODE) |
                    (S_ISREG(st->st_mode) ? ATTRIBUTE_ATIME | ATTRIBUTE_MTIME : 0);
    nfsds_verifier_forget(&nfs->verifier, made.st.st_ino);
    error = nfsds_sidecar_forget(nfs, made.st.st_ino);
    error = error ? error : nfsds_change(nfs, &made, &now, mask);
    if (error)
        nfsds_unlink(nfs, &parent.handle, leaf, S_ISDIR(st->st_mode));
    return error;
}

int nfsds_create(struct datastore *datastore, const char *path, const struct stat *st, const char *content)
{
    struct nfs *nfs = state(datastore);
    int error = may_change(nfs);
    if (error || *path == '\0')
        return error ? error : -EEXIST;
    pthread_rwlock_rdlock(&nfs->naming);
    error = create(nfs, path, st, content);
    pthread_rwlock_unlock(&nfs->naming);
    return error;
}

/* What a name that was replaced or removed leaves behind. */
static void forget(struct nfs *nfs, const struct nfsds_object *gone)
{
    if (gone->st.st_nlink > 1 && !S_ISDIR(gone->st.st_mode))
        return;
    nfsds_verifier_forget(&nfs->verifier, gone->st.st_ino);
    nfsds_sidecar_forget(nfs, gone->st.st_ino);
}

/* As rename(2) judges, so that no server's habits show. */
static int judge_replacing(const struct nfsds_object *moving, const struct nfsds_object *there)
{
    if (S_ISDIR(moving->st.st_mode) && !S_ISDIR(there->st.st_mode))
        return -ENOTDIR;
    return !S_ISDIR(moving->st.st_mode) && S_ISDIR(there->st.st_mode) ? -EISDIR : 0;
}

static int rename_path(struct nfs *nfs, const char *from, const char *to, bool replace)
{
    struct nfsds_object from_parent, to_parent, moving, there;
    const char *from_leaf, *to_leaf;
    int error = nfsds_walk_parent(nfs, from, &from_parent, &from_leaf);
    error = error ? error : nfsds_look(nfs, &from_parent.handle, from_leaf, &moving);
    error = error ? error : nfsds_walk_parent(nfs, to, &to_parent, &to_leaf);
    if (error)
        return error;
    error = nfsds_look(nfs, &to_parent.handle, to_leaf, &there);
    bool taken = !error;
    if (error && error != -ENOENT)
        return error;
    if (taken && !replace)
        return -EEXIST;
    error = taken ? judge_replacing(&moving, &there) : 0;
    if (error || (taken && there.st.st_ino == moving.st.st_ino))
        return error;
    error = nfsds_move(nfs, &from_parent.handle, from_leaf, &to_parent.handle, to_leaf, moving.st.st_ino);
    if (!error && taken)
        forget(nfs, &there);
    return error;
}

int nfsds_rename(struct datastore *datastore, const char *from, const char *to, bool replace)
{
    struct nfs *nfs = state(datastore);
    int error = may_change(nfs);
    if (error)
        return error;
    if (replace)
        pthread_rwlock_rdlock(&nfs->naming);
    else
        pthread_rwlock_wrlock(&nfs->naming);
    error = rename_path(nfs, from, to, replace);
    pthread_rwlock_unlock(&nfs->naming);
    return error;
}

static int put_aside(
    struct nfs *nfs, const struct nfsds_handle *parent, const char *leaf, const struct nfsds_object *object)
{
    struct nfsds_handle removed;
    char name[48];
    snprintf(name, sizeof(name), "%016" PRIx64 "-%" PRIx64, (uint64_t)object->st.st_ino, clock_now());
    int error = nfsds_private_directory(nfs, NFS_REMOVED, true, &removed);
    error = error ? error : nfsds_move(nfs, parent, leaf, &removed, name, object->st.st_ino);
    if (!error)
        nfsds_image_removed(nfs, object->st.st_ino, name);
    return error;
}

int nfsds_remove(struct datastore *datastore, const char *path, bool directory)
{
    struct nfs *nfs = state(datastore);
    struct nfsds_object parent, object;
    const char *leaf;
    int error = may_change(nfs);
    if (error || *path == '\0')
        return error ? error : -EBUSY;
    error = nfsds_walk_parent(nfs, path, &parent, &leaf);
    error = error ? error : nfsds_look(nfs, &parent.handle, leaf, &object);
    if (error)
        return error;
    if (S_ISDIR(object.st.st_mode) != directory)
        return directory ? -ENOTDIR : -EISDIR;
    if (S_ISREG(object.st.st_mode) && object.st.st_nlink <= 1 && nfsds_image_is_open(nfs, object.st.st_ino))
        return put_aside(nfs, &parent.handle, leaf, &object);
    error = nfsds_unlink(nfs, &parent.handle, leaf, directory);
    if (!error)
        forget(nfs, &object);
    return error;
}

struct link {
    char *out;
    size_t size;
    bool fits;
};

static void take_link(void *out, const void *data)
{
    const struct READLINK3res *result = data;
    struct link *link = out;
    link->fits = strlen(result->READLINK3res_u.resok.data) < link->size;
    if (link->fits)
        strcpy(link->out, result->READLINK3res_u.resok.data);
}

int nfsds_readlink(struct datastore *datastore, const char *path, char *out, size_t size)
{
    struct nfs *nfs = state(datastore);
    struct nfsds_object object;
    struct link link = {out, size, false};
    int error = nfs ? nfsds_walk(nfs, path, &object) : -EIO;
    if (error || !S_ISLNK(object.st.st_mode))
        return error ? error : -EINVAL;
    struct READLINK3args arguments = {nfsds_fh(&object.handle)};
    error = nfsds_ask(nfs, NFS_READLINK, &arguments, take_link, &link, NULL);
    return error ? error : link.fits ? 0 : -ERANGE;
}

/* ---- attributes ---- */

int nfsds_set_attributes(struct datastore *datastore, const char *path, const struct stat *st, unsigned mask)
{
    struct nfs *nfs = state(datastore);
    struct nfsds_object object;
    int error = may_change(nfs);
    error = error ? error : nfsds_walk(nfs, path, &object);
    return error ? error : nfsds_change(nfs, &object, st, mask);
}

static int walk_for_xattr(struct nfs *nfs, const char *path, const char *name, struct nfsds_object *object)
{
    int error = nfs ? nfsds_walk(nfs, path, object) : -EIO;
    return error ? error : strncmp(name, XATTR_SPACE, strlen(XATTR_SPACE)) == 0 ? 0 : -EOPNOTSUPP;
}

ssize_t nfsds_get_xattr(struct datastore *datastore, const char *path, const char *name, void *value, size_t size)
{
    struct nfsds_object object;
    int error = walk_for_xattr(state(datastore), path, name, &object);
    return error ? error : nfsds_sidecar_get(state(datastore), &object, name, value, size);
}

int nfsds_set_xattr(
    struct datastore *datastore, const char *path, const char *name, const void *value, size_t size, int flags)
{
    struct nfsds_object object;
    int error = may_change(state(datastore));
    error = error ? error : walk_for_xattr(state(datastore), path, name, &object);
    return error ? error : nfsds_sidecar_set(state(datastore), &object, name, value, size, flags);
}

ssize_t nfsds_list_xattr(struct datastore *datastore, const char *path, char *out, size_t size)
{
    struct nfsds_object object;
    int error = walk_for_xattr(state(datastore), path, XATTR_SPACE, &object);
    return error ? error : nfsds_sidecar_list(state(datastore), &object, out, size);
}

int nfsds_remove_xattr(struct datastore *datastore, const char *path, const char *name)
{
    struct nfsds_object object;
    int error = may_change(state(datastore));
    error = error ? error : walk_for_xattr(state(datastore), path, name, &object);
    return error ? error : nfsds_sidecar_remove(state(datastore), &object, name);
}

/* A server answers a change of names when it is durable (RFC 1813, 1.7): there is only the directory to be looked for. */
int nfsds_sync_directory(struct datastore *datastore, const char *path)
{
    struct nfs *nfs = state(datastore);
    struct nfsds_object object;
    const char *leaf;
    if (!nfs)
        return -EIO;
    return *path ? nfsds_walk_parent(nfs, path, &object, &leaf) : nfsds_walk(nfs, path, &object);
}
