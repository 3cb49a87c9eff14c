/* nfs_sidecar: what NFSv3 cannot hold: user xattrs, and an owner and a mode that the server refuses to us (root
 * squash). Files of svmfs's own on the export, below .svmfs/attributes, one for each object that needs one, named by
 * the object's fileid: they follow a rename without being touched, so that a crash cannot part them. docs/NFS.md has
 * the format. All calls block but overlay. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

struct nfs;
struct nfsds_object;
struct nfsds_handle;

/* What is known of one object without asking the server. */
struct nfsds_known {
    uint64_t fileid;
    bool xattrs; /* it has a file of them */
    bool owner;  /* and one that says owner and mode */
    bool has_uid, has_gid, has_mode;
    uid_t uid;
    gid_t gid;
    mode_t mode;
};

struct nfsds_sidecar {
    /* under mutex, which is held while a file is written */
    pthread_mutex_t writing;
    /* under mutex; never held over a call */
    pthread_mutex_t mutex;
    struct nfsds_known *known; /* by fileid */
    size_t count, room;
};

void nfsds_sidecar_init(struct nfsds_sidecar *sidecar);
void nfsds_sidecar_destroy(struct nfsds_sidecar *sidecar);

/* Reads which objects have files, and owners and modes. 0 or -errno. */
int nfsds_sidecar_load(struct nfs *nfs);

/* Owner and mode as they are meant to be. Never blocks. */
void nfsds_sidecar_overlay(struct nfsds_sidecar *sidecar, struct stat *st);
int nfsds_sidecar_set_owner(struct nfs *nfs, const struct nfsds_object *object, const struct stat *st);
int nfsds_sidecar_set_mode(struct nfs *nfs, const struct nfsds_object *object, mode_t mode);
/* The server has set these after all: what is held of them is out of date. */
int nfsds_sidecar_supersede(struct nfs *nfs, const struct nfsds_object *object, bool uid, bool gid, bool mode);
/* The object is new, or gone: whatever is held under its fileid is not its. */
int nfsds_sidecar_forget(struct nfs *nfs, uint64_t fileid);

/* As datastore_ops, of an object. */
ssize_t nfsds_sidecar_get(
    struct nfs *nfs, const struct nfsds_object *object, const char *name, void *value, size_t size);
ssize_t nfsds_sidecar_list(struct nfs *nfs, const struct nfsds_object *object, char *out, size_t size);
int nfsds_sidecar_set(
    struct nfs *nfs, const struct nfsds_object *object, const char *name, const void *value, size_t size, int flags);
int nfsds_sidecar_remove(struct nfs *nfs, const struct nfsds_object *object, const char *name);
