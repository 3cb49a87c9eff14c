/* nfs: what the datastore of an NFS export and its images share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "backends/nfs_connection.h"
#include "backends/nfs_quiet.h"
#include "backends/nfs_sidecar.h"
#include "backends/nfs_url.h"
#include "backends/nfs_verifier.h"
#include "backends/owner.h"
#include "io/datastore.h"

/* Names the server's file; as long as the file lives, whatever it is called. */
struct nfsds_handle {
    unsigned length;
    char bytes[NFS3_FHSIZE];
};

/* An object: its handle and its attributes, with what the sidecar holds of them laid over. */
struct nfsds_object {
    struct nfsds_handle handle;
    struct stat st;
};

/* datastore->state of an open NFS datastore. */
struct nfs {
    /* set at open */
    struct datastore *datastore;
    struct nfsds_url url;
    struct nfsds_handle root;
    uint32_t read_max, write_max, name_max;
    uint64_t deadline_ns; /* no answer for so long: the connection is dead */
    uint64_t quiet_ns;
    unsigned connections_max;
    bool read_only, numeric; /* numeric: the address and the port need no asking */
    struct reactor *names;   /* its own: names, and what no reactor of the mount asked for */
    struct pool *locator;    /* one thread: the server's address and ports */
    struct owner *owner;
    struct nfsds_object record; /* the owner's, as last read; its thread's */
    struct nfsds_quiet quiet;
    struct nfsds_verifier verifier;
    struct nfsds_sidecar sidecar;
    pthread_rwlock_t naming; /* a rename that must not replace: alone among what makes names */
    /* under mutex */
    pthread_mutex_t mutex;
    char address[64];
    int nfs_port, mount_port;
    struct list images; /* of struct nfsds_image */
    /* atomic */
    _Atomic bool disowned;         /* somebody else has taken the datastore over */
    _Atomic bool unreachable;      /* a connection failed, and nothing was answered since */
    _Atomic uint64_t first_answer; /* when the server first answered this process; 0: not yet */
    /* each its reactor's own */
    struct nfsds_connection *connections[REACTORS_MAX][NFS_CONNECTIONS_MAX];
};

/* Asks for the server's address and ports (DNS, portmapper). Blocks for about the datastore's timeout. */
int nfsds_locate(struct nfs *nfs, struct sentence *why);
/* The same and MOUNT: sets the root's handle; *below is what of the url's path is below the export. Blocks. */
int nfsds_locate_mount(struct nfs *nfs, const char **below, struct sentence *why);

/* Makes one call on the names' reactor and waits, at most the datastore's timeout. take copies what is needed of the
 * answer's data, on that reactor. *again: it may have been executed before (an answer that says "is there already" or
 * "is not there" may be of our own doing). 0 or -errno: of the transport, else of the answer's status. */
int nfsds_ask(struct nfs *nfs, enum nfsds_procedure procedure, void *arguments,
    void (*take)(void *out, const void *data), void *out, bool *again);

/* ---- paths: nfs_walk.c ---- */

/* Walks from the root; no symlink is followed. 0 or -errno. */
int nfsds_walk(struct nfs *nfs, const char *path, struct nfsds_object *out);
/* The directory that holds path, and its last component in it. -EINVAL: there is none. */
int nfsds_walk_parent(struct nfs *nfs, const char *path, struct nfsds_object *parent, const char **leaf);
/* name in a directory. */
int nfsds_look(struct nfs *nfs, const struct nfsds_handle *directory, const char *name, struct nfsds_object *out);
int nfsds_getattr(struct nfs *nfs, const struct nfsds_handle *handle, struct stat *out);
struct nfs_fh3 nfsds_fh(const struct nfsds_handle *handle);
void nfsds_take_handle(struct nfsds_handle *out, const struct nfs_fh3 *from);

/* ---- small files of svmfs's own, below the private directory: nfs_private.c ---- */

#define NFS_PRIVATE_MAX (1u << 20)

/* The private directory or one in it; made when make is set. */
int nfsds_private_directory(struct nfs *nfs, const char *name, bool make, struct nfsds_handle *out);
/* Whole files. read: malloc()ed, with a zero behind it; -ENOENT. write: replaces the file at once, durable when it
 * returns. */
int nfsds_private_read(
    struct nfs *nfs, const struct nfsds_handle *directory, const char *name, char **out, size_t *size);
int nfsds_private_write(
    struct nfs *nfs, const struct nfsds_handle *directory, const char *name, const char *text, size_t size);
/* The same of an object that nfsds_look found; write_over: in its place, durable, not at once. */
int nfsds_private_read_object(struct nfs *nfs, const struct nfsds_object *object, char **out, size_t *size);
int nfsds_private_write_over(struct nfs *nfs, const struct nfsds_object *object, const char *text, size_t size);
int nfsds_private_remove(struct nfs *nfs, const struct nfsds_handle *directory, const char *name);

/* ---- directories: nfs_list.c ---- */

typedef int nfsds_entry(void *argument, const char *name, const struct stat *st);
/* Each entry of a directory but . and .., read as a whole before the first call; on the caller's thread. */
int nfsds_list(struct nfs *nfs, const struct nfsds_handle *directory, nfsds_entry *entry, void *argument);

/* ---- images: nfs_image.c ---- */

int nfsds_open_image(struct datastore *datastore, const char *path, bool writable, struct image **out);
/* Is an image of this file open? */
bool nfsds_image_is_open(struct nfs *nfs, uint64_t fileid);
/* Its file was moved to the private directory under this name, because it was removed: it goes when the image is
 * closed. */
void nfsds_image_removed(struct nfs *nfs, uint64_t fileid, const char *name);
/* Uncommitted writes of all images are looked after (the server has lost its cache). Any thread. */
void nfsds_images_recommit(struct nfs *nfs);

#define NFS_REMOVED "removed" /* private directory of files that were removed while they were open */
