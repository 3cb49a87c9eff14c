/* What the files of the migrate room share of a job; nobody else includes it. */
#pragma once

#include <pthread.h>

#include "io/mirror.h"
#include "migrate/copier.h"
#include "migrate/job.h"
#include "migrate/marks.h"
#include "migrate/verifier.h"

enum job_event {
    JOB_EVENT_SUSPEND,
    JOB_EVENT_CANCEL,
    JOB_EVENT_JOURNAL, /* it has failed */
    JOB_EVENT_EPOCH,   /* one is due */
    JOB_EVENT_DIVERGED,
    JOB_EVENT_SOURCE,
    JOB_EVENT_OVER, /* what was kept is to be kept no longer */
    JOB_EVENT_LIES, /* the target does not keep what it is given */
    JOB_EVENT_PAUSE,
    JOB_EVENT_RESUME,
    JOB_EVENT_COPIED,
    JOB_EVENT_VERIFIED,
    JOB_EVENT_SWITCH,
    JOB_EVENT_LED, /* a member's directory has switched it, or could not: led_result */
};

struct job {
    /* set at creation */
    struct job_services services;
    struct job_request request;
    struct reactor *reactor;
    uint64_t id, node;  /* the record's */
    bool directory;     /* moves with all that is below: family.c */
    bool special;       /* a member without bytes: a symlink, a fifo, a socket, a device node */
    struct job *leader; /* of a member: its directory's job */
    /* the job's thread */
    struct job_record record;
    pthread_t thread;
    struct disk *disk;
    bool thick;     /* the target is allocated whole */
    bool recovered; /* committed by a dead worker */
    bool outage;    /* the attempt ended because a datastore does not answer: that passes */
    /* of a move with keep: the reverse job's, and the mirror that was turned round, while requests refer to it */
    struct job_record reverse; /* id 0: none */
    struct job_request reverse_request;
    struct mirror *born, *turned;
    bool rests;              /* it was told that the job is at rest */
    bool unlogged;           /* without a journal: it has failed once */
    struct image *stale;     /* the target as the attempt before left it */
    uint64_t epoch_at, kept; /* kept: bytes that the attempt or the worker before had copied */
    uint64_t started;
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    enum job_state state;
    bool running, turn, ended, suspend, cancel, pause, switchover, copied;
    bool diverged, source_failed, verified, lies;
    bool news;            /* something was asked for, or happened to a member */
    bool enlisted, led;   /* a member: the directory's job has it in hand; it is done with it */
    int led_result;       /* as job_switch */
    struct job **members; /* a directory's; they stay until it is freed */
    size_t member_count, member_room;
    struct extent failed_at;
    enum verb failed_verb;
    int failed_error;
    struct mirror *mirror; /* set and cleared by the job's thread */
    struct copier *copier;
    struct marks *marks;       /* NULL: nothing is known durably */
    struct verifier *verifier; /* NULL: nothing was compared yet */
    uint64_t rate, total, copying_since, pause_ns, took_ns;
    struct copier_progress copied_total;        /* of the last attempt */
    uint64_t mirrored_total, reads_total, lost; /* lost: bytes, as the commit found them */
    struct verifier_progress verified_total;    /* of the last attempt; differences: of all */
    struct sentence error;
};

/* Asserts the diagram, logs one line. */
void job_move(struct job *job, enum job_state to);
/* Notes the failure's sentence and returns error. */
int job_fail(struct job *job, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The attempt failed by error, of a datastore that may be there again later, or not: notes which, returns -EAGAIN; or the
 * error, if it does not pass by itself. */
int job_retry(struct job *job, const struct datastore *datastore, int error);
/* Waits for what is to be done next. */
enum job_event job_next(struct job *job);
/* Sleeps at most delay_ns; true: the worker ends, let go. */
bool job_sleep(struct job *job, uint64_t delay_ns);
/* Parked requests of the disk are judged again, on every reactor. */
void job_unpark(struct job *job);
/* job_describe, with the state that the job is about to have. */
void job_describe_as(struct job *job, enum job_state state, struct job_result *out);
/* "moving disk /web01/disk.img from datastore a to datastore b" */
void job_title(struct job *job, char *out, size_t size);
struct datastore *job_source(struct job *job);
struct datastore *job_target(struct job *job);
/* A mirror of the job with this target, whose reference it takes. 0 or -ENOMEM. */
int job_new_mirror(struct job *job, struct image *target, struct mirror **out);
/* How long a request of the guest may wait for the target, or for the journal (law 13), ns. */
uint64_t job_patience(struct job *job);

/* One attempt, from OPENING: a fresh partial to the end. 0 done; -ECANCELED; -ESHUTDOWN suspended; -EAGAIN the target failed (a new
 * attempt may be made); other -errno: failed for good. With the sentence noted. */
int job_attempt(struct job *job);
/* All is routed: MIRRORED, or first VERIFYING. 0 or -ENOMEM with the sentence. compare.c */
int job_copied(struct job *job);
/* The verifier's sweep has ended: MIRRORED, or COPYING. */
void job_verified(struct job *job);
/* The target does not keep what it is given: the sentence, returns the error. */
int job_lies(struct job *job);
/* Its figures are kept; NULL: there is none. Under mutex. */
struct verifier *job_take_verifier(struct job *job);
/* All is routed: commit and flip. As job_attempt; 1: regions became dirty, copy on. */
int job_switch(struct job *job);
/* Its first step: attributes and flush of the target. As job_attempt. */
int job_prepare(struct job *job);
/* The same for a directory: from OPENING until all of its members have switched and ended, or none will. */
int family_run(struct job *job);
/* Something happened to a member. Its mutex is not held. */
void family_notify(struct job *leader);
/* Before the commit, all is routed: what is lost is listed, told, and the record says that the source is kept. 0, or -ENOMEM
 * with the sentence. */
int rescue_settle(struct job *job);
/* The same for a directory's job, after its members: returns how many bytes. */
uint64_t rescue_settle_family(struct job *job, struct job **members, size_t count);
/* Has the job that switched lost anything? */
bool rescue_lost(struct job *job);
/* Of a job that a dead worker committed: what that one had stored. */
void rescue_recall(struct job *job);
/* After the commit is durable: rename, remove the source, drop the record. */
void job_complete(struct job *job);
/* All members are mirrored: 0: they have switched, all of them; 1: none has, go on; -ESHUTDOWN. together.c */
int family_switch(struct job *job);
