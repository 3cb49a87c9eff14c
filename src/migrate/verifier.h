/* verifier: compares the legs of a mirror whose regions are all routed, with a window of comparisons in flight, until
 * every region has been found equal, or made dirty to be copied again. Lives on one reactor; made, steered and stopped
 * from a job's thread. */
#pragma once

#include "io/disk.h"
#include "io/mirror.h"

#define VERIFIER_TRIES 3 /* as often a region may differ */

struct verifier;

struct verifier_options {
    struct disk *disk;
    struct mirror *mirror;
    struct reactor *reactor;
    unsigned window;       /* regions in flight */
    unsigned guest_window; /* while the guest has requests in flight; at least 1 */
    bool rescue;           /* regions that the source cannot read any more are not compared */
    uint64_t rate;         /* bytes of each leg a second, 0: none */
    /* On the reactor, must not block. done: the sweep has ended: all is equal (mirror_uncompared is 0), or regions are
     * not routed (any more); copy them and kick. differs: the legs differ in extent, which is dirty now, for the so
     * manieth time; the last time there is nothing more to be had. failed: the source cannot be read at offset (the
     * target's failures go to the mirror's diverged). */
    void (*done)(void *job);
    void (*differs)(void *job, struct extent extent, unsigned times);
    void (*failed)(void *job, uint64_t offset, int error);
    void *job;
};

struct verifier_progress {
    uint64_t verified;    /* bytes of the disk that were found equal, holes included */
    uint64_t differences; /* regions that were not, each time */
};

/* The mirror is attached to the disk already; mirror_compare_begin is done here. 0 or -ENOMEM. */
int verifier_start(struct verifier **out, const struct verifier_options *options);

void verifier_pause(struct verifier *verifier, bool paused);
/* Any thread, never blocks; felt within 100 ms. */
void verifier_set_rate(struct verifier *verifier, uint64_t rate);
/* After done: what differed has been copied again. */
void verifier_kick(struct verifier *verifier);
struct verifier_progress verifier_progress(struct verifier *verifier);

/* As copier_stop: after it returns no callback is called and no region lock is held; what still hangs in a leg keeps
 * its memory alone until it ends. NULL is fine. */
void verifier_stop(struct verifier *verifier);
