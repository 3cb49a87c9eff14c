#include "catalog/intent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/event.h"
#include "base/log.h"
#include "catalog/place.h"
#include "catalog/records.h"

struct datastore *intent_datastore(struct catalog *catalog, uint64_t bit)
{
    int row = bit ? __builtin_ctzll(bit) : -1;
    return row < 0 || catalog->indexes[row] < 0 ? NULL : place_await(catalog, (unsigned)catalog->indexes[row]);
}

static int put(struct catalog *catalog, struct intent *intent)
{
    store_begin(catalog->store, true);
    store_run(catalog->store, STORE_INTENT_ADD, "iiiiisssiiiii", (int64_t)intent->kind,
        intent->has_origin ? (int64_t)intent->origin.slot : (int64_t)-1, (int64_t)intent->origin.unique,
        (int64_t)intent->node, (int64_t)intent->parent, intent->name, intent->from, intent->to,
        (int64_t)intent->datastores, (int64_t)intent->replaced, (int64_t)intent->replaced_datastores,
        (int64_t)intent->replaced_inode, (int64_t)intent->keep);
    intent->id = store_last_id(catalog->store);
    int error = store_commit(catalog->store);
    if (error)
        intent->id = 0;
    event("intent-recorded");
    return error;
}

void intent_drop(struct catalog *catalog, const struct intent *intent)
{
    if (intent->id == 0)
        return;
    store_begin(catalog->store, false);
    store_run(catalog->store, STORE_INTENT_DELETE, "i", (int64_t)intent->id);
    store_commit(catalog->store);
}

static void replaced_in_memory(struct catalog *catalog, struct entry *replaced, char *hidden, struct hold *hold)
{
    tree_unlink(&catalog->tree, replaced);
    if (hidden) {
        replaced->orphan = true;
        replaced->file = hidden;
        clock_gettime(CLOCK_REALTIME_COARSE, &replaced->st.st_ctim);
        return;
    }
    tree_drop(&catalog->tree, replaced);
    catalog_count_file(catalog, replaced, -1);
    if (hold && hold->owned[1] == replaced)
        hold->owned[1] = NULL;
    entry_free(replaced);
}

static void in_memory(struct catalog *catalog, struct entry *entry, struct entry *directory, char *name)
{
    entry_touch(entry->parent);
    tree_unlink(&catalog->tree, entry);
    free(entry->name);
    entry->name = name;
    tree_link(&catalog->tree, directory, entry);
    entry_touch(directory);
    clock_gettime(CLOCK_REALTIME_COARSE, &entry->st.st_ctim);
}

int intent_commit(struct catalog *catalog, const struct intent *intent, struct hold *hold)
{
    char hidden[PATH_MAX], *file = NULL, *name = strdup(intent->name);
    if (intent->keep) {
        place_orphan(intent->replaced, hidden);
        file = strdup(hidden);
    }
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, intent->node);
    struct entry *directory = tree_get(&catalog->tree, intent->parent);
    struct entry *replaced = intent->replaced ? tree_get(&catalog->tree, intent->replaced) : NULL;
    int error = !entry || !directory ? -ENOENT : !name || (intent->keep && !file) ? -ENOMEM : tree_reserve(directory);
    tree_unlock(catalog);
    if (error) {
        free(name);
        free(file);
        return error;
    }
    bool file_replaced = replaced && !entry_is_directory(replaced);
    struct place place = place_of(entry), gone = replaced ? place_of(replaced) : place;
    place.parent = intent->parent;
    place.name = intent->name;
    gone.parent = 0;
    gone.file = hidden;
    gone.orphan = true;
    store_begin(catalog->store, false);
    record_place(catalog, intent->node, &place);
    if (replaced && intent->keep)
        record_place(catalog, intent->replaced, &gone);
    else if (replaced)
        record_delete(catalog, intent->replaced);
    record_applied(catalog, intent->has_origin ? &intent->origin : NULL, 0, file_replaced ? intent->replaced : 0);
    if (intent->id)
        store_run(catalog->store, STORE_INTENT_COMMITTED, "i", (int64_t)intent->id);
    error = store_commit(catalog->store);
    if (error) {
        free(name);
        free(file);
        return error;
    }
    event("names-store");
    tree_lock(catalog);
    if (replaced)
        replaced_in_memory(catalog, replaced, file, hold);
    in_memory(catalog, entry, directory, name);
    tree_unlock(catalog);
    return 0;
}

