/* jobs: the records of migrations, in the catalog's SQLite file. All block (SQLite); called on a job's thread or a
 * pool. */
#pragma once

#include "catalog/names.h"

enum job_record_state {
    JOB_RECORD_RUNNING,   /* partial belongs to it; starts over after a death */
    JOB_RECORD_COMMITTED, /* the node lives on the target under partial's name; rename and removal are to be completed
                           */
    JOB_RECORD_ABANDONED, /* cancelled or failed; the partial could not be removed yet */
    JOB_RECORD_MEMBER,    /* as RUNNING, of a directory's job, which makes it anew after a death */
};

struct job_record {
    uint64_t id;
    uint64_t node;
    unsigned source, target; /* datastore indexes */
    enum job_record_state state;
    char request[512];          /* the migrate command's text, to start over */
    char partial[PATH_MAX];     /* hidden path on the target, "" before it is made */
    char source_file[PATH_MAX]; /* what is to be removed on the source after the commit */
    char kept[PATH_MAX];        /* hidden path under which it is kept instead; "": it is not */
};

/* The last job of a node, for progress after the end. */
struct job_result {
    char line[1024];
    char error[SENTENCE_MAX];
};

/* Inserts (id 0: given a new one, written back) or updates. Durable on return (fsync). origin: the request that asks
 * for it, or NULL; it is recorded as done in the same transaction (law 9). */
int jobs_put(struct catalog *catalog, struct job_record *record, const struct origin *origin);
/* Has a worker that died recorded this request's job? 1: yes, 0: no, -errno. */
int jobs_recall(struct catalog *catalog, const struct origin *origin);
/* Another text of the request, for a worker that starts the job over. 0 also when the record is gone. origin: as jobs_put. */
int jobs_change(struct catalog *catalog, uint64_t id, const char *request, const struct origin *origin);
/* The job was told to stop: a RUNNING record becomes ABANDONED, durably, so that no worker starts it over. 0 also when
 * it is gone. origin: as jobs_put. */
int jobs_give_up(struct catalog *catalog, uint64_t id, const struct origin *origin);
/* The commit: in one durable transaction each record becomes COMMITTED and its node lives on record->target under
 * record->partial; with a family (else NULL), the record of a directory's job, the directory and those below it are at
 * home there too. reverse (or NULL): a record that is made with it, its id is written back. -ECANCELED: certainly not committed, a disk was unlinked. -EAGAIN: certainly not committed,
 * attributes that changed could not be copied to the target, or something below the directory is no member. Other
 * -errno: unknown outcome, the caller goes on mirroring and calls again (law 1). Memory is changed by jobs_flip. */
int jobs_commit(struct catalog *catalog, struct job_record **records, size_t count, struct job_record *family,
    struct job_record *reverse);
/* In memory, after jobs_commit, for each record and the family's: catalog_file now gives the target. Never blocks. */
void jobs_flip(struct catalog *catalog, const struct job_record *record);
/* After the commit: renames the partial to the node's path on the target (making directories), removes the source's
 * file, each durable before the next, drops the record. Blocks. Repeatable after a death at any step. keep_source: it
 * is left. */
int jobs_complete(struct catalog *catalog, const struct job_record *record, struct sentence *why);
/* The job failed or was cancelled: removes the partial, drops the record. */
int jobs_abandon(struct catalog *catalog, const struct job_record *record);

typedef int job_record_entry(void *argument, const struct job_record *record);
int jobs_list(struct catalog *catalog, job_record_entry *entry, void *argument);

int jobs_store_result(struct catalog *catalog, uint64_t node, const struct job_result *result);
/* -ENODATA: none. */
int jobs_load_result(struct catalog *catalog, uint64_t node, struct job_result *out);

/* Makes what a target needs: directories of the node's path on the target datastore, and the fresh hidden file
 * DATASTORE_PRIVATE/partial-… with the node's owner, mode, times and user xattrs. partial is filled. -EEXIST: the
 * target has a file at the node's path; -EISDIR a directory. */
int jobs_make_partial(struct catalog *catalog, struct job_record *record, struct sentence *why);
/* Copies owner, mode, times, user xattrs from the source's file to the partial and makes both the file's attributes and
 * its directory durable. */
int jobs_copy_attributes(struct catalog *catalog, const struct job_record *record, struct sentence *why);

/* Partial files on the datastores that no record owns are set aside as DATASTORE_PRIVATE/stray-… and named in the log.
 */
int jobs_set_aside_strays(struct catalog *catalog);

/* What a directory's job needs (family.c). The ids of what is below the directory: what is no directory and not on
 * target, at most most (-E2BIG), -EIO with the sentence where one is in conflict; or all directories, itself first,
 * parents before children. *ids is the caller's to free. -ENOENT: there is no such directory any more. */
int jobs_find_members(struct catalog *catalog, uint64_t directory, unsigned target, size_t most, uint64_t **ids,
    size_t *count, struct sentence *why);
int jobs_find_directories(struct catalog *catalog, uint64_t directory, uint64_t **ids, size_t *count);
/* Makes the directory on the target with its attributes and user xattrs, before the commit makes it its home. Blocks. */
int jobs_copy_directory(
    struct catalog *catalog, const struct job_record *family, uint64_t directory, struct sentence *why);
/* After the commit: completes the members that are not, takes the directories from the other datastores where they are
 * empty, and drops the record. Blocks. Repeatable. */
int jobs_complete_family(struct catalog *catalog, const struct job_record *family);
/* A move of the node is on record, not ABANDONED: its record's id; 0: none. */
uint64_t jobs_moving(struct catalog *catalog, uint64_t node);
/* Completes the node's COMMITTED move, if there is one. 0 or -EIO: try again later. Blocks. */
int jobs_settle_forward(struct catalog *catalog, uint64_t node);
/* Does the record of this id stand for a job that runs, or goes on? */
bool jobs_running(struct catalog *catalog, uint64_t id);
/* The directory above the node whose move is on record as RUNNING; 0: none. */
uint64_t jobs_family_of(struct catalog *catalog, uint64_t node);
/* A move of the node, of something below it or of a directory above it is on record (not ABANDONED): its node's id;
 * 0: none. */
uint64_t jobs_overlap(struct catalog *catalog, uint64_t node);
