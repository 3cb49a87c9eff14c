#include "catalog/names.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/event.h"
#include "catalog/place.h"
#include "catalog/records.h"

int name_check(const char *name)
{
    if (name[0] == '\0' || strchr(name, '/'))
        return -EINVAL;
    return strlen(name) > NAME_MAX ? -ENAMETOOLONG : 0;
}

/* Owns the name and uses the directory, or the errno of not being able to make it. */
static int take_new_name(struct catalog *catalog, struct hold *hold, uint64_t parent, const char *name,
    struct entry **out, char path[PATH_MAX])
{
    struct entry *directory = NULL;
    int error = name_check(name);
    if (error)
        return error;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return -EEXIST;
    hold_init(hold, catalog);
    tree_lock(catalog);
    for (;;) {
        error = catalog_directory(catalog, parent, &directory);
        if (error)
            break;
        struct entry *there = tree_child(&catalog->tree, directory, name);
        if (name_is_private(directory, name))
            error = -EPERM;
        else if (there)
            error = entry_trouble(there) ? -EIO : -EEXIST;
        else if (catalog->unseen)
            error = -EIO; /* law 15: the name may stand where nobody has looked yet */
        else
            error = tree_path_of(directory, name, path);
        if (error)
            break;
        hold->used[0] = directory;
        hold->parent = parent;
        hold->name = name;
        if (hold_take(hold)) {
            error = tree_reserve(directory);
            if (error)
                hold_release_locked(hold);
            break;
        }
        hold_wait(catalog);
    }
    tree_unlock(catalog);
    *out = directory;
    return error;
}

static int make(struct catalog *catalog, const struct entry *directory, unsigned index, const char *path,
    const struct stat *st, const char *content, bool retry)
{
    struct datastore *datastore = place_await(catalog, index);
    struct stat there;
    if (!datastore)
        return -EIO;
    int error = place_directories(catalog, directory, index, false);
    if (!error)
        error = datastore->ops->create(datastore, path, st, content);
    if (error == -ENOENT) {
        error = place_directories(catalog, directory, index, true);
        if (!error)
            error = datastore->ops->create(datastore, path, st, content);
    }
    /* Law 9: the trace of a worker that died in the middle; it may not have come to owner and mode. */
    if (error == -EEXIST && retry && datastore->ops->lookup(datastore, path, &there) == 0 &&
        (there.st_mode & S_IFMT) == (st->st_mode & S_IFMT))
        error = S_ISLNK(st->st_mode)
                    ? 0
                    : datastore->ops->set_attributes(datastore, path, st, ATTRIBUTE_MODE | ATTRIBUTE_OWNER);
    return error;
}

int names_create(struct catalog *catalog, const struct origin *origin, uint64_t parent, const char *name,
    const struct stat *st, const char *content, struct node *out)
{
    struct entry *directory, *entry = NULL;
    struct stat wanted = *st;
    char path[PATH_MAX];
    struct hold hold;
    uint64_t id;
    int error, result;

    error = record_recall(catalog, origin, &result, &id);
    if (error)
        return error < 0 ? error : result < 0 ? result : catalog_get(catalog, id, out);
    error = take_new_name(catalog, &hold, parent, name, &directory, path);
    if (error)
        return error;
    tree_lock(catalog);
    unsigned index = directory->datastore;
    if (directory->st.st_mode & S_ISGID) {
        wanted.st_gid = directory->st.st_gid;
        if (S_ISDIR(wanted.st_mode))
            wanted.st_mode |= S_ISGID;
    }
    tree_unlock(catalog);

    error = make(catalog, directory, index, path, &wanted, content, origin && origin->retry);
    if (!error)
        error = place_look(catalog, index, path, name, &entry);
    if (!error) {
        error = place_insert(catalog, directory, entry, origin, out);
        if (error)
            catalog->datastores[index]->ops->remove(catalog->datastores[index], path, S_ISDIR(wanted.st_mode));
    } else if (error == -EEXIST) {
        place_adopt(catalog, directory, name, index);
    }
    hold_release(&hold);
    return error;
}