static int perform_simple(struct catalog *catalog, struct intent *intent, struct hold *hold)
{
    struct datastore *datastore = intent_datastore(catalog, intent->datastores);
    if (!datastore)
        return -EIO;
    int error = place_rename(datastore, intent->from, intent->to, intent->replaced != 0, intent->origin.retry);
    if (error)
        return error;
    event("names-datastore");
    error = intent_commit(catalog, intent, hold);
    if (error && !intent->replaced)
        datastore->ops->rename(datastore, intent->to, intent->from, false);
    return error;
}

int intent_finish(struct catalog *catalog, const struct intent *intent)
{
    struct datastore *datastore = intent_datastore(catalog, intent->datastores);
    struct datastore *other = intent_datastore(catalog, intent->replaced_datastores);
    char hidden[PATH_MAX];
    struct stat st;
    if (intent->kind != INTENT_REPLACE || intent->datastores == intent->replaced_datastores ||
        intent->replaced_inode == 0)
        return 0;
    if (!datastore || !other)
        return -EIO;
    int error = other->ops->lookup(other, intent->to, &st);
    if (error)
        return error == -ENOENT ? 0 : error;
    /* Only the very file that was replaced, and only while its successor stands at the same path. */
    error = st.st_ino == intent->replaced_inode ? datastore->ops->lookup(datastore, intent->to, &st) : -ENOENT;
    if (error == -ENOENT) {
        log_warning("datastore %s has an old file at %s, which a rename left behind: it is shown again", other->name,
            intent->to);
        return 0;
    }
    if (error)
        return error;
    place_orphan(intent->replaced, hidden);
    return intent->keep ? place_hide(other, intent->to, hidden, false) : other->ops->remove(other, intent->to, false);
}

/* Over a file of another datastore. */
static int perform_across(struct catalog *catalog, struct intent *intent, struct hold *hold)
{
    struct datastore *datastore = intent_datastore(catalog, intent->datastores);
    struct datastore *other = intent_datastore(catalog, intent->replaced_datastores);
    struct stat st;
    if (!datastore || !other)
        return -EIO;
    int error = other->ops->lookup(other, intent->to, &st);
    if (error && error != -ENOENT)
        return error;
    intent->replaced_inode = error ? 0 : st.st_ino;
    error = put(catalog, intent);
    if (error)
        return error;
    error = place_rename(datastore, intent->from, intent->to, false, intent->origin.retry);
    if (!error) {
        error = datastore->ops->sync_directory(datastore, intent->to); /* law 16: the successor is durable first */
        event("names-datastore");
        if (!error)
            error = intent_commit(catalog, intent, hold);
        if (error)
            datastore->ops->rename(datastore, intent->to, intent->from, false);
    }
    if (error) {
        intent_drop(catalog, intent);
        return error;
    }
    int left = intent_finish(catalog, intent);
    event("intent-finished");
    if (left)
        log_error("datastore %s still has the replaced %s: %s; tried again by a rescan and at the next mount",
            other->name, intent->to, error_text(left));
    else
        intent_drop(catalog, intent);
    return 0;
}

