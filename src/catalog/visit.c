/* Calls by path, and why a path may lead nowhere for a moment.
 *
 * A worker that died between a datastore's rename and its record leaves the file under a name that the records do not
 * know yet. The request comes again to the next worker and puts it right (law 9), but a read of the same disk may come
 * first: it waits for that, instead of telling a guest of an error. The same holds for a committed move whose partial
 * has its name already. A file that stays away is an error, never "no such file", which would invite a second one (law
 * 15). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "catalog/private.h"

int visit_begin(struct visit *visit, struct catalog *catalog, uint64_t id)
{
    int error;
    hold_init(&visit->hold, catalog);
    tree_lock(catalog);
    for (;;) {
        visit->entry = tree_get(&catalog->tree, id);
        error = !visit->entry ? -ENOENT : 0;
        /* A conflict found while a disk is open does not stop its guest: only names answer EIO then. */
        if (!error && visit->entry->trouble != TROUBLE_CONFLICT)
            error = entry_trouble(visit->entry);
        if (!error)
            error = catalog_file_of(visit->entry, visit->path);
        if (error)
            break;
        visit->datastore = catalog->datastores[visit->entry->datastore];
        if (catalog_comes(catalog, visit->datastore)) {
            hold_wait(catalog);
            continue;
        }
        if (atomic_load(&visit->datastore->away)) {
            error = -EIO;
            break;
        }
        visit->hold.used[0] = visit->entry;
        if (hold_take(&visit->hold))
            break;
        hold_wait(catalog);
    }
    tree_unlock(catalog);
    return error;
}

void visit_end(struct visit *visit)
{
    hold_release(&visit->hold);
}

/* A committed move's partial that has its name, while the record does not say so yet. */
static bool has_its_name(struct visit *visit)
{
    struct catalog *catalog = visit->hold.catalog;
    char path[PATH_MAX];
    struct stat st;
    tree_lock(catalog);
    bool moved = visit->entry->file && !visit->entry->orphan;
    int error = moved ? tree_path(visit->entry, path) : -ENOENT;
    tree_unlock(catalog);
    if (error || visit->datastore->ops->lookup(visit->datastore, path, &st) != 0)
        return false;
    tree_lock(catalog);
    free(visit->entry->file);
    visit->entry->file = NULL;
    tree_unlock(catalog);
    return true;
}

static bool path_changes(struct visit *visit, uint64_t id)
{
    struct catalog *catalog = visit->hold.catalog;
    char path[PATH_MAX];
    bool changed = false;
    tree_lock(catalog);
    while (!changed && clock_now() < catalog->settled) {
        struct entry *entry = tree_get(&catalog->tree, id);
        changed = !entry || catalog_file_of(entry, path) != 0 || strcmp(path, visit->path) != 0 ||
                  catalog->datastores[entry->datastore] != visit->datastore;
        if (!changed)
            hold_wait(catalog);
    }
    tree_unlock(catalog);
    return changed;
}

bool visit_over(struct visit *visit, ssize_t *result)
{
    uint64_t id = visit->entry->id;
    if (*result != -ENOENT) {
        visit_end(visit);
        return true;
    }
    bool again = has_its_name(visit);
    visit_end(visit);
    if (again || path_changes(visit, id))
        return false;
    log_error("%s is not on datastore %s any more (svmfs --rescan takes it off the mount)", visit->path,
        visit->datastore->name);
    *result = -EIO;
    return true;
}
