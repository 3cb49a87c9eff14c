/* mirror: the second leg of a disk while it moves, with the bookkeeping of what has been copied. A job makes it,
 * attaches it to the disk and hands it two hooks; the disk asks it where requests go. Any thread; nothing blocks.
 *
 * Invariants (design, laws 1, 3, 4, 5, 13):
 *  1. routed(r) is set only under the region lock of r, when target and source agree there; cleared only by a source
 * leg that failed while the target's did not (the legs differ).
 *  2. touched(r): this mirror's job or a guest's write through it has written the target's region r: a hole of the
 * source must then be zeroed there, not skipped.
 *  3. The phase moves ATTACHED → COMMITTING → FLIPPED, COMMITTING → ATTACHED, ATTACHED → DROPPED, and no other way. */
#pragma once

#include "io/image.h"
#include "io/router.h"

struct mirror;
struct disk;

struct mirror_hooks {
    /* Law 2, for the journal: makes the extent's regions marked, or returns false and calls disk_marked(io) later.
     * NULL: none. */
    bool (*mark)(void *job, struct extent extent, void *io);
    /* The target was dropped: once, from any thread, under the mirror's lock:
     * notes it and wakes the job's thread, calls nothing of the mirror. */
    void (*diverged)(void *job, struct extent extent, enum verb verb, int error);
};

/* size: the disk's. Takes the caller's reference of target. */
int mirror_new(struct mirror **out, struct image *target, uint64_t size, uint64_t target_timeout_ns,
    const struct mirror_hooks *hooks, void *job);
struct mirror *mirror_get(struct mirror *mirror);
void mirror_put(struct mirror *mirror);

struct image *mirror_target(const struct mirror *mirror);
uint64_t mirror_target_timeout(const struct mirror *mirror);
enum mirror_phase mirror_phase(struct mirror *mirror);

/* A request on extent is about to be sent, its region lock held: grows the bookkeeping to extent.end (regions wholly
 * past the old size are empty on both legs: routed at once), notes touched where it will go to both. Returns its legs.
 */
unsigned mirror_route(struct mirror *mirror, enum verb verb, struct extent extent);

/* Copier's side. region_lock of the regions is held. */
void mirror_set_routed(struct mirror *mirror, struct extent extent);
bool mirror_touched(struct mirror *mirror, struct extent extent);
void mirror_touch(struct mirror *mirror, struct extent extent);
/* The legs may differ in extent: to be copied again. */
void mirror_set_dirty(struct mirror *mirror, struct extent extent);
/* First region ≥ from that is not routed; the number of regions when there is none. */
uint64_t mirror_next_unrouted(struct mirror *mirror, uint64_t from);
uint64_t mirror_regions(struct mirror *mirror);
uint64_t mirror_unrouted(struct mirror *mirror); /* how many */

/* ATTACHED → DROPPED; calls diverged. False when it was not attached (any more). */
bool mirror_drop(struct mirror *mirror, struct extent extent, enum verb verb, int error);
/* ATTACHED → COMMITTING; false when the target has been dropped or regions are not routed. */
bool mirror_commit_begin(struct mirror *mirror);
/* COMMITTING → ATTACHED: the commit is known not to be durable. */
void mirror_commit_failed(struct mirror *mirror);
/* COMMITTING → FLIPPED; called by disk_flip. */
void mirror_flip(struct mirror *mirror);
/* Hooks and job are not used any more: after it returns no hook runs. */
void mirror_forget_job(struct mirror *mirror);

void mirror_count_written(struct mirror *mirror, uint64_t bytes);
uint64_t mirror_written(struct mirror *mirror);
