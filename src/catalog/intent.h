/* intent: a change of names that takes more than one step on datastores, written down before the first (design, 6).
 *
 *   replace    a file goes over a file of another datastore, or over one that is open: two calls on datastores
 *   directory  a directory that stands on several datastores is renamed, or one goes over an empty one
 *   simple     a rename in one call; never written down
 *
 * Recorded (durable) → the datastores' steps → one transaction: names, the request's result, "committed" → what is left
 * of the replaced file goes → the record is dropped. After a death the datastores are asked how far it came: once the
 * step that decides was made it is completed, else it is as if it never was. Either way no name is lost and none stands
 * twice.
 *
 * The step that decides: replace: `from` is gone on the file's datastore (or, over an open file of the same datastore,
 * `to` has its hidden name); directory: `from` is gone on the first datastore in the order of rows. */
#pragma once

#include "catalog/private.h"

enum intent_kind { INTENT_REPLACE = 1, INTENT_DIRECTORY = 2, INTENT_SIMPLE = 3 };

struct intent {
    uint64_t id; /* 0: not recorded */
    enum intent_kind kind;
    bool committed;
    bool keep; /* the replaced file is open: it becomes an orphan */
    bool has_origin;
    struct origin origin;
    uint64_t node, parent, replaced; /* the renamed node, its new directory, the node that had the name or 0 */
    char name[NAME_MAX + 1];
    char from[PATH_MAX], to[PATH_MAX];
    uint64_t datastores, replaced_datastores; /* bits: where the two stand */
    uint64_t replaced_inode;                  /* the replaced file's, on its datastore */
};

/* Does it. hold: owns both nodes, uses both directories. 0 or -errno; nothing was changed then, as far as that can be
 * told. */
int intent_perform(struct catalog *catalog, struct intent *intent, struct hold *hold);

/* The parts that a replay needs too. */
int intent_commit(struct catalog *catalog, const struct intent *intent, struct hold *hold);
/* What is left after the commit: the replaced file on a datastore of its own. 0: done. */
int intent_finish(struct catalog *catalog, const struct intent *intent);
void intent_drop(struct catalog *catalog, const struct intent *intent);
/* Makes the replaced directory again where it is missing. */
void intent_restore_directory(struct catalog *catalog, const struct intent *intent);
/* The datastore of a bit, NULL when away or not configured. */
struct datastore *intent_datastore(struct catalog *catalog, uint64_t bit);

/* Completes or forgets what is recorded. Serving: on threads of their own, which hold what they touch before this
 * returns. */
int intents_replay(struct catalog *catalog, bool serving);
/* The same in the caller's thread, of a catalog that serves. */
void intents_retry(struct catalog *catalog);
/* Waits for the replay of what this request had begun. */
void intents_await(struct catalog *catalog, const struct origin *origin);
void intents_join(struct catalog *catalog);
