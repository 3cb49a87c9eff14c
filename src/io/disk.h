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

/* What a change of bytes asks of the log of its disk. Embedded in its owner. */
struct log_request {
    struct extent extent;
    enum { LOG_BOTH, LOG_MARK, LOG_TOUCH } touch; /* a resize writes nothing: LOG_MARK; LOG_TOUCH: the target alone */
    void (*logged)(struct log_request *request);
    /* the log's */
    struct list link;
    unsigned epoch;
};

/* The log of a disk that moves (law 2). Embedded in its owner, and shared: get and put count. */
struct disk_log {
    /* The bytes of extent are about to be changed, their region lock is held. True: go on. False: logged is called later,
     * once, from any thread. From a reactor's thread, never blocks. */
    bool (*mark)(struct disk_log *log, struct log_request *request);
    /* No leg will change bytes for it any more. Once for each mark that let it go on. Any thread. */
    void (*settled)(struct disk_log *log, struct log_request *request);
    void (*release)(struct disk_log *log); /* by the last put */
    _Atomic uint32_t references;
};

struct disk_log *disk_log_get(struct disk_log *log);
void disk_log_put(struct disk_log *log);

/* One request on a disk. Embedded in its owner; zero-fill, set the first part, submit. */
struct disk_io {
    enum verb verb;
    unsigned flags; /* io_flags */
    struct extent extent;
    struct iovec *iov; /* READ, WRITE; READ past the disk's end is the caller's to clamp */
    int iov_count;

    int result;    /* 0 or -errno */
    bool map_data; /* VERB_MAP; extent.end shrinks as for an image */

    /* Both on the reactor that submitted, once each, answered first. answered: the result is known; the guest may be
     * told. released: no leg refers to the memory of iov or to this structure any more (law 7). */
    void (*answered)(struct disk_io *io);
    void (*released)(struct disk_io *io);

    /* the disk's */
    struct disk *disk;
    struct reactor *reactor;
    struct list link; /* in reactor_pending */
    struct lock_request lock;
    struct log_request mark;
    struct disk_log *log;  /* reference held, or NULL */
    struct io legs[2];     /* source (or the one image), target */
    struct image *truth;   /* reference held */
    struct mirror *mirror; /* reference held, or NULL */
    uint64_t started, sent;
    struct task task;
    unsigned pending, to; /* enum leg */
    enum { DISK_IO_WAITING, DISK_IO_MARKING, DISK_IO_SENT, DISK_IO_FLUSHED, DISK_IO_PARKED, DISK_IO_DONE } state;
    bool locked, is_answered, ghost;
    bool again; /* READ: the source failed; the target is asked */
};

/* A disk on an open image; takes the caller's reference of it. id: the node's, for sentences and the log. timeout: the
 * datastore's, after which a request is answered -EIO and its ghost keeps its lock. */
int disk_new(struct disk **out, uint64_t id, struct image *truth);

struct disk *disk_get(struct disk *disk);
/* The last put, with no request in flight, closes the image on its datastore's pool. */
void disk_put(struct disk *disk);

/* How many hold the disk; 1: the caller alone (and nobody can come but through him). */
unsigned disk_references(struct disk *disk);

uint64_t disk_id(const struct disk *disk);
uint64_t disk_size(struct disk *disk);

/* From a reactor's thread; never blocks, never calls back from within. Takes a reference of the disk until released. */
void disk_submit(struct disk *disk, struct disk_io *io);

/* Locks that a dead worker's writes still need (ghosts): held until image_fence of the truth says that they cannot
 * land. Call before the disk's first submit. From a reactor's thread. */
void disk_add_ghost(struct disk *disk, struct extent extent);

/* Ends requests whose time is over: the datastore's timeout, or the target's. A timer of each reactor calls it for its
 * own. */
void disk_expire(struct reactor *reactor);

/* From now on changes are marked in the log before they are sent; NULL: no more. Takes a reference of its own. Those that
 * were sent before are not known to it. Any thread. */
void disk_set_log(struct disk *disk, struct disk_log *log);

/* For migrations. Reactor's thread only, except disk_truth.
 *
 * disk_attach: from now on requests are routed by the mirror; takes a reference. The caller holds the region lock
 * (COPY) from the disk's size to the end, and the target has that size. -EBUSY when a mirror is there. disk_flip: the
 * commit is durable; reads and writes go to the target from now on, nobody waits. disk_detach: the mirror is left
 * behind; after a flip call it only when disk_mirror_idle: until then reads still respect writes that were sent to
 * both. */
int disk_attach(struct disk *disk, struct mirror *mirror);
void disk_flip(struct disk *disk, struct mirror *mirror);
/* As disk_flip, and from now on reverse, whose target is the source, is attached and log is its log (or NULL). mirror was
 * told by mirror_set_reverse. */
void disk_turn(struct disk *disk, struct mirror *mirror, struct mirror *reverse, struct disk_log *log);
void disk_detach(struct disk *disk, struct mirror *mirror);
bool disk_mirror_idle(struct disk *disk, struct mirror *mirror);

/* The commit's outcome is known: parked requests are judged again. On the reactor that each belongs to: call on every
 * reactor. */
void disk_unpark(struct reactor *reactor);

/* The image that is the truth, with a reference. */
struct image *disk_truth(struct disk *disk);
struct region_lock *disk_lock(struct disk *disk);
struct datastore *disk_datastore(struct disk *disk);

/* Requests that were submitted and are not answered and done with; a job's own (IO_OWN) do not count. Any thread. */
unsigned disk_in_flight(struct disk *disk);

/* The longest time from submit to answer since the last call with reset, ns. */
uint64_t disk_worst(struct disk *disk, bool reset);
