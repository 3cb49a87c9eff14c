/* catalog: the names of a mount. One tree over all datastores, held in memory, with its records in SQLite in the state
 * directory. It decides what exists (law 15): datastores are never asked for a name on a request's path.
 *
 * A node's id is its SQLite row id: never reused, the same for every worker and every mount; it is the FUSE nodeid and
 * the inode number (the root is 1). Each file lives on one datastore; a directory has a home datastore, on which new
 * entries are made, and is made on other datastores when a file of theirs stands in it.
 *
 * Functions of this header never block on a datastore and hold the tree's lock for a short time only; they may be
 * called from any thread. Those that change names are in catalog/names.h. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"
#include "io/datastore.h"

#define NODE_ROOT 1ull

struct catalog;

/* A copy of what the catalog knows of one node. */
struct node {
    uint64_t id, parent;
    unsigned datastore; /* index into the mount's array: where a file lives, a directory's home */
    bool known;         /* attributes come from the datastore; false: as last recorded (datastore away) */
    bool orphan;        /* unlinked, still open */
    bool conflict;      /* listed, but answers EIO to everything: no attributes may be given out with the name */
    struct stat st;     /* st_ino is id; st_nlink is filled (directories: 2 + subdirectories; orphans: 0) */
};

/* first: the first worker of a mount: datastores are scanned. Otherwise the records are taken as they are (a worker
 * that follows a dead one) and only unfinished changes are completed. Blocks. 0 or -errno with a sentence. A datastore
 * that is away does not fail it: its names come from the records. Conflicts (one path on two datastores without a
 * record) are logged with a sentence each; such a name is shown but answers EIO to everything, until the administrator
 * settles it. */
int catalog_open(struct catalog **out, const char *state_directory, struct datastore **datastores, unsigned count,
    unsigned default_datastore, bool first, struct sentence *why);
void catalog_close(struct catalog *catalog);

/* 0, -ENOENT, -ENOTDIR, -ENAMETOOLONG, or -EIO where the name's existence cannot be told (a datastore never seen is
 * away) or is in conflict. */
int catalog_lookup(struct catalog *catalog, uint64_t parent, const char *name, struct node *out);
int catalog_get(struct catalog *catalog, uint64_t id, struct node *out);

/* The logical path below the mount, no leading slash, "" for the root; for orphans their hidden path. 0, -ENOENT,
 * -ENAMETOOLONG. */
int catalog_path(struct catalog *catalog, uint64_t id, char out[PATH_MAX]);

/* Where the node's bytes stand on its datastore: the logical path, or the hidden one of an orphan or of a target whose
 * rename is not done yet. */
int catalog_file(struct catalog *catalog, uint64_t id, unsigned *datastore, char out[PATH_MAX]);

/* Entries of a directory with an id greater than after, in the order of ids: stable while entries come and go. Return
 * of entry: non-zero stops. */
typedef int catalog_entry(void *argument, const char *name, const struct node *node);
int catalog_list(struct catalog *catalog, uint64_t directory, uint64_t after, catalog_entry *entry, void *argument);

/* The target of a symlink (held in memory). 0 or -errno. */
int catalog_readlink(struct catalog *catalog, uint64_t id, char out[PATH_MAX]);

/* A write was answered: mtime and ctime become now, the size at least end. resized: the size becomes end exactly.
 * Memory only. blocks: 512-byte units if known, else -1 (kept). */
void catalog_wrote(struct catalog *catalog, uint64_t id, uint64_t end, bool resized);

struct datastore *catalog_datastore(struct catalog *catalog, unsigned index);
unsigned catalog_datastore_count(struct catalog *catalog);

/* How many files (not directories) the datastore holds, by the catalog. */
uint64_t catalog_files(struct catalog *catalog, unsigned datastore);

/* The datastores that have the directory, a bit each by index. 0: no such directory. */
uint64_t catalog_carriers(struct catalog *catalog, uint64_t directory);
