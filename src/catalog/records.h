/* records: rows of the store in the catalog's words. Those that write are called between store_begin and store_commit.
 */
#pragma once

#include "catalog/private.h"

/* Finds or makes the rows of the configured datastores; names those of the records that are not configured. */
int records_load_datastores(struct catalog *catalog, struct sentence *why);
/* All nodes and jobs, into memory. Nothing else uses the catalog yet. */
int records_load(struct catalog *catalog, struct sentence *why);

void record_add(struct catalog *catalog, const struct entry *entry, uint64_t parent);

/* What of a node's place changes. */
struct place {
    uint64_t parent; /* 0: an orphan */
    const char *name;
    unsigned datastore;
    uint64_t carriers;
    const char *file;
    bool orphan;
    enum trouble trouble;
};
struct place place_of(const struct entry *entry);
void record_place(struct catalog *catalog, uint64_t id, const struct place *place);
void record_attributes(struct catalog *catalog, uint64_t id, const struct stat *st);
void record_carriers(struct catalog *catalog, uint64_t id, uint64_t add, uint64_t remove);
void record_delete(struct catalog *catalog, uint64_t id);

/* origin may be NULL. recall: 1 when the request took effect before, with its result; 0; -errno. */
void record_applied(struct catalog *catalog, const struct origin *origin, int result, uint64_t node);
int record_recall(struct catalog *catalog, const struct origin *origin, int *result, uint64_t *node);

void record_job(struct catalog *catalog, const struct job_record *record);
