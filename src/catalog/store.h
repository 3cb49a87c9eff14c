/* store: the SQLite file of the records. One connection under a mutex, which is never held during a datastore's call;
 * checkpoints run on a thread and a connection of their own, so that no change waits for them.
 *
 * A transaction remembers its first error: what follows is skipped and store_commit returns it. Begin and commit nest
 * on one thread; the outermost counts. Transactions are safe from a death of the process; durable ones from a power
 * loss too. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct store;

enum statement {
    STORE_DATASTORES,
    STORE_DATASTORE_ADD,
    STORE_DATASTORE_SCANNED,
    STORE_NODES,
    STORE_NODE_ADD,
    STORE_NODE_PLACE,
    STORE_NODE_ATTRIBUTES,
    STORE_NODE_CARRIERS,
    STORE_NODE_HOME,
    STORE_NODE_DELETE,
    STORE_NODES_FORGET,
    STORE_LAST_ID,
    STORE_APPLIED_PUT,
    STORE_APPLIED,
    STORE_APPLIED_CLEAR,
    STORE_INTENT_ADD,
    STORE_INTENT_COMMITTED,
    STORE_INTENT_DELETE,
    STORE_INTENTS,
    STORE_JOB_ADD,
    STORE_JOB_UPDATE,
    STORE_JOB_REQUEST,
    STORE_JOB_DELETE,
    STORE_JOBS,
    STORE_RESULT_PUT,
    STORE_RESULT,
    STORE_RESULT_DELETE,
    STORE_STATEMENTS
};

/* Makes the directory's catalog.db, or opens it. */
int store_open(struct store **out, const char *directory, struct sentence *why);
/* NULL is fine. */
void store_close(struct store *store);

void store_begin(struct store *store, bool durable);
/* 0, -ENOSPC or -EIO (logged). After an error nothing of it is in the records, or, where the disk failed, it is not
 * known. */
int store_commit(struct store *store);
void store_rollback(struct store *store);

/* Runs a statement in the open transaction. types: a character per value: i (uint64_t, int64_t), s (const char *,
 * NULL). */
void store_run(struct store *store, enum statement statement, const char *types, ...);
/* The id that the last STORE_..._ADD without one was given. */
uint64_t store_last_id(struct store *store);

/* Reads, in a transaction or alone. row is called for each row; non-zero stops and is returned. -EIO when it cannot be
 * read. */
struct store_row;
typedef int store_visit(void *argument, struct store_row *row);
int store_select(
    struct store *store, enum statement statement, store_visit *visit, void *argument, const char *types, ...);
int64_t store_integer(struct store_row *row, int column);
/* NULL for NULL; valid during the visit. */
const char *store_text(struct store_row *row, int column);
