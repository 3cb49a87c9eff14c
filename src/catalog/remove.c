#include "catalog/names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/event.h"
#include "base/log.h"
#include "catalog/place.h"
#include "catalog/records.h"

/* Checks of one moment, with the tree's mutex. */
static int find(struct catalog *catalog, uint64_t parent, const char *name, bool directory, struct entry **holder,
    struct entry **out)
{
    int error = catalog_directory(catalog, parent, holder);
    if (error)
        return error;
    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    if (strcmp(name, ".") == 0)
        return directory ? -EINVAL : -EISDIR;
    if (strcmp(name, "..") == 0)
        return directory ? -ENOTEMPTY : -EISDIR;
    struct entry *entry = tree_child(&catalog->tree, *holder, name);
    if (!entry)
        return catalog->unseen && !name_is_private(*holder, name) ? -EIO : -ENOENT;
    if (entry_trouble(entry))
        return -EIO;
    if (entry_is_directory(entry) != directory)
        return directory ? -ENOTDIR : -EISDIR;
    *out = entry;
    return entry->child_count ? -ENOTEMPTY : 0;
}

/* Owns the entry and uses its directory. */
static int take_name(
    struct catalog *catalog, struct hold *hold, uint64_t parent, const char *name, bool directory, char path[PATH_MAX])
{
    int error;
    hold_init(hold, catalog);
    tree_lock(catalog);
    for (;;) {
        error = find(catalog, parent, name, directory, &hold->used[0], &hold->owned[0]);
        if (error)
            break;
        enum job_way way = job_way(catalog, hold->owned[0]->id);
        if (way == JOB_SETTLE) {
            uint64_t id = hold->owned[0]->id;
            tree_unlock(catalog);
            error = jobs_settle(catalog, id);
            tree_lock(catalog);
            if (error)
                break;
            continue;
        }
        error = catalog_file_of(hold->owned[0], path);
        if (error || (way == JOB_CLEAR && hold_take(hold)))
            break;
        hold_wait(catalog);
    }
    tree_unlock(catalog);
    return error;
}

/* Out of the tree and of memory; the hold forgets it. */
static void forget(struct catalog *catalog, struct hold *hold)
{
    struct entry *entry = hold->owned[0];
    tree_lock(catalog);
    if (entry->parent) {
        entry_touch(entry->parent);
        tree_unlink(&catalog->tree, entry);
    }
    tree_drop(&catalog->tree, entry);
    catalog_count_file(catalog, entry, -1);
    hold->owned[0] = NULL;
    tree_unlock(catalog);
    entry_free(entry);
}

static int hide(struct catalog *catalog, const struct origin *origin, struct hold *hold, struct datastore *datastore,
    const char *path)
{
    struct entry *entry = hold->owned[0];
    char hidden[PATH_MAX];
    place_orphan(entry->id, hidden);
    int error = place_hide(datastore, path, hidden, origin && origin->retry);
    char *file = error ? NULL : strdup(hidden);
    if (!error && !file)
        error = -ENOMEM;
    if (error)
        return error;
    event("names-datastore");
    struct place place = place_of(entry);
    place.parent = 0;
    place.file = hidden;
    place.orphan = true;
    store_begin(catalog->store, false);
    record_place(catalog, entry->id, &place);
    record_applied(catalog, origin, 0, entry->id);
    error = store_commit(catalog->store);
    if (error) {
        datastore->ops->rename(datastore, hidden, path, false);
        free(file);
        return error;
    }
    event("names-store");
    tree_lock(catalog);
    entry_touch(entry->parent);
    tree_unlink(&catalog->tree, entry);
    entry->orphan = true;
    entry->file = file;
    clock_gettime(CLOCK_REALTIME_COARSE, &entry->st.st_ctim);
    tree_unlock(catalog);
    return 0;
}

