#include "catalog/names.h"

#include <errno.h>
#include <string.h>

#include "catalog/place.h"
#include "catalog/records.h"

#define FETCH_TRIES 3

static bool differs(const struct stat *a, const struct stat *b)
{
    return a->st_mode != b->st_mode || a->st_uid != b->st_uid || a->st_gid != b->st_gid || a->st_size != b->st_size;
}

/* From the datastore into memory; what was written meanwhile is newer than what was fetched. */
static int fetch(struct visit *visit, struct node *out)
{
    struct catalog *catalog = visit->hold.catalog;
    struct entry *entry = visit->entry;
    struct stat st;
    bool again = true, record = false;
    for (int i = 0; again; i++) {
        tree_lock(catalog);
        unsigned writes = entry->writes;
        tree_unlock(catalog);
        int error = visit->datastore->ops->lookup(visit->datastore, visit->path, &st);
        if (error)
            return error;
        if ((st.st_mode & S_IFMT) != (entry->st.st_mode & S_IFMT))
            return -EIO; /* replaced by something else behind our back */
        tree_lock(catalog);
        again = entry->writes != writes && i < FETCH_TRIES;
        if (!again) {
            if (entry->writes != writes) {
                st.st_size = entry->st.st_size;
                st.st_mtim = entry->st.st_mtim;
                st.st_ctim = entry->st.st_ctim;
            }
            record = differs(&st, &entry->st);
            entry->st = st;
            entry->known = true;
            if (out)
                entry_node(entry, out);
        }
        tree_unlock(catalog);
    }
    if (record) {
        store_begin(catalog->store, false);
        record_attributes(catalog, entry->id, &st);
        store_commit(catalog->store); /* the datastore has the truth of them */
    }
    return 0;
}

int names_refresh(struct catalog *catalog, uint64_t id, struct node *out)
{
    struct visit visit;
    ssize_t result;
    do {
        result = visit_begin(&visit, catalog, id);
        if (result)
            return (int)result;
        result = fetch(&visit, out);
    } while (!visit_over(&visit, &result));
    return (int)result;
}

/* A change of attributes reaches the partial too while the commit's outcome is unknown (law 1). Asked before the
 * change: a commit cannot begin while the node is visited, but it may end. */
struct leg {
    struct datastore *datastore; /* NULL: none */
    char partial[PATH_MAX];
};

static void leg_ask(const struct visit *visit, struct leg *leg)
{
    struct catalog *catalog = visit->hold.catalog;
    leg->datastore = NULL;
    tree_lock(catalog);
    struct job *job = job_of_node(catalog, visit->entry->id);
    if (job && job->committing) {
        leg->datastore = catalog->datastores[job->record.target];
        strcpy(leg->partial, job->record.partial);
    }
    tree_unlock(catalog);
}

/* The change was made: copies of the attributes from before are old. */
static void changed(struct visit *visit)
{
    tree_lock(visit->hold.catalog);
    visit->entry->attribute_changes++;
    clock_gettime(CLOCK_REALTIME_COARSE, &visit->entry->st.st_ctim);
    tree_unlock(visit->hold.catalog);
}

/* Mode and owner of a directory hold wherever it stands; its home has them first. */
static int set_on_carriers(struct visit *visit, const struct stat *st, unsigned mask)
{
    struct catalog *catalog = visit->hold.catalog;
    int error = 0;
    for (unsigned i = 0; i < catalog->count && !error; i++) {
        struct datastore *datastore = place_datastore(catalog, i);
        if (!datastore || datastore == visit->datastore || !(visit->entry->carriers & catalog_bit(catalog, i)))
            continue;
        error = datastore->ops->set_attributes(datastore, visit->path, st, mask);
        if (error == -ENOENT)
            error = 0;
    }
    return error;
}

