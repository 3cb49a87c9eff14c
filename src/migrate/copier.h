/* copier: sweeps a disk, with a window of copies in flight, until every region of its mirror is routed. Lives on one
 * reactor; made, steered and stopped from a job's thread. */
#pragma once

#include "io/disk.h"
#include "io/mirror.h"
#include "migrate/marks.h"

struct copier;

struct copier_options {
    struct disk *disk;
    struct mirror *mirror;
    struct reactor *reactor;
    unsigned window;       /* regions in flight */
    unsigned guest_window; /* while the guest has requests in flight; at least 1 */
    uint64_t rate;         /* bytes a second, 0: none */
    uint64_t latency_ns;   /* see pace.h; 0: none. The mirror counts what is late. */
    uint64_t until_ns;     /* clock_now() units; 0: none */
    struct marks *marks;   /* NULL: where the target is written need not be recorded */
    /* Ask for the space of data before it is written: filesystems make a write into a hole wait for all others to the
     * file, those of the guest included. */
    bool allocate;
    bool dense;  /* zeroes and holes are written, too: the target is to be allocated whole and cannot be asked for it */
    bool rescue; /* pages that cannot be read are given up as lost (mirror_lost), after all else has been copied */
    /* On the reactor, must not block. done: all regions are routed and the target has the disk's size. failed: the
     * source cannot be read at offset; -EHOSTDOWN: it cannot be read at all any more (the target's failures go to the mirror's diverged). */
    void (*done)(void *job);
    void (*failed)(void *job, uint64_t offset, int error);
    void *job;
};

struct copier_progress {
    uint64_t copied;            /* bytes of data written to the target by the copier */
    uint64_t skipped;           /* bytes of holes and zeroes */
    uint64_t steady_at, steady; /* clock_now() when it had come to its pace, and both together then; 0: not yet */
};

/* The mirror is attached to the disk already. 0 or -ENOMEM. */
int copier_start(struct copier **out, const struct copier_options *options);

void copier_pause(struct copier *copier, bool paused);
/* Any thread, never blocks; felt within 100 ms. */
void copier_set_rate(struct copier *copier, uint64_t rate);
/* Regions became dirty again after done. */
void copier_kick(struct copier *copier);
struct copier_progress copier_progress(struct copier *copier);

/* After it returns no callback is called and no region lock is held; what still hangs in a leg keeps its memory alone
 * until it ends. The mirror must be dropped, flipped or without regions left: what is in flight to the target does not
 * count any more. */
void copier_stop(struct copier *copier);
