/* job: one migration of one disk, or of a directory with all that is below it, from the command to its end. Runs on a thread of its own (control path: it may
 * block); everything about bytes is done on a reactor by the disk, the mirror and the copier.
 *
 *   QUEUED → OPENING → COPYING → MIRRORED → SWITCHING → DONE
 *   COPYING/MIRRORED → PAUSED → COPYING        any state before the commit → CANCELLED | FAILED
 *   with verify: COPYING → VERIFYING → MIRRORED, and back to COPYING what differs */
#pragma once

#include "catalog/jobs.h"
#include "io/disk.h"

enum job_state {
    JOB_QUEUED,
    JOB_OPENING,
    JOB_COPYING,
    JOB_VERIFYING,
    JOB_MIRRORED,
    JOB_SWITCHING,
    JOB_PAUSED,
    JOB_DONE,
    JOB_CANCELLED,
    JOB_FAILED,
    JOB_RESCUED, /* as DONE, but for bytes that could not be read */
};
#define JOB_STATES (JOB_RESCUED + 1)

/* "copying" */
const char *job_state_name(enum job_state state);
/* Is the move from → to one of the diagram's? Pure. */
bool job_may_move(enum job_state from, enum job_state to);

enum job_format { JOB_FORMAT_SAME, JOB_FORMAT_THIN, JOB_FORMAT_THICK };

/* What was asked for, checked. */
struct job_request {
    unsigned target; /* datastore index */
    enum job_format format;
    uint64_t rate;       /* bytes a second, 0: none */
    bool manual;         /* switchover=manual */
    bool rescue;         /* what cannot be read is given up, listed, and zeroes on the target */
    bool verify;         /* the legs are compared before it is MIRRORED */
    bool paused;         /* begins paused */
    uint64_t latency_ns; /* of a hundred requests of the guest at most one takes longer, for the copy's sake; 0: none */
    uint64_t until;      /* deadline: seconds since the epoch; 0: none */
    uint64_t keep_ns;    /* the old disk is kept so long after the switchover; 0: it is not */
    uint64_t undo_until; /* of a reverse job: seconds since the epoch; 0: it is none */
    char text[512];
};

struct job;
struct journal_files;
struct disk_log;

/* What a job needs of the mount. */
struct job_services {
    struct catalog *catalog;
    struct reactor **reactors;
    unsigned reactor_count;
    uint64_t target_timeout_ns;
    struct journal_files *journals; /* NULL: none are kept */
    uint64_t epoch_ns;              /* from one epoch to the next */
    unsigned window, guest_window;  /* regions in flight of the copier; the second while the guest is at work */
    int (*open_disk)(void *argument, uint64_t node, struct disk **out); /* blocks */
    void *argument;
    void (*resting)(void *argument_of_ended, struct job *job); /* it only mirrors until it is undone: counts no more */
    void (*ended)(void *argument_of_ended, struct job *job);   /* on the job's thread, its last act */
    void *argument_of_ended;
};

/* A job in QUEUED. record->id 0: new; else taken up after a death. 0 or -errno. */
int job_new(struct job **out, const struct job_services *services, const struct job_request *request,
    const struct job_record *record);
/* It runs from now on. 0 or -errno. */
int job_start(struct job *job);
/* It may have to wait for its turn: its thread looks after its journal until job_start, so that nobody waits for one that
 * fails. 0 or -errno. */
int job_watch(struct job *job);
/* Waits for the thread, if any, and frees. NULL is fine. */
void job_free(struct job *job);

uint64_t job_id(struct job *job); /* of its record */
uint64_t job_node(const struct job *job);
struct catalog *job_catalog(const struct job *job);
enum job_state job_state(struct job *job);
bool job_ended(struct job *job);
bool job_cancelled(struct job *job); /* asked for */
bool job_is_member(const struct job *job);
/* A directory's job: calls use with the member that moves the node and passes its result on; -ENOENT: there is none. */
int job_with_member(struct job *job, uint64_t node, int (*use)(void *argument, struct job *job), void *argument);

/* The log that the job's disk must have before it is served, with a reference; NULL: none. Any thread. */
struct disk_log *job_log(struct job *job);
/* A dead worker's committed move: record is the disk's next job's (its reverse's, for one), which begins when what is left of
 * it is done. 0 or -errno. Before the job is started. */
int job_follow(struct job *job, const struct job_record *record, const struct job_request *request);
/* A dead worker's member of this directory's job, by its record. 0 or -errno. Before the job is started. */
int job_adopt(struct job *job, const struct job_record *record);

/* Any thread, never block. 0; -EINVAL: not in this state; -EBUSY: too late (switching). */
int job_cancel(struct job *job);
int job_pause(struct job *job);
int job_resume(struct job *job);
int job_switchover(struct job *job);
/* A reverse job's. -ENOENT: the job keeps nothing. */
int job_undo(struct job *job);
int job_release(struct job *job);
/* Does it keep an old disk, and nothing was asked of it yet? *left: for how many seconds. */
bool job_keeps(struct job *job, uint64_t *left);
/* Is it not gone yet, or not asked back? *left: 0 when it is about to go. */
bool job_still_keeps(struct job *job, uint64_t *left);
/* Is progress still that of the move before it? So it is while a disk is kept, and when it is kept no longer. */
bool job_told_by_the_last(struct job *job);
int job_set_rate(struct job *job, uint64_t rate);
uint64_t job_rate(struct job *job);
/* What was asked for, with the rate and the pause as they are now; text is as it was. */
struct job_request job_request(struct job *job);
/* The worker ends: the job stops where it is, its record stays; takes it up again. */
void job_suspend(struct job *job);
/* Waits until the job has ended or delay_ns is over; true: ended. */
bool job_wait(struct job *job, uint64_t delay_ns);

/* The progress line and the sentence of the failure ("" if none). */
void job_describe(struct job *job, struct job_result *out);