static int set_attributes(struct visit *visit, struct stat *st, unsigned mask, bool kill_suid, struct node *out)
{
    struct datastore *datastore = visit->datastore;
    struct entry *entry = visit->entry;
    struct leg target;
    if (kill_suid) {
        tree_lock(visit->hold.catalog);
        mode_t mode = mask & ATTRIBUTE_MODE ? st->st_mode : entry->st.st_mode;
        tree_unlock(visit->hold.catalog);
        mode_t killed = S_ISUID | (mode & S_IXGRP ? S_ISGID : 0);
        if (mode & killed) {
            st->st_mode = mode & ~killed;
            mask |= ATTRIBUTE_MODE;
        }
    }
    leg_ask(visit, &target);
    int error = datastore->ops->set_attributes(datastore, visit->path, st, mask);
    if (!error && entry_is_directory(entry) && entry->id != NODE_ROOT && (mask & (ATTRIBUTE_MODE | ATTRIBUTE_OWNER)))
        error = set_on_carriers(visit, st, mask & (ATTRIBUTE_MODE | ATTRIBUTE_OWNER));
    if (!error && target.datastore)
        error = target.datastore->ops->set_attributes(target.datastore, target.partial, st, mask);
    changed(visit);
    return error ? error : fetch(visit, out);
}

int names_set_attributes(
    struct catalog *catalog, uint64_t id, const struct stat *st, unsigned mask, bool kill_suid, struct node *out)
{
    struct visit visit;
    ssize_t result;
    do {
        struct stat wanted = *st;
        result = visit_begin(&visit, catalog, id);
        if (result)
            return (int)result;
        result = set_attributes(&visit, &wanted, mask, kill_suid, out);
    } while (!visit_over(&visit, &result));
    return (int)result;
}

ssize_t names_get_xattr(struct catalog *catalog, uint64_t id, const char *name, void *value, size_t size)
{
    struct visit visit;
    ssize_t result;
    do {
        result = visit_begin(&visit, catalog, id);
        if (result)
            return result;
        result = visit.datastore->ops->get_xattr(visit.datastore, visit.path, name, value, size);
    } while (!visit_over(&visit, &result));
    return result;
}

ssize_t names_list_xattr(struct catalog *catalog, uint64_t id, char *out, size_t size)
{
    struct visit visit;
    ssize_t result;
    do {
        result = visit_begin(&visit, catalog, id);
        if (result)
            return result;
        result = visit.datastore->ops->list_xattr(visit.datastore, visit.path, out, size);
    } while (!visit_over(&visit, &result));
    return result;
}

int names_set_xattr(struct catalog *catalog, uint64_t id, const char *name, const void *value, size_t size, int flags)
{
    struct visit visit;
    struct leg target;
    ssize_t result;
    do {
        result = visit_begin(&visit, catalog, id);
        if (result)
            return (int)result;
        leg_ask(&visit, &target);
        result = visit.datastore->ops->set_xattr(visit.datastore, visit.path, name, value, size, flags);
        if (!result && target.datastore)
            result = target.datastore->ops->set_xattr(target.datastore, target.partial, name, value, size, 0);
        changed(&visit);
    } while (!visit_over(&visit, &result));
    return (int)result;
}

int names_remove_xattr(struct catalog *catalog, uint64_t id, const char *name)
{
    struct visit visit;
    struct leg target;
    ssize_t result;
    do {
        result = visit_begin(&visit, catalog, id);
        if (result)
            return (int)result;
        leg_ask(&visit, &target);
        result = visit.datastore->ops->remove_xattr(visit.datastore, visit.path, name);
        if (!result && target.datastore) {
            result = target.datastore->ops->remove_xattr(target.datastore, target.partial, name);
            if (result == -ENODATA)
                result = 0;
        }
        changed(&visit);
    } while (!visit_over(&visit, &result));
    return (int)result;
}

int names_open_image(struct catalog *catalog, uint64_t id, bool writable, struct image **out)
{
    struct visit visit;
    ssize_t result;
    do {
        result = visit_begin(&visit, catalog, id);
        if (result)
            return (int)result;
        result = entry_is_directory(visit.entry) ? -EISDIR
                 : !S_ISREG(visit.entry->st.st_mode)
                     ? -EINVAL
                     : visit.datastore->ops->open_image(visit.datastore, visit.path, writable, out);
    } while (!visit_over(&visit, &result));
    return (int)result;
}
