/* disk: the logical file that the guest holds open. Its bytes live on one image, the truth; during a migration a mirror
 * is attached, and each request is decided by the router. disk_submit is the one way to a disk's bytes, for the guest's
 * requests as for truncate and fallocate. */
#pragma once

#include <pthread.h>

#include "io/image.h"
#include "io/lock.h"

struct disk;
struct disk_io;
struct mirror;

/* One request on a disk. Embedded in its owner; zero-fill, set the first part, submit. */
struct disk_io {
    enum verb verb;
    unsigned flags; /* io_flags */
    struct extent extent;
    struct iovec *iov; /* READ, WRITE; READ past the disk's end is the caller's to clamp */
    int iov_count;

    int result;    /* 0 or -errno */
    bool map_data; /* VERB_MAP; extent.end shrinks as for an image */

    /* Both on the reactor that submitted, once each, answered first. answered: the result is known; the guest may be told.
     * released: no leg refers to the memory of iov or to this structure any more (law 7). */
    void (*answered)(struct disk_io *io);
    void (*released)(struct disk_io *io);

    /* the disk's */
    struct disk *disk;
    struct reactor *reactor;
    struct list link;
    struct lock_request lock;
    struct io legs[2];
    struct mirror *mirror; /* reference held while in flight to the target */
    struct image *truth;
    uint64_t started, sent;
    struct task task;
    uint8_t pending; /* bits of legs in flight */
    uint8_t to;      /* bits of legs it was sent to */
    bool locked, is_answered, target_given_up;
};

/* A disk on an open image; takes the caller's reference of it. id: the node's, for sentences and the log. timeout: the
 * datastore's, after which a request is answered -EIO and its ghost keeps its lock. */
int disk_new(struct disk **out, uint64_t id, struct image *truth);

struct disk *disk_get(struct disk *disk);
/* The last put, with no request in flight, closes the image on its datastore's pool. */
void disk_put(struct disk *disk);

uint64_t disk_id(const struct disk *disk);
uint64_t disk_size(const struct disk *disk);

/* From a reactor's thread; never blocks, never calls back from within. Takes a reference of the disk until released. */
void disk_submit(struct disk *disk, struct disk_io *io);

/* Locks that a dead worker's writes still need (ghosts): held until image_fence of the truth says that they cannot land.
 * Call before the disk's first submit. From a reactor's thread. */
void disk_add_ghost(struct disk *disk, struct extent extent);

/* Ends requests whose time is over; called by a timer on each reactor for that reactor's requests. */
void disk_expire(struct reactor *reactor);