/* Over an open file of the same datastore. */
static int perform_over_open(struct catalog *catalog, struct intent *intent, struct hold *hold)
{
    struct datastore *datastore = intent_datastore(catalog, intent->datastores);
    char hidden[PATH_MAX];
    if (!datastore)
        return -EIO;
    int error = put(catalog, intent);
    if (error)
        return error;
    place_orphan(intent->replaced, hidden);
    error = place_hide(datastore, intent->to, hidden, intent->origin.retry);
    if (!error) {
        event("intent-first");
        error = place_rename(datastore, intent->from, intent->to, false, intent->origin.retry);
        event("names-datastore");
        bool renamed = error == 0;
        if (!error)
            error = datastore->ops->sync_directory(datastore, intent->to);
        if (!error)
            error = intent_commit(catalog, intent, hold);
        if (error && renamed)
            datastore->ops->rename(datastore, intent->to, intent->from, false);
        if (error)
            datastore->ops->rename(datastore, hidden, intent->to, false);
    }
    intent_drop(catalog, intent);
    return error;
}

void intent_restore_directory(struct catalog *catalog, const struct intent *intent)
{
    struct stat st;
    tree_lock(catalog);
    struct entry *replaced = tree_get(&catalog->tree, intent->replaced);
    if (replaced)
        st = replaced->st;
    tree_unlock(catalog);
    for (uint64_t bits = replaced ? intent->replaced_datastores : 0; bits; bits &= bits - 1) {
        struct datastore *datastore = intent_datastore(catalog, bits & -bits);
        if (datastore)
            datastore->ops->create(datastore, intent->to, &st, NULL); /* -EEXIST: still there */
    }
}

static void rename_back(struct catalog *catalog, const struct intent *intent, uint64_t bits)
{
    for (; bits; bits &= bits - 1) {
        struct datastore *datastore = intent_datastore(catalog, bits & -bits);
        int error = datastore ? datastore->ops->rename(datastore, intent->to, intent->from, false) : -EIO;
        if (error)
            log_error("%s could not be renamed back to %s: %s", intent->to, intent->from, error_text(error));
    }
}

/* *done: where it was renamed. A datastore may lack the directory: its record is made before it. */
static int rename_everywhere(struct catalog *catalog, const struct intent *intent, uint64_t *done)
{
    int error = 0;
    for (uint64_t bits = intent->datastores; bits && !error; bits &= bits - 1) {
        struct datastore *datastore = intent_datastore(catalog, bits & -bits);
        error = datastore ? place_rename(datastore, intent->from, intent->to, false, intent->origin.retry) : -EIO;
        if (!error) {
            *done |= bits & -bits;
            error = datastore->ops->sync_directory(datastore, intent->to);
            event("intent-part");
        } else if (error == -ENOENT) {
            error = 0;
        }
    }
    return error || *done ? error : -ENOENT;
}

static int perform_directory(struct catalog *catalog, struct intent *intent, struct hold *hold)
{
    uint64_t done = 0;
    int error = put(catalog, intent);
    if (error)
        return error;
    for (uint64_t bits = intent->replaced_datastores; bits && !error; bits &= bits - 1) {
        struct datastore *datastore = intent_datastore(catalog, bits & -bits);
        error = datastore ? datastore->ops->remove(datastore, intent->to, true) : -EIO;
        if (error == -ENOENT)
            error = 0;
    }
    event("intent-first");
    if (!error)
        error = rename_everywhere(catalog, intent, &done);
    event("names-datastore");
    if (!error)
        error = intent_commit(catalog, intent, hold);
    if (error) {
        rename_back(catalog, intent, done);
        intent_restore_directory(catalog, intent);
    }
    intent_drop(catalog, intent);
    return error;
}

int intent_perform(struct catalog *catalog, struct intent *intent, struct hold *hold)
{
    switch (intent->kind) {
    case INTENT_SIMPLE:
        return perform_simple(catalog, intent, hold);
    case INTENT_REPLACE:
        return intent->datastores == intent->replaced_datastores ? perform_over_open(catalog, intent, hold)
                                                                 : perform_across(catalog, intent, hold);
    case INTENT_DIRECTORY:
        return perform_directory(catalog, intent, hold);
    }
    return -EINVAL;
}
