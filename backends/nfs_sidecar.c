/* Two files for an object at most: FILEID.xattrs (nfs_record.h) and FILEID.owner ("svmfs-owner-of 1", then "uid N",
 * "gid N", "mode 0NNN", each where it is held here), FILEID in 16 hex digits. Which there are is known from the start,
 * so that an object without one costs no call; that holds because one mount uses the datastore at a time.
 *
 * A fileid is used again by the server when its file is gone: what is created through svmfs first forgets what an older
 * file left behind, and what is removed through svmfs is forgotten after its name. A crash in between, or a file that
 * was removed on the server itself, leaves a record that nobody reads until then. */
#include "backends/nfs_sidecar.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nfs.h"
#include "backends/nfs_record.h"
#include "base/log.h"

#define ATTRIBUTES "attributes"
#define OWNER_HEAD "svmfs-owner-of 1\n"
#define NAME_SIZE  32
#define VALUE_MAX  65536

void nfsds_sidecar_init(struct nfsds_sidecar *sidecar)
{
    memset(sidecar, 0, sizeof(*sidecar));
    pthread_mutex_init(&sidecar->writing, NULL);
    pthread_mutex_init(&sidecar->mutex, NULL);
}

void nfsds_sidecar_destroy(struct nfsds_sidecar *sidecar)
{
    free(sidecar->known);
    pthread_mutex_destroy(&sidecar->writing);
    pthread_mutex_destroy(&sidecar->mutex);
}

/* ---- what is known; under the mutex ---- */

static size_t place(const struct nfsds_sidecar *sidecar, uint64_t fileid)
{
    size_t low = 0, high = sidecar->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sidecar->known[middle].fileid < fileid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct nfsds_known get_known(struct nfsds_sidecar *sidecar, uint64_t fileid)
{
    struct nfsds_known known = {.fileid = fileid};
    pthread_mutex_lock(&sidecar->mutex);
    size_t at = place(sidecar, fileid);
    if (at < sidecar->count && sidecar->known[at].fileid == fileid)
        known = sidecar->known[at];
    pthread_mutex_unlock(&sidecar->mutex);
    return known;
}

static int put_known(struct nfsds_sidecar *sidecar, const struct nfsds_known *known)
{
    int error = 0;
    pthread_mutex_lock(&sidecar->mutex);
    size_t at = place(sidecar, known->fileid);
    bool found = at < sidecar->count && sidecar->known[at].fileid == known->fileid;
    if (!found && sidecar->count == sidecar->room) {
        size_t room = sidecar->room ? 2 * sidecar->room : 64;
        struct nfsds_known *fresh = realloc(sidecar->known, room * sizeof(*fresh));
        error = fresh ? 0 : -ENOMEM;
        if (fresh) {
            sidecar->known = fresh;
            sidecar->room = room;
        }
    }
    if (!error && !found) {
        memmove(sidecar->known + at + 1, sidecar->known + at, (sidecar->count - at) * sizeof(*known));
        sidecar->count++;
    }
    if (!error)
        sidecar->known[at] = *known;
    pthread_mutex_unlock(&sidecar->mutex);
    return error;
}

void nfsds_sidecar_overlay(struct nfsds_sidecar *sidecar, struct stat *st)
{
    if (__atomic_load_n(&sidecar->count, __ATOMIC_RELAXED) == 0)
        return;
    struct nfsds_known known = get_known(sidecar, st->st_ino);
    if (known.has_uid)
        st->st_uid = known.uid;
    if (known.has_gid)
        st->st_gid = known.gid;
    if (known.has_mode)
        st->st_mode = (st->st_mode & S_IFMT) | known.mode;
}

/* ---- files ---- */

static const char *file_name(char out[static NAME_SIZE], uint64_t fileid, const char *kind)
{
    snprintf(out, NAME_SIZE, "%016" PRIx64 ".%s", fileid, kind);
    return out;
}

static void parse_owner(struct nfsds_known *known, const char *text)
{
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        unsigned value;
        if (sscanf(line, "uid %u", &value) == 1) {
            known->has_uid = true;
            known->uid = value;
        } else if (sscanf(line, "gid %u", &value) == 1) {
            known->has_gid = true;
            known->gid = value;
        } else if (sscanf(line, "mode %o", &value) == 1) {
            known->has_mode = true;
            known->mode = value & 07777;
        }
    }
}

struct found {
    struct nfs *nfs;
    struct nfsds_handle directory;
};

