/* datastore: a named place that holds images. Calls of datastore_ops block: they are made on the datastore's pool or on
 * a job's thread, never on a reactor. Paths are relative to the datastore's root, without a leading slash, "" is the
 * root; no component is "." or "..", symlinks in them are never followed. */
#pragma once

#include <stdbool.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "base/error.h"
#include "io/image.h"
#include "io/pool.h"

#define DATASTORE_NAME_MAX 63

/* svmfs's own files on a datastore of files live below this directory of its root; never shown, never listed. */
#define DATASTORE_PRIVATE ".svmfs"

struct datastore;

/* One entry as list reports it. Return non-zero to stop. */
typedef int datastore_entry(void *argument, const char *name, const struct stat *st);

enum attribute_mask {
    ATTRIBUTE_MODE = 1,
    ATTRIBUTE_OWNER = 2, /* uid or gid (uid_t)-1 / (gid_t)-1 keep theirs */
    ATTRIBUTE_ATIME = 4,
    ATTRIBUTE_MTIME = 8, /* tv_nsec may be UTIME_NOW */
};

struct datastore_ops {
    const char *scheme; /* "local": urls are scheme:rest */

    /* rest: what follows "scheme:". Sets datastore->state. 0 or -errno with a sentence; a datastore that is away is
     * -errno and may be opened again later. */
    int (*open)(struct datastore *datastore, const char *rest, struct sentence *why);
    void (*close)(struct datastore *datastore);

    int (*statfs)(struct datastore *datastore, struct statvfs *out);
    int (*lookup)(struct datastore *datastore, const char *path, struct stat *out);
    int (*list)(struct datastore *datastore, const char *path, datastore_entry *entry, void *argument);

    /* A file, directory, symlink (content is its target), fifo, socket or device node by st->st_mode, with st's mode,
     * owner (and st_rdev); -EEXIST when the name is taken. */
    int (*create)(struct datastore *datastore, const char *path, const struct stat *st, const char *content);
    /* replace: over an existing file, at once; else -EEXIST. */
    int (*rename)(struct datastore *datastore, const char *from, const char *to, bool replace);
    /* A file or an empty directory. */
    int (*remove)(struct datastore *datastore, const char *path, bool directory);
    int (*readlink)(struct datastore *datastore, const char *path, char *out, size_t size);
    int (*set_attributes)(struct datastore *datastore, const char *path, const struct stat *st, unsigned mask);

    /* As lgetxattr(2) and friends; user.* only. Return length or -errno. */
    ssize_t (*get_xattr)(struct datastore *datastore, const char *path, const char *name, void *value, size_t size);
    int (*set_xattr)(
        struct datastore *datastore, const char *path, const char *name, const void *value, size_t size, int flags);
    ssize_t (*list_xattr)(struct datastore *datastore, const char *path, char *out, size_t size);
    int (*remove_xattr)(struct datastore *datastore, const char *path, const char *name);

    /* Makes the entry's directory durable (fsync of the directory that holds path). */
    int (*sync_directory)(struct datastore *datastore, const char *path);
    /* Opens the file at path. *out has one reference. */
    int (*open_image)(struct datastore *datastore, const char *path, bool writable, struct image **out);
};

/* Options of a [datastore NAME] section. Strings may be NULL. */
struct datastore_options {
    const char *name;
    const char *url;
    uint64_t timeout_ns;                            /* no request stays unanswered longer */
    unsigned threads;                               /* of its pool */
    const char *faults;                             /* file of rules for the fault wrapper */
    unsigned connections;                           /* to its server, per reactor; 0: the backend's default */
    const char *password_file;                      /* iSCSI: the CHAP secret, a file that only its owner may read */
    const char *mutual_user, *mutual_password_file; /* iSCSI: what the target must know */
    uint64_t quiet_ns; /* NFS: after a new connection's first reply nothing sent before can land (law 6) */
};

/* Who this mount is, where others could use the same datastore: an owner's record, an iSCSI session's ISID, a
 * reservation's key. */
struct identity {
    uint64_t mount;      /* random, made once per state directory */
    uint64_t generation; /* of the worker: 1 for the mount's first */
    bool takeover;       /* an owner that is not this mount is put aside without waiting (--takeover) */
    int keeper;          /* pid of the process that lives as long as the mount */
    char host[65];       /* its name */
    char machine[33];    /* /etc/machine-id; empty where there is none */
    char boot[37];       /* /proc/sys/kernel/random/boot_id */
    char mountpoint[256];
};

/* Words in memory that outlives a worker and not the mount: what a backend must know of the worker before (law 10). */
#define DATASTORE_NOTES 132

struct datastore {
    /* set at creation */
    const struct datastore_ops *ops;
    char name[DATASTORE_NAME_MAX + 1];
    char *url;
    char *faults;
    struct datastore_options options; /* its strings are owned */
    uint64_t timeout_ns;
    /* set before the first open, or as they are here */
    struct identity identity; /* zero: a mount without a name (tests) */
    unsigned reactors;        /* the mount's reactors are 0 … reactors-1; at most REACTORS_GUEST_MAX */
    _Atomic uint64_t *notes;  /* DATASTORE_NOTES words, zero in a new mount; NULL: own_notes is used */
    _Atomic uint64_t own_notes[DATASTORE_NOTES];
    unsigned index; /* in the mount's array */
    struct pool *pool;
    void *state; /* the backend's */
    /* atomic */
    _Atomic uint32_t guests; /* ios in flight on its images, but for those that are IO_COPY or IO_OWN */
    _Atomic uint32_t copies; /* those that are IO_COPY */
    _Atomic bool away;       /* open failed and was not done again yet */
    _Atomic bool stopping;   /* the mount ends: what waits in open gives up */
    /* set by who made this datastore for its own raw image: the one that the mount knows; NULL: itself */
    struct datastore *above;
};

/* Makes the object and its pool and finds the backend by the URL's scheme among backends (NULL-terminated array); does
 * not open it. 0, or -errno with a sentence (-EINVAL unknown scheme). */
int datastore_new(struct datastore **out, const struct datastore_options *options,
    const struct datastore_ops *const *backends, struct sentence *why);

/* Opens, or opens again, what is there. Blocks. 0 or -errno with the sentence; sets away. */
int datastore_open(struct datastore *datastore, struct sentence *why);

/* Closes and frees. Blocks until its pool has ended. NULL is fine. */
void datastore_free(struct datastore *datastore);

/* What waits in open looks at it: true: give up. As long as the datastore. Any thread. */
static inline const _Atomic bool *datastore_stopping(const struct datastore *datastore)
{
    return datastore->above ? &datastore->above->stopping : &datastore->stopping;
}

/* Ios in flight on its images: the guests', and the copiers'. Any thread. */
static inline unsigned datastore_guests(const struct datastore *datastore)
{
    return atomic_load_explicit(&datastore->guests, memory_order_relaxed);
}

static inline unsigned datastore_copies(const struct datastore *datastore)
{
    return atomic_load_explicit(&datastore->copies, memory_order_relaxed);
}

/* One of the DATASTORE_NOTES words. Any thread. */
_Atomic uint64_t *datastore_note(struct datastore *datastore, unsigned number);
