/* local: what the datastore of a directory and its images share. */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include <stdatomic.h>
#include <sys/stat.h>

#include "backends/aio.h"
#include "io/datastore.h"
#include "io/pool.h"

/* Gives back the blocks of a removed file. */
struct cutter {
    struct pool *pool; /* one thread */
    struct work work;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* under mutex */
    bool busy;
    uint64_t pieces;
    /* of the thread while busy */
    int fd;
    struct stat file;
    _Atomic uint64_t owed; /* bytes */
};

/* datastore->state of an open local datastore. */
struct local {
    int root; /* O_PATH */
    struct local_claim *claim;
    struct aio aio;
    struct pool *copies; /* what is sent for copiers */
    struct cutter cutter;
    /* under mutex: what images on a device can do, asked once */
    pthread_mutex_t mutex;
    bool probed;
    dev_t device;
    struct image_limits limits;
};

/* Opens what is below the root at path; no symlink is followed on the way, the last component included. Descriptor or
 * -errno. */
int local_resolve(const struct local *local, const char *path, int flags);

/* Opens again, with other flags, what an O_PATH descriptor stands for. Descriptor or -errno. */
int local_reopen(int path_fd, int flags);

/* name: of its thread. 0 or -errno. close waits until all is given back. */
int cutter_open(struct cutter *cutter, const char *name);
void cutter_close(struct cutter *cutter);

/* Bytes that will be free without anybody's doing. Any thread, never blocks. */
uint64_t cutter_owed(const struct cutter *cutter);

/* Who found the filesystem full waits until more was given back; false: there was nothing to wait for. Any thread but a
 * reactor. */
bool cutter_wait(struct cutter *cutter);

/* As unlinkat(2) of what is no directory; what the file's blocks cost is spread, so that others on the filesystem wait for
 * no part of it for long, and left to the cutter, if it is idle. Blocks. */
int local_unlink(struct cutter *cutter, int parent, const char *leaf);

/* Makes this mount the only one that uses the directory; -EBUSY with a sentence that names the other. Blocks, as
 * owner_claim does. unclaim gives it back. */
int local_claim(struct datastore *datastore, struct local *local, struct sentence *why);
void local_unclaim(struct local *local);

/* Another mount has taken the directory over: nothing may be changed. Any thread, never blocks. */
bool local_is_lost(const struct local *local);

/* datastore_ops.open_image */
int local_open_image(struct datastore *datastore, const char *path, bool writable, struct image **out);

#define PROC_FD_MAX 32

/* "/proc/self/fd/N", for the calls that know no O_PATH descriptor. */
const char *local_proc_fd(char name[static PROC_FD_MAX], int fd);
