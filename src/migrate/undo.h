/* undo: the old source is kept after the switchover, as the target of a reverse job that is born mirrored (see undo.c). For the
 * job's thread. */
#pragma once

#include "migrate/inside.h"

/* Before the commit: the reverse's record and mirror, if the request says keep. *out: the record for jobs_commit, or NULL. 0 or
 * -errno with the sentence. */
int undo_prepare(struct job *job, struct job_record **out);
/* The commit is durable: flips the disk, and turns the mirror round. False: nothing is kept, the caller flips. */
bool undo_turn(struct job *job);
/* It did not come to that. */
void undo_drop(struct job *job);

/* The forward move has ended as done: the job becomes its reverse. False: nothing is kept. */
bool undo_begin(struct job *job);
/* Is the job a reverse that waits to be undone or released, and not asked for either yet? Under mutex. */
bool undo_waits(const struct job *job);
/* Seconds until the old source is removed. */
uint64_t undo_left(const struct job *job);
/* Has its time come? */
bool undo_over(struct job *job);
/* Before a reverse that another worker has left is begun: its forward move is completed. 0 or -ESHUTDOWN. Blocks. */
int undo_settle(struct job *job);
