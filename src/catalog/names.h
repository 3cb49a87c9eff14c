/* names: the changes of names and attributes. Each blocks on one or more datastores: called on a pool, never on a
 * reactor.
 *
 * Order of every change: what must be refused is refused by the catalog; the datastore's call; one SQLite transaction
 * that also stores the request's unique and result; then memory. Law 9: a request that a dead worker had begun comes
 * again with origin.retry: if its unique is recorded, the recorded result is returned and nothing is done; else the
 * datastore's call may have been made already, and its traces (name is there, name is gone) are taken as success. A
 * change that touches two datastores writes an intent record first, completed by the next catalog_open after a death.
 * Returns of all: 0 or -errno as the system call of that name would give. */
#pragma once

#include "catalog/catalog.h"

/* The request that asks: slot is unique among a mount's slots; retry: executed before by a worker that died. */
struct origin {
    uint32_t slot;
    uint64_t unique;
    bool retry;
};

/* st: mode with type, uid, gid, rdev. Set-gid of the parent directory is inherited here. content: a symlink's target.
 */
int names_create(struct catalog *catalog, const struct origin *origin, uint64_t parent, const char *name,
    const struct stat *st, const char *content, struct node *out);

/* keep_open: the file is open: it becomes an orphan (hidden name on its datastore), else it is deleted. *removed is its
 * id. */
int names_unlink(struct catalog *catalog, const struct origin *origin, uint64_t parent, const char *name,
    bool (*keep_open)(void *argument, uint64_t id), void *argument, uint64_t *removed);
int names_rmdir(struct catalog *catalog, const struct origin *origin, uint64_t parent, const char *name);

/* flags: 0 or RENAME_NOREPLACE (others -EINVAL). *replaced: id of the file that was replaced, or 0; kept as an orphan
 * when keep_open says so. A file keeps its datastore; missing directories are made there. */
int names_rename(struct catalog *catalog, const struct origin *origin, uint64_t parent, const char *name,
    uint64_t new_parent, const char *new_name, unsigned flags, bool (*keep_open)(void *argument, uint64_t id),
    void *argument, uint64_t *replaced);

/* The last handle of an orphan is closed. */
int names_release_orphan(struct catalog *catalog, uint64_t id);

/* mask: attribute_mask. kill_suid: clear set-id bits as a write by a non-owner does. Refreshes the attributes from the
 * datastore. */
int names_set_attributes(
    struct catalog *catalog, uint64_t id, const struct stat *st, unsigned mask, bool kill_suid, struct node *out);
/* Fetches the attributes from the datastore into the catalog (after a worker's death, a fallocate, a write that changes
 * blocks). */
int names_refresh(struct catalog *catalog, uint64_t id, struct node *out);

ssize_t names_get_xattr(struct catalog *catalog, uint64_t id, const char *name, void *value, size_t size);
int names_set_xattr(struct catalog *catalog, uint64_t id, const char *name, const void *value, size_t size, int flags);
ssize_t names_list_xattr(struct catalog *catalog, uint64_t id, char *out, size_t size);
int names_remove_xattr(struct catalog *catalog, uint64_t id, const char *name);

/* Opens the node's image. */
int names_open_image(struct catalog *catalog, uint64_t id, bool writable, struct image **out);

/* Reads every datastore's tree again and takes what came and went outside of svmfs. found, gone: counts. */
int names_rescan(struct catalog *catalog, unsigned *found, unsigned *gone, struct sentence *why);
