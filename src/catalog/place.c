#include "catalog/place.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/event.h"
#include "base/log.h"
#include "catalog/records.h"

struct datastore *place_datastore(struct catalog *catalog, unsigned index)
{
    struct datastore *datastore = catalog->datastores[index];
    return atomic_load(&datastore->away) ? NULL : datastore;
}

struct datastore *place_await(struct catalog *catalog, unsigned index)
{
    tree_lock(catalog);
    while (catalog_comes(catalog, catalog->datastores[index]))
        hold_wait(catalog);
    tree_unlock(catalog);
    return place_datastore(catalog, index);
}

static int make_directory(struct datastore *datastore, const char *path, const struct stat *st)
{
    struct stat there;
    int error = datastore->ops->create(datastore, path, st, NULL);
    if (error != -EEXIST)
        return error;
    error = datastore->ops->lookup(datastore, path, &there);
    if (!error && !S_ISDIR(there.st_mode)) {
        log_error("datastore %s has a file at %s, where the mount has a directory", datastore->name, path);
        error = -EIO;
    }
    return error;
}

/* The record comes first: it may name a directory that is not there, never miss one that is. */
static int note_carrier(struct catalog *catalog, uint64_t id, uint64_t bit)
{
    store_begin(catalog->store, false);
    record_carriers(catalog, id, bit, 0);
    return store_commit(catalog->store);
}

int place_directories(struct catalog *catalog, const struct entry *directory, unsigned index, bool again)
{
    uint64_t bit = catalog_bit(catalog, index);
    struct datastore *datastore = place_datastore(catalog, index);
    char path[PATH_MAX];
    unsigned depth = 0;
    if (!datastore)
        return -EIO;
    tree_lock(catalog);
    bool has = (directory->carriers & bit) != 0;
    int error = tree_path(directory, path);
    for (const struct entry *entry = directory; entry->parent; entry = entry->parent)
        depth++;
    tree_unlock(catalog);
    if (error || (has && !again))
        return error;
    char *end = path;
    for (unsigned level = 1; level <= depth && !error; level++) {
        struct entry *entry = (struct entry *)directory;
        end = strchrnul(end + (level > 1), '/');
        char cut = *end;
        tree_lock(catalog);
        for (unsigned up = depth; up > level; up--)
            entry = entry->parent;
        has = (entry->carriers & bit) != 0;
        struct stat st = entry->st;
        tree_unlock(catalog);
        if (has && !again)
            continue;
        *end = '\0';
        error = note_carrier(catalog, entry->id, bit);
        if (!error)
            error = make_directory(datastore, path, &st);
        *end = cut;
        tree_lock(catalog);
        if (!error)
            entry->carriers |= bit;
        tree_unlock(catalog);
    }
    return error;
}

int place_private(struct datastore *datastore)
{
    struct stat st = {.st_mode = S_IFDIR | 0700};
    int error = make_directory(datastore, DATASTORE_PRIVATE, &st);
    return error ? error : datastore->ops->sync_directory(datastore, DATASTORE_PRIVATE);
}

void place_orphan(uint64_t id, char out[PATH_MAX])
{
    snprintf(out, PATH_MAX, "%s/orphan-%" PRIu64, DATASTORE_PRIVATE, id);
}

int place_rename(struct datastore *datastore, const char *from, const char *to, bool replace, bool retry)
{
    struct stat st;
    int error = datastore->ops->rename(datastore, from, to, replace);
    if (retry && (error == -ENOENT || error == -EEXIST) && datastore->ops->lookup(datastore, from, &st) == -ENOENT &&
        datastore->ops->lookup(datastore, to, &st) == 0)
        error = 0;
    return error;
}

int place_hide(struct datastore *datastore, const char *path, const char *hidden, bool retry)
{
    int error = place_rename(datastore, path, hidden, false, retry);
    if (error == -ENOENT && place_private(datastore) == 0)
        error = place_rename(datastore, path, hidden, false, retry);
    return error;
}

int place_look(struct catalog *catalog, unsigned index, const char *path, const char *name, struct entry **out)
{
    struct datastore *datastore = place_datastore(catalog, index);
    char content[PATH_MAX] = "";
    struct stat st;
    if (!datastore)
        return -EIO;
    int error = datastore->ops->lookup(datastore, path, &st);
    if (!error && S_ISLNK(st.st_mode))
        error = datastore->ops->readlink(datastore, path, content, sizeof(content));
    if (error < 0)
        return error;
    tree_lock(catalog);
    uint64_t id = catalog->next_id++;
    tree_unlock(catalog);
    struct entry *entry = entry_new(id, name, &st, S_ISLNK(st.st_mode) ? content : NULL);
    if (!entry)
        return -ENOMEM;
    entry->known = true;
    entry->datastore = index;
    entry->carriers = S_ISDIR(st.st_mode) ? catalog_bit(catalog, index) : 0;
    *out = entry;
    return 0;
}

int place_insert(struct catalog *catalog, struct entry *directory, struct entry *entry, const struct origin *origin,
    struct node *out)
{
    event("names-datastore");
    store_begin(catalog->store, false);
    record_add(catalog, entry, directory->id);
    record_applied(catalog, origin, 0, entry->id);
    int error = store_commit(catalog->store);
    if (error) {
        entry_free(entry);
        return error;
    }
    event("names-store");
    tree_lock(catalog);
    tree_add(&catalog->tree, entry);
    tree_link(&catalog->tree, directory, entry);
    catalog_count_file(catalog, entry, 1);
    entry_touch(directory);
    if (out)
        entry_node(entry, out);
    tree_unlock(catalog);
    return 0;
}

int place_adopt(struct catalog *catalog, struct entry *directory, const char *name, unsigned index)
{
    struct entry *entry = NULL;
    char path[PATH_MAX];
    tree_lock(catalog);
    int error = tree_path_of(directory, name, path);
    if (!error)
        error = tree_reserve(directory);
    tree_unlock(catalog);
    if (!error)
        error = place_look(catalog, index, path, name, &entry);
    if (!error)
        error = place_insert(catalog, directory, entry, NULL, NULL);
    if (!error)
        log_info("%s was found on datastore %s, where the mount was about to make it", path,
            catalog->datastores[index]->name);
    return error;
}