static int load_one(void *argument, const char *name, const struct stat *st)
{
    struct found *found = argument;
    char kind[8], *text;
    size_t size;
    uint64_t fileid;
    if (sscanf(name, "%16" SCNx64 ".%7s", &fileid, kind) != 2 || strlen(name) != 17 + strlen(kind))
        return 0;
    struct nfsds_known known = get_known(&found->nfs->sidecar, fileid);
    if (strcmp(kind, "xattrs") == 0) {
        known.xattrs = true;
    } else if (strcmp(kind, "owner") == 0) {
        int error = nfsds_private_read(found->nfs, &found->directory, name, &text, &size);
        if (error)
            return error;
        known.owner = true;
        parse_owner(&known, text);
        free(text);
    } else {
        return 0;
    }
    return put_known(&found->nfs->sidecar, &known);
}

int nfsds_sidecar_load(struct nfs *nfs)
{
    struct found found = {.nfs = nfs};
    int error = nfsds_private_directory(nfs, ATTRIBUTES, false, &found.directory);
    if (error)
        return error == -ENOENT ? 0 : error;
    return nfsds_list(nfs, &found.directory, load_one, &found);
}

static int write_file(struct nfs *nfs, uint64_t fileid, const char *kind, const char *text, size_t size)
{
    struct nfsds_handle directory;
    char name[NAME_SIZE];
    int error = nfsds_private_directory(nfs, ATTRIBUTES, true, &directory);
    return error ? error : nfsds_private_write(nfs, &directory, file_name(name, fileid, kind), text, size);
}

static int remove_file(struct nfs *nfs, uint64_t fileid, const char *kind)
{
    struct nfsds_handle directory;
    char name[NAME_SIZE];
    int error = nfsds_private_directory(nfs, ATTRIBUTES, false, &directory);
    error = error ? error : nfsds_private_remove(nfs, &directory, file_name(name, fileid, kind));
    return error == -ENOENT ? 0 : error;
}

/* ---- owner and mode ---- */

static int save_owner(struct nfs *nfs, struct nfsds_known *known)
{
    char text[128];
    int used = snprintf(text, sizeof(text), OWNER_HEAD);
    if (known->has_uid)
        used += snprintf(text + used, sizeof(text) - (size_t)used, "uid %u\n", known->uid);
    if (known->has_gid)
        used += snprintf(text + used, sizeof(text) - (size_t)used, "gid %u\n", known->gid);
    if (known->has_mode)
        used += snprintf(text + used, sizeof(text) - (size_t)used, "mode %04o\n", (unsigned)known->mode);
    known->owner = true;
    int error = write_file(nfs, known->fileid, "owner", text, (size_t)used);
    return error ? error : put_known(&nfs->sidecar, known);
}

int nfsds_sidecar_set_owner(struct nfs *nfs, const struct nfsds_object *object, const struct stat *st)
{
    pthread_mutex_lock(&nfs->sidecar.writing);
    struct nfsds_known known = get_known(&nfs->sidecar, object->st.st_ino);
    if (st->st_uid != (uid_t)-1) {
        known.has_uid = true;
        known.uid = st->st_uid;
    }
    if (st->st_gid != (gid_t)-1) {
        known.has_gid = true;
        known.gid = st->st_gid;
    }
    int error = save_owner(nfs, &known);
    pthread_mutex_unlock(&nfs->sidecar.writing);
    return error;
}

int nfsds_sidecar_set_mode(struct nfs *nfs, const struct nfsds_object *object, mode_t mode)
{
    pthread_mutex_lock(&nfs->sidecar.writing);
    struct nfsds_known known = get_known(&nfs->sidecar, object->st.st_ino);
    known.has_mode = true;
    known.mode = mode;
    int error = save_owner(nfs, &known);
    pthread_mutex_unlock(&nfs->sidecar.writing);
    return error;
}

int nfsds_sidecar_supersede(struct nfs *nfs, const struct nfsds_object *object, bool uid, bool gid, bool mode)
{
    struct nfsds_known known = get_known(&nfs->sidecar, object->st.st_ino);
    int error = 0;
    if (!(uid && known.has_uid) && !(gid && known.has_gid) && !(mode && known.has_mode))
        return 0;
    pthread_mutex_lock(&nfs->sidecar.writing);
    known = get_known(&nfs->sidecar, object->st.st_ino);
    known.has_uid = known.has_uid && !uid;
    known.has_gid = known.has_gid && !gid;
    known.has_mode = known.has_mode && !mode;
    error = save_owner(nfs, &known);
    pthread_mutex_unlock(&nfs->sidecar.writing);
    return error;
}

