#include "catalog/catalog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "catalog/intent.h"
#include "catalog/records.h"
#include "catalog/scan.h"

/* How long a worker that follows a dead one gives the requests that it had begun to come again. */
#define SETTLING_NS (10 * NS_PER_S)

static void drop_hidden_orphans(struct catalog *catalog);

int catalog_open(struct catalog **out, const char *state_directory, struct datastore **datastores, unsigned count,
    unsigned default_datastore, bool first, struct sentence *why)
{
    struct catalog *catalog = calloc(1, sizeof(*catalog));
    if (!catalog || tree_init(&catalog->tree) != 0) {
        free(catalog);
        return refuse(why, -ENOMEM, "no memory for the catalog");
    }
    catalog->datastores = datastores;
    catalog->count = count;
    catalog->default_datastore = default_datastore;
    list_init(&catalog->making);
    list_init(&catalog->jobs);
    list_init(&catalog->replays);
    catalog->settled = first ? 0 : clock_now() + SETTLING_NS;
    catalog->taken_over = first ? 0 : clock_now();
    pthread_mutex_init(&catalog->scanning, NULL);
    int error = count == 0 || count > CATALOG_DATASTORES_MAX || default_datastore >= count
                    ? refuse(why, -EINVAL, "a catalog needs 1 to %d datastores", CATALOG_DATASTORES_MAX)
                    : 0;
    if (!error)
        error = store_open(&catalog->store, state_directory, why);
    if (!error)
        error = records_load_datastores(catalog, why);
    if (!error)
        error = records_load(catalog, why);
    if (!error && first) {
        store_begin(catalog->store, false);
        store_run(catalog->store, STORE_APPLIED_CLEAR, "");
        error = store_commit(catalog->store);
    }
    if (!error)
        error = intents_replay(catalog, !first);
    if (!error && first) {
        drop_hidden_orphans(catalog);
        error = scan_first(catalog, why);
    }
    if (error) {
        if (why && why->text[0] == '\0')
            refuse(why, error, "the catalog in %s cannot be opened: %s", state_directory, error_text(error));
        catalog_close(catalog);
        return error;
    }
    if (!first)
        scan_follow(catalog);
    *out = catalog;
    return 0;
}

/* Nothing is open at a mount's start: what waited for its last handle goes. */
static void drop_hidden_orphans(struct catalog *catalog)
{
    size_t count = 0;
    uint64_t *ids = calloc(catalog->tree.count, sizeof(*ids));
    for (size_t i = 0; ids && i <= catalog->tree.mask; i++)
        for (struct entry *entry = catalog->tree.by_id[i]; entry; entry = entry->id_next)
            if (entry->orphan)
                ids[count++] = entry->id;
    while (count > 0)
        names_release_orphan(catalog, ids[--count]); /* stays in the records while its datastore is away */
    free(ids);
}

void catalog_close(struct catalog *catalog)
{
    if (!catalog)
        return;
    scan_join(catalog);
    intents_join(catalog);
    store_close(catalog->store);
    for (struct list *link; (link = list_pop(&catalog->jobs));)
        free(container_of(link, struct job, link));
    tree_free(&catalog->tree);
    pthread_mutex_destroy(&catalog->scanning);
    free(catalog);
}

int catalog_directory(struct catalog *catalog, uint64_t id, struct entry **out)
{
    struct entry *entry = tree_get(&catalog->tree, id);
    if (!entry || (entry->orphan && entry_is_directory(entry)))
        return -ENOENT;
    if (!entry_is_directory(entry))
        return -ENOTDIR;
    *out = entry;
    return entry_trouble(entry);
}

static int lookup(struct catalog *catalog, uint64_t parent, const char *name, struct node *out)
{
    struct entry *directory;
    int error = catalog_directory(catalog, parent, &directory);
    if (error)
        return error;
    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    if (name_is_private(directory, name))
        return -ENOENT;
    struct entry *entry = tree_child(&catalog->tree, directory, name);
    if (strcmp(name, ".") == 0)
        entry = directory;
    if (strcmp(name, "..") == 0)
        entry = directory->parent ? directory->parent : directory;
    if (!entry)
        return catalog->unseen ? -EIO : -ENOENT;
    entry_node(entry, out);
    return entry_trouble(entry);
}

