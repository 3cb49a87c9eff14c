/* The catalog's inside, for the files of this folder. */
#pragma once

#include "base/clock.h"
#include "base/list.h"
#include "catalog/hold.h"
#include "catalog/jobs.h"
#include "catalog/names.h"
#include "catalog/store.h"
#include "catalog/tree.h"

#define CATALOG_DATASTORES_MAX 64 /* those of the records, configured or not: bits of a mask */

/* A job's record in memory. */
struct job {
    struct list link;
    struct job_record record;
    unsigned attributes; /* the node's attribute_changes when they were copied last */
    bool copied;         /* they were */
    bool committing;     /* the commit's outcome is unknown yet: attributes go to both files, names do not change */
    bool completing;     /* a thread is at it */
};

struct catalog {
    /* set at creation */
    struct datastore **datastores;
    unsigned count, default_datastore;
    uint64_t taken_over; /* clock: from a dead worker, 0: not; datastores that it had may come yet (catalog_comes) */
    uint64_t settled;    /* clock: until then names may be further on datastores than in the records (visit.c) */
    unsigned rows[CATALOG_DATASTORES_MAX]; /* a datastore's row in the records */
    int indexes[CATALOG_DATASTORES_MAX];   /* a row's datastore, -1: not configured */
    struct store *store;
    struct entry *root;
    /* under tree.mutex */
    struct tree tree;
    struct list making; /* holds of names that do not exist yet */
    struct list jobs;
    uint64_t next_id;
    uint64_t unseen; /* bits of datastores that no mount ever read to the end */
    uint64_t files[CATALOG_DATASTORES_MAX];
    unsigned stamp;
    struct list replays; /* threads that complete what a dead worker began */
    pthread_mutex_t scanning;
    pthread_t scanner;
    bool scanner_runs;
};

static inline void tree_lock(struct catalog *catalog)
{
    pthread_mutex_lock(&catalog->tree.mutex);
}
static inline void tree_unlock(struct catalog *catalog)
{
    pthread_mutex_unlock(&catalog->tree.mutex);
}

static inline uint64_t catalog_bit(const struct catalog *catalog, unsigned datastore)
{
    return 1ull << catalog->rows[datastore];
}
/* The bits of all configured datastores. */
static inline uint64_t catalog_configured(const struct catalog *catalog)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < catalog->count; i++)
        bits |= catalog_bit(catalog, i);
    return bits;
}

/* Adds to, or takes from, the counts of files; a directory counts nothing. */
static inline void catalog_count_file(struct catalog *catalog, const struct entry *entry, int by)
{
    if (!entry_is_directory(entry))
        catalog->files[entry->datastore] += (uint64_t)(int64_t)by;
}

/* 0, -ENAMETOOLONG, -EINVAL: what no name may be. */
int name_check(const char *name);
/* Is svmfs's own. */
static inline bool name_is_private(const struct entry *directory, const char *name)
{
    return directory->id == NODE_ROOT && __builtin_strcmp(name, DATASTORE_PRIVATE) == 0;
}
/* The directory, or the errno of not finding one. */
int catalog_directory(struct catalog *catalog, uint64_t id, struct entry **out);
/* Is the datastore away, but may be waited for: who has a disk open does not know that there is a new worker, and waits up
 * to the datastore's timeout for a server that does not answer at this moment. */
static inline bool catalog_comes(const struct catalog *catalog, const struct datastore *datastore)
{
    return atomic_load(&datastore->away) && !atomic_load(&datastore->stopping) && catalog->taken_over &&
           clock_now() < catalog->taken_over + datastore->timeout_ns;
}
/* The path of the entry's bytes; with the tree's mutex. */
int catalog_file_of(const struct entry *entry, char out[PATH_MAX]);
/* Why the entry answers nothing: 0 or -EIO. */
static inline int entry_trouble(const struct entry *entry)
{
    return entry->trouble != TROUBLE_NONE ? -EIO : 0;
}

/* What a job means for a change of its node's name. */
enum job_way {
    JOB_CLEAR,  /* nothing */
    JOB_WAIT,   /* its commit or its completion is under way: hold_wait and look again */
    JOB_SETTLE, /* committed: jobs_settle first, without a hold */
};
enum job_way job_way(struct catalog *catalog, uint64_t node);
int jobs_settle(struct catalog *catalog, uint64_t node);
/* With the tree's mutex; NULL: none. */
struct job *job_of_node(struct catalog *catalog, uint64_t node);
struct job *job_of_id(struct catalog *catalog, uint64_t id);
int jobs_drop(struct catalog *catalog, uint64_t id);
static inline bool job_record_runs(const struct job_record *record)
{
    return record->state == JOB_RECORD_RUNNING || record->state == JOB_RECORD_MEMBER;
}

/* A call by path on one node: waits until nobody owns it, then uses it. -ENOENT of the datastore is passed to
 * visit_over: true: it is over, *result is what to return; false: the file has another path by now, begin again. */
struct visit {
    struct hold hold;
    struct entry *entry;
    struct datastore *datastore;
    char path[PATH_MAX];
};
int visit_begin(struct visit *visit, struct catalog *catalog, uint64_t id);
void visit_end(struct visit *visit);
bool visit_over(struct visit *visit, ssize_t *result);
