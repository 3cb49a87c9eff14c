/* recover: what a job keeps from one attempt, worker or mount to the next: its journal and its partial. For the job's
 * thread; blocks. */
#pragma once

#include "migrate/inside.h"

/* At the job's making, before its disk is served: the marks of its journal, if there is one. 0 or -ENOMEM. */
int recover_load(struct job *job, const struct job_record *record);
/* Is there a partial to go on with? */
bool recover_possible(struct job *job);
/* Opens that partial, fenced from whatever was sent to it before. 0; -ENOENT: it is gone; else -errno. */
int recover_open(struct job *job, struct image **out);
/* A fresh partial is on record: its marks are the disk's log from now on. 0 or -ENOMEM. */
int recover_begin(struct job *job);
/* The attempt is over, and the target may be used again. */
void recover_keep(struct job *job, struct image *target);
/* The journal cannot be trusted to be written: makes the partial durably invalid, so that the guest's writes need no marks.
 * The job goes on without a journal. 0 or -errno: try again. */
int recover_void(struct job *job);
/* After the turn: marks are the job's from now on (or NULL); the old journal goes. */
void recover_replace(struct job *job, struct marks *marks);
/* Has the journal failed? */
bool recover_failed(struct job *job);
/* For a job, or a directory's members, whose turn has not come: recover_void where the journal has failed. */
void recover_look(struct job *job);
/* Is there anything to look at? Before the job is started. */
bool recover_has_marks(struct job *job);
/* No worker goes on with this job (committed, given up): the log is taken off and the journal removed. */
void recover_forget(struct job *job);
/* The worker ends; another goes on. */
void recover_leave(struct job *job);

/* An epoch, if one is due (or now); 0, or why there was none. epoch.c */
int epoch_make(struct job *job, bool last);
bool epoch_due(struct job *job);
