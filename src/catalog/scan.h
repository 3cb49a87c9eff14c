/* scan: what the datastores have, compared with what the catalog says.
 *
 * First every datastore is walked without any lock: findings, one per path, with a claim of each datastore that has it.
 * Then each path is decided, parents first (decide.c: pure), and what differs is changed; then what nobody claimed
 * goes. While the mount serves, a change is made only after the name is held and the datastores were asked again, since
 * the walk is old by then. A datastore that is away, or cannot be read to its end, says nothing: its names stay as
 * recorded. */
#pragma once

#include "catalog/private.h"

struct claim {
    unsigned datastore;
    struct stat st;
    char *content; /* a symlink's target */
    struct claim *next;
};

struct finding {
    struct finding *parent, *bucket_next;
    char *name;
    uint64_t hash;
    struct claim *claims; /* in the order of datastores */
    uint64_t id;          /* the catalog's, once it is decided; 0: nothing below it is shown */
};

/* All findings; parents stand before their children. */
struct walk {
    struct catalog *catalog;
    struct finding **list, **buckets;
    size_t count, space, mask;
    uint64_t scanned; /* bits of the datastores that were read to their end */
    struct {
        char (*names)[NAME_MAX + 1]; /* below .svmfs */
        size_t count, space;
    } hidden[CATALOG_DATASTORES_MAX];
};

int walk_begin(struct walk *walk, struct catalog *catalog);
/* Reads one datastore; an error only means that it is not in scanned. */
int walk_datastore(struct walk *walk, unsigned index);
void walk_end(struct walk *walk);
void claim_free(struct claim *claim);
/* Is the hidden file there (only for a datastore that was scanned). */
bool walk_hidden(const struct walk *walk, unsigned index, const char *path);

/* What a path should be. */
struct decision {
    enum { DECIDE_GONE, DECIDE_KEEP, DECIDE_BE } verdict;
    const struct claim *claim; /* BE: type and attributes are its */
    unsigned datastore;        /* BE: home or place */
    uint64_t carriers;
    enum trouble trouble;
    bool replace; /* another file than the recorded: a new id */
};

/* entry: the record or NULL; job: its record or NULL. Pure. */
void decide(const struct catalog *catalog, uint64_t scanned, const struct claim *claims, const struct entry *entry,
    const struct job *job, struct decision *out);

/* A mount's start: the whole scan. 0 or -errno with a sentence. */
int scan_first(struct catalog *catalog, struct sentence *why);

/* A worker that follows: a datastore that came back before the last one died, but was not read yet, is read on a
 * thread. */
void scan_follow(struct catalog *catalog);
void scan_join(struct catalog *catalog);