int nfsds_sidecar_forget(struct nfs *nfs, uint64_t fileid)
{
    struct nfsds_known nothing = {.fileid = fileid};
    int error = 0;
    struct nfsds_known known = get_known(&nfs->sidecar, fileid);
    if (!known.xattrs && !known.owner)
        return 0;
    pthread_mutex_lock(&nfs->sidecar.writing);
    if (known.xattrs)
        error = remove_file(nfs, fileid, "xattrs");
    if (!error && known.owner)
        error = remove_file(nfs, fileid, "owner");
    if (!error)
        put_known(&nfs->sidecar, &nothing);
    pthread_mutex_unlock(&nfs->sidecar.writing);
    return error;
}

/* ---- xattrs ---- */

static int load_record(struct nfs *nfs, uint64_t fileid, struct nfsds_record *record)
{
    struct nfsds_handle directory;
    char name[NAME_SIZE], *text;
    size_t size;
    *record = (struct nfsds_record){NULL, 0};
    if (!get_known(&nfs->sidecar, fileid).xattrs)
        return 0;
    int error = nfsds_private_directory(nfs, ATTRIBUTES, false, &directory);
    error = error ? error : nfsds_private_read(nfs, &directory, file_name(name, fileid, "xattrs"), &text, &size);
    if (error)
        return error == -ENOENT ? 0 : error;
    if (nfsds_record_parse(record, text, size))
        return 0;
    log_error("datastore %s: %s/%s/%s is damaged: the user xattrs of that file cannot be read; remove it to go on "
              "without them",
        nfs->datastore->name, DATASTORE_PRIVATE, ATTRIBUTES, name);
    return -EIO;
}

static int save_record(struct nfs *nfs, uint64_t fileid, struct nfsds_record *record)
{
    struct nfsds_known known = get_known(&nfs->sidecar, fileid);
    int error = 0;
    known.xattrs = !nfsds_record_is_empty(record);
    if (record->size > NFS_PRIVATE_MAX)
        return -ENOSPC;
    if (known.xattrs)
        error = write_file(nfs, fileid, "xattrs", record->text, record->size);
    else
        error = remove_file(nfs, fileid, "xattrs");
    return error ? error : put_known(&nfs->sidecar, &known);
}

static bool may_have(const struct nfsds_object *object)
{
    return S_ISREG(object->st.st_mode) || S_ISDIR(object->st.st_mode);
}

ssize_t nfsds_sidecar_get(
    struct nfs *nfs, const struct nfsds_object *object, const char *name, void *value, size_t size)
{
    struct nfsds_record record;
    int error = may_have(object) ? load_record(nfs, object->st.st_ino, &record) : -ENODATA;
    if (error)
        return error;
    ssize_t length = nfsds_record_get(&record, name, value, size);
    nfsds_record_free(&record);
    return length;
}

ssize_t nfsds_sidecar_list(struct nfs *nfs, const struct nfsds_object *object, char *out, size_t size)
{
    struct nfsds_record record;
    if (!may_have(object))
        return 0;
    int error = load_record(nfs, object->st.st_ino, &record);
    if (error)
        return error;
    ssize_t length = nfsds_record_list(&record, out, size);
    nfsds_record_free(&record);
    return length;
}

static int change(
    struct nfs *nfs, const struct nfsds_object *object, const char *name, const void *value, size_t size, int flags)
{
    struct nfsds_record record;
    pthread_mutex_lock(&nfs->sidecar.writing);
    int error = load_record(nfs, object->st.st_ino, &record);
    if (!error) {
        error = nfsds_record_set(&record, name, value, size, flags);
        error = error ? error : save_record(nfs, object->st.st_ino, &record);
        nfsds_record_free(&record);
    }
    pthread_mutex_unlock(&nfs->sidecar.writing);
    return error;
}

int nfsds_sidecar_set(
    struct nfs *nfs, const struct nfsds_object *object, const char *name, const void *value, size_t size, int flags)
{
    if (!may_have(object))
        return -EPERM;
    if (strlen(name) > 255)
        return -ERANGE;
    if (size > VALUE_MAX)
        return -E2BIG;
    return change(nfs, object, name, value ? value : "", size, flags);
}

int nfsds_sidecar_remove(struct nfs *nfs, const struct nfsds_object *object, const char *name)
{
    return may_have(object) ? change(nfs, object, name, NULL, 0, 0) : -ENODATA;
}
