/* place: where a node's bytes stand on a datastore, and the directories that this needs. All block on the datastore;
 * the caller holds (hold.h) what it names, and not the tree's mutex. */
#pragma once

#include "catalog/private.h"

/* The datastore, or NULL while it is away. */
struct datastore *place_datastore(struct catalog *catalog, unsigned index);
/* The same, but waits for it after a worker's death. */
struct datastore *place_await(struct catalog *catalog, unsigned index);
/* Makes the directory and those above it on the datastore. again: those too that should be there. */
int place_directories(struct catalog *catalog, const struct entry *directory, unsigned datastore, bool again);
/* Makes svmfs's own directory of the datastore. */
int place_private(struct datastore *datastore);
/* The hidden path of an unlinked file. */
void place_orphan(uint64_t id, char out[PATH_MAX]);
/* rename, or, where a dead process may have done it already, its trace. */
int place_rename(struct datastore *datastore, const char *from, const char *to, bool replace, bool retry);
/* The entry's new name below .svmfs; makes that directory. */
int place_hide(struct datastore *datastore, const char *path, const char *hidden, bool retry);
/* Takes what stands at the path of a name that the catalog does not know, as a scan would. The name is owned. */
int place_adopt(struct catalog *catalog, struct entry *directory, const char *name, unsigned datastore);
/* A new entry, not in the tree yet, of what the datastore has at path. */
int place_look(struct catalog *catalog, unsigned datastore, const char *path, const char *name, struct entry **out);
/* Records and links a new entry. The directory is used, with room reserved; on error the entry is freed. out may be
 * NULL. */
int place_insert(struct catalog *catalog, struct entry *directory, struct entry *entry, const struct origin *origin,
    struct node *out);
