/* A disk's inside, for the files of this folder that are its parts. */
#pragma once

#include "io/disk.h"

struct disk {
    /* set at creation */
    uint64_t id;
    struct region_lock lock;
    /* under mutex */
    pthread_mutex_t mutex;
    struct image *truth;
    struct mirror *mirror;
    struct disk_log *log;
    unsigned own_flushes; /* in flight */
    int flush_error;      /* of one of those: the guest has to hear it */
    struct list flushes;  /* the guest's that have ended and wait for those */
    /* atomic */
    _Atomic uint32_t references;
    _Atomic uint32_t mirrored; /* requests that hold the mirror and are not judged yet */
    _Atomic uint32_t in_flight;
    _Atomic uint32_t ghosts; /* changes that were given up on and hold their lock */
    _Atomic uint64_t worst;
};

/* The read has failed on the source: may the target be asked? */
bool disk_may_ask_again(struct disk_io *io);
/* The target's answer to it; if it has none, the source's error stands. */
int disk_result_again(struct disk_io *io);
/* Both legs have answered: where they have what was written, nothing is lost any more. */
void disk_note_both(struct disk_io *io);

/* After a flip, of a request that was sent to both legs: does it wait for the old source, which is kept as the target of a
 * reverse mirror? Its results: 0 while a leg is pending. When both have ended, what differs is noted there. */
bool disk_kept_waits(struct disk_io *io, int source, int target);
/* The kept leg's time is over and it was dropped: the request is judged again. */
bool disk_kept_expires(struct disk_io *io, uint64_t now);
