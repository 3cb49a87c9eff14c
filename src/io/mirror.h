/* mirror: the second leg of a disk while it moves, with the bookkeeping of what has been copied. A job makes it,
 * attaches it to the disk and hands it two hooks; the disk asks it where requests go. Any thread; nothing blocks.
 *
 * Invariants (design, laws 1, 3, 4, 5, 13):
 *  1. routed(r) is set only under the region lock of r, when target and source agree there; cleared only by a source
 * leg that failed while the target's did not (the legs differ).
 *  2. touched(r): this mirror's job or a guest's write through it has written the target's region r: a hole of the
 * source must then be zeroed there, not skipped.
 *  3. A lost page is in a routed region.
 *  4. The phase moves ATTACHED → COMMITTING → FLIPPED, COMMITTING → ATTACHED, ATTACHED → DROPPED, and no other way. */
#pragma once

#include "base/bits.h"
#include "io/image.h"
#include "io/lost.h"
#include "io/router.h"

struct mirror;
struct disk;

struct mirror_hooks {
    /* The target was dropped: once, from any thread, under the mirror's lock:
     * notes it and wakes the job's thread, calls nothing of the mirror. */
    void (*diverged)(void *job, struct extent extent, enum verb verb, int error);
};

/* size: the disk's. Takes the caller's reference of target. */
int mirror_new(struct mirror **out, struct image *target, uint64_t size, uint64_t target_timeout_ns,
    const struct mirror_hooks *hooks, void *job);
/* What an earlier attempt or worker has left on the target. routed: regions that agree; touched: groups of so many regions
 * that were written. Once it is attached, before anything is copied: no change that goes to the source alone may begin in
 * such a region meanwhile (marks_seed sees to that). */
void mirror_seed(struct mirror *mirror, const struct bits *routed, const struct bits *touched, uint64_t group);
/* Before it is attached: the disk has grown to size meanwhile, nobody knows with what: not routed. 0 or -ENOMEM. */
int mirror_extend(struct mirror *mirror, uint64_t size);
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
/* For epochs. A copy of the routed regions (0 or -ENOMEM); takes those that are not routed (any more) out of regions, returns
 * the number of regions. */
int mirror_routed(struct mirror *mirror, struct bits *out);
uint64_t mirror_keep_routed(struct mirror *mirror, struct bits *regions);
/* Before it is attached: the legs agree everywhere, and the target was written everywhere. */
void mirror_seed_all(struct mirror *mirror);
/* Before the flip of mirror: its source will go on as the target of reverse, so what is in flight still counts on both legs.
 * Keeps a reference. */
void mirror_set_reverse(struct mirror *mirror, struct mirror *reverse);
/* It, as long as it is attached; NULL: none. Valid as long as mirror is. */
struct mirror *mirror_reverse(struct mirror *mirror);
/* Do others than the caller refer to it (requests in flight do)? */
bool mirror_shared(struct mirror *mirror);
/* The legs may differ in extent: to be copied again. */
void mirror_set_dirty(struct mirror *mirror, struct extent extent);
/* First region ≥ from that is not routed; the number of regions when there is none. */
uint64_t mirror_next_unrouted(struct mirror *mirror, uint64_t from);
uint64_t mirror_regions(struct mirror *mirror);
uint64_t mirror_unrouted(struct mirror *mirror); /* how many */

/* Rescue: pages of the extent (whole regions, their lock held, about to be routed) that could not be read; what was said of
 * it before is forgotten. The target has zeroes there: no read is answered by them while the source is the truth, and no
 * epoch counts such a region as copied. 0 or -ENOMEM. */
int mirror_set_lost(struct mirror *mirror, struct extent extent, const struct lost *pages);
/* Both legs have new bytes there. */
void mirror_heal(struct mirror *mirror, struct extent extent);
/* Is a page of it lost? */
bool mirror_loses(struct mirror *mirror, struct extent extent);
/* A copy of what is lost; 0 or -ENOMEM. */
int mirror_lost(struct mirror *mirror, struct lost *out);

/* Pages of regions that are not routed yet, which could not be read and have not been written since. 0 or -ENOMEM. Lock as
 * for mirror_set_routed. */
int mirror_suspect(struct mirror *mirror, struct extent extent);
bool mirror_suspects(struct mirror *mirror, struct extent extent);

/* Does the target have the extent's bytes as the truth has them, or had? Region lock as COPY. */
bool mirror_holds(struct mirror *mirror, struct extent extent);
/* A read that the source could not answer was answered by the target; returns how many before. */
uint64_t mirror_count_read(struct mirror *mirror);
uint64_t mirror_reads(struct mirror *mirror);

/* Verifier's side. From mirror_compare_begin on, no commit begins while a region of the disk as it is then has not been
 * compared since it was last dirty. (What the disk grows by later was written to both legs alone.) 0 or -ENOMEM. */
int mirror_compare_begin(struct mirror *mirror);
/* region_lock of the regions is held, the legs are equal there. */
void mirror_set_compared(struct mirror *mirror, struct extent extent);
uint64_t mirror_next_uncompared(struct mirror *mirror, uint64_t from); /* as mirror_next_unrouted */
uint64_t mirror_uncompared(struct mirror *mirror);

/* ATTACHED → DROPPED; calls diverged. False when it was not attached (any more). */
bool mirror_drop(struct mirror *mirror, struct extent extent, enum verb verb, int error);
/* ATTACHED → COMMITTING; false when the target has been dropped, or regions are not routed or still to be compared. */
bool mirror_commit_begin(struct mirror *mirror);
/* COMMITTING → ATTACHED: the commit is known not to be durable. */
void mirror_commit_failed(struct mirror *mirror);
/* COMMITTING → FLIPPED; called by disk_flip. */
void mirror_flip(struct mirror *mirror);
/* Hooks and job are not used any more: after it returns no hook runs. */
void mirror_forget_job(struct mirror *mirror);

/* Of the guest's reads and writes, which are told when they are answered with what they took: how many, and how many took
 * longer than the latency (0, as it begins: none). Any thread, never block. */
void mirror_set_latency(struct mirror *mirror, uint64_t ns);
void mirror_served(struct mirror *mirror, uint64_t took_ns);
void mirror_lateness(const struct mirror *mirror, uint64_t *served, uint64_t *late);

void mirror_count_written(struct mirror *mirror, uint64_t bytes);
uint64_t mirror_written(struct mirror *mirror);
