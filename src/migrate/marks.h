/* marks: what is durably known of the two legs of one job, and law 2's gate before a change (see marks.c). It is the
 * disk's log (src/io/disk.h) and keeps the job's journal. Functions are for the job's thread, but where it says more. */
#pragma once

#include "io/disk.h"
#include "io/mirror.h"
#include "migrate/journal.h"

struct marks;

/* Nothing counts as copied; no journal until the first epoch. 0 or -ENOMEM. */
int marks_new(struct marks **out, struct journal_files *files, uint64_t job, const char *partial);
/* From the job's journal, made durable again. Blocks. 0; -ENOENT: none, or one of another partial; other errors: it cannot be
 * used, see marks_new_blocked. */
int marks_load(struct marks **out, struct journal_files *files, uint64_t job, const char *partial);
/* For a journal that may hold more than can be read: has failed from the start, and every change waits for marks_void. */
int marks_new_blocked(struct marks **out);
/* Ends the thread that writes, which may hang, and gives up the job's reference. The copier is stopped. What else
 * waits, waits for ever: the disk is closed, or the marks are void. NULL is fine. */
void marks_end(struct marks *marks);

/* The disk's log; it lives as long as somebody refers to it. */
struct disk_log *marks_log(struct marks *marks);

/* The target was written everywhere. Before the first epoch. */
void marks_touch_all(struct marks *marks, uint64_t regions);
/* Is there a journal to go on from? */
bool marks_durable(struct marks *marks);
/* Tells the mirror, which is attached, what agrees and what was touched; returns the number of regions that agree. Law 3: only
 * what an epoch has made durable and no mark speaks against. A change that is not marked yet is sent after this, to both
 * legs; one that is has its region copied again. */
uint64_t marks_seed(struct marks *marks, struct mirror *mirror);

/* The copier is about to write the target: as disk_log.mark, but only "touched" is recorded. Reactor's thread. */
bool marks_touch(struct marks *marks, struct log_request *request);

/* The first epoch makes the journal, and nothing counts yet. An epoch: begin · every change that was sent before has ended · both legs flushed by the caller · end. begin: 0; -EAGAIN:
 * changes from before the last begin are still under way; -ENOMEM; last: the disk is about to be closed. settled: waits at most so long; true: they have. end:
 * blocks until it is durable: 0 or -errno. abandon instead of end: as if it had not begun. */
int marks_epoch_begin(struct marks *marks, struct mirror *mirror, bool last);
bool marks_epoch_settled(struct marks *marks, uint64_t timeout_ns);
int marks_epoch_end(struct marks *marks, struct mirror *mirror, uint64_t deadline_ns);
void marks_epoch_abandon(struct marks *marks);
/* Would an epoch change anything? */
bool marks_epoch_wanted(struct marks *marks, struct mirror *mirror);

/* All that counts is marked: until the next epoch no change waits for the journal. Blocks, at most so long. 0, -ETIMEDOUT,
 * -EIO. */
int marks_cover(struct marks *marks, uint64_t size, uint64_t deadline_ns);

/* The journal cannot be written, or has not been within the deadline. Any thread. */
bool marks_failed(struct marks *marks, uint64_t deadline_ns);
/* The partial is durably invalid: nothing counts any more, what waits goes on. Any thread. */
void marks_void(struct marks *marks);

struct marks_figures {
    uint64_t syncs;  /* of the journal, for marks and touches */
    uint64_t waited; /* changes that waited for one */
    uint64_t epochs;
    uint64_t marked; /* regions */
};
struct marks_figures marks_figures(struct marks *marks);