/* The datastore has lost it already: whether the records can be written or not, it is gone. */
static void record_gone(struct catalog *catalog, const struct origin *origin, uint64_t id, const char *path)
{
    event("names-datastore");
    store_begin(catalog->store, false);
    record_delete(catalog, id);
    record_applied(catalog, origin, 0, id);
    if (store_commit(catalog->store) != 0)
        log_error("%s was removed, but the catalog could not be told", path);
    event("names-store");
}

int names_unlink(struct catalog *catalog, const struct origin *origin, uint64_t parent, const char *name,
    bool (*keep_open)(void *argument, uint64_t id), void *argument, uint64_t *removed)
{
    struct hold hold;
    char path[PATH_MAX];
    int result;
    int error = record_recall(catalog, origin, &result, removed);
    if (error)
        return error < 0 ? error : result;
    error = take_name(catalog, &hold, parent, name, false, path);
    if (error)
        return error;
    struct entry *entry = hold.owned[0];
    struct datastore *datastore = place_await(catalog, entry->datastore);
    *removed = entry->id;
    if (!datastore) {
        error = -EIO;
    } else if (keep_open && keep_open(argument, entry->id)) {
        error = hide(catalog, origin, &hold, datastore, path);
    } else {
        error = datastore->ops->remove(datastore, path, false);
        if (error == -ENOENT) /* by the dead worker, or by somebody outside */
            error = 0;
        if (!error) {
            record_gone(catalog, origin, entry->id, path);
            forget(catalog, &hold);
        }
    }
    hold_release(&hold);
    return error;
}

static int remove_from(struct catalog *catalog, struct entry *entry, unsigned index, const char *path)
{
    struct datastore *datastore = place_await(catalog, index);
    int error = datastore ? datastore->ops->remove(datastore, path, true) : -EIO;
    if (error == -ENOENT)
        error = 0;
    if (!error && index != entry->datastore) {
        uint64_t bit = catalog_bit(catalog, index);
        tree_lock(catalog);
        entry->carriers &= ~bit;
        tree_unlock(catalog);
        store_begin(catalog->store, false);
        record_carriers(catalog, entry->id, 0, bit);
        store_commit(catalog->store);
        event("rmdir-part");
    }
    return error;
}

int names_rmdir(struct catalog *catalog, const struct origin *origin, uint64_t parent, const char *name)
{
    struct hold hold;
    char path[PATH_MAX];
    uint64_t id;
    int result;
    int error = record_recall(catalog, origin, &result, &id);
    if (error)
        return error < 0 ? error : result;
    error = take_name(catalog, &hold, parent, name, true, path);
    if (error)
        return error;
    struct entry *entry = hold.owned[0];
    /* The home comes last: while it stands, the directory does. */
    for (unsigned i = 0; i < catalog->count && !error; i++)
        if (i != entry->datastore && (entry->carriers & catalog_bit(catalog, i)))
            error = remove_from(catalog, entry, i, path);
    if (!error)
        error = remove_from(catalog, entry, entry->datastore, path);
    if (!error) {
        record_gone(catalog, origin, entry->id, path);
        forget(catalog, &hold);
    }
    hold_release(&hold);
    return error;
}

int names_release_orphan(struct catalog *catalog, uint64_t id)
{
    struct hold hold;
    char path[PATH_MAX];
    int error;
    hold_init(&hold, catalog);
    tree_lock(catalog);
    for (;;) {
        struct entry *entry = tree_get(&catalog->tree, id);
        error = !entry ? -ENOENT : !entry->orphan ? -EINVAL : catalog_file_of(entry, path);
        hold.owned[0] = entry;
        if (error || hold_take(&hold))
            break;
        hold_wait(catalog);
    }
    tree_unlock(catalog);
    if (error)
        return error;
    struct datastore *datastore = place_await(catalog, hold.owned[0]->datastore);
    error = datastore ? datastore->ops->remove(datastore, path, false) : -EIO;
    if (!error || error == -ENOENT) {
        record_gone(catalog, NULL, id, path);
        forget(catalog, &hold);
        error = 0;
    }
    hold_release(&hold);
    return error;
}