int catalog_lookup(struct catalog *catalog, uint64_t parent, const char *name, struct node *out)
{
    tree_lock(catalog);
    int error = lookup(catalog, parent, name, out);
    tree_unlock(catalog);
    return error;
}

int catalog_get(struct catalog *catalog, uint64_t id, struct node *out)
{
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, id);
    if (entry && out)
        entry_node(entry, out);
    tree_unlock(catalog);
    return entry ? 0 : -ENOENT;
}

int catalog_file_of(const struct entry *entry, char out[PATH_MAX])
{
    if (!entry->file)
        return tree_path(entry, out);
    strcpy(out, entry->file);
    return 0;
}

int catalog_path(struct catalog *catalog, uint64_t id, char out[PATH_MAX])
{
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, id);
    int error = !entry ? -ENOENT : entry->orphan ? catalog_file_of(entry, out) : tree_path(entry, out);
    tree_unlock(catalog);
    return error;
}

int catalog_file(struct catalog *catalog, uint64_t id, unsigned *datastore, char out[PATH_MAX])
{
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, id);
    int error = entry ? catalog_file_of(entry, out) : -ENOENT;
    if (!error)
        *datastore = entry->datastore;
    tree_unlock(catalog);
    return error;
}

#define LIST_BATCH 32

struct batch {
    unsigned count;
    struct {
        struct node node;
        char name[NAME_MAX + 1];
    } entries[LIST_BATCH];
};

static int fill(struct catalog *catalog, uint64_t id, uint64_t after, struct batch *batch)
{
    struct entry *directory;
    batch->count = 0;
    tree_lock(catalog);
    int error = catalog_directory(catalog, id, &directory);
    for (unsigned i = error ? 0 : tree_child_after(directory, after);
         !error && i < directory->child_count && batch->count < LIST_BATCH; i++) {
        const struct entry *entry = directory->children[i];
        entry_node(entry, &batch->entries[batch->count].node);
        strcpy(batch->entries[batch->count++].name, entry->name);
    }
    tree_unlock(catalog);
    return error;
}

int catalog_list(struct catalog *catalog, uint64_t directory, uint64_t after, catalog_entry *entry, void *argument)
{
    struct batch batch;
    do {
        int error = fill(catalog, directory, after, &batch);
        if (error)
            return error;
        for (unsigned i = 0; i < batch.count; i++) {
            if (entry(argument, batch.entries[i].name, &batch.entries[i].node) != 0)
                return 0;
            after = batch.entries[i].node.id;
        }
    } while (batch.count == LIST_BATCH);
    return 0;
}

int catalog_readlink(struct catalog *catalog, uint64_t id, char out[PATH_MAX])
{
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, id);
    int error = !entry ? -ENOENT : entry_trouble(entry) ? -EIO : entry->content ? 0 : -EINVAL;
    if (!error) {
        strncpy(out, entry->content, PATH_MAX - 1);
        out[PATH_MAX - 1] = '\0';
    }
    tree_unlock(catalog);
    return error;
}

void catalog_wrote(struct catalog *catalog, uint64_t id, uint64_t end, bool resized)
{
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, id);
    if (entry) {
        entry_touch(entry);
        entry->writes++;
        if (resized || (off_t)end > entry->st.st_size)
            entry->st.st_size = (off_t)end;
    }
    tree_unlock(catalog);
}

struct datastore *catalog_datastore(struct catalog *catalog, unsigned index)
{
    return index < catalog->count ? catalog->datastores[index] : NULL;
}

unsigned catalog_datastore_count(struct catalog *catalog)
{
    return catalog->count;
}

uint64_t catalog_files(struct catalog *catalog, unsigned datastore)
{
    tree_lock(catalog);
    uint64_t files = datastore < catalog->count ? catalog->files[datastore] : 0;
    tree_unlock(catalog);
    return files;
}

uint64_t catalog_carriers(struct catalog *catalog, uint64_t directory)
{
    uint64_t carriers = 0;
    tree_lock(catalog);
    const struct entry *entry = tree_get(&catalog->tree, directory);
    for (unsigned i = 0; entry && entry_is_directory(entry) && i < catalog->count; i++)
        if (entry->id == NODE_ROOT || entry->carriers & catalog_bit(catalog, i))
            carriers |= 1ull << i;
    tree_unlock(catalog);
    return carriers;
}
