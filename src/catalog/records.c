#include "catalog/records.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "catalog/intent.h"

static int load_datastore(void *argument, struct store_row *row)
{
    struct catalog *catalog = argument;
    int64_t id = store_integer(row, 0);
    const char *name = store_text(row, 1);
    if (id < 0 || id >= CATALOG_DATASTORES_MAX)
        return -EIO;
    for (unsigned i = 0; i < catalog->count; i++) {
        if (strcmp(catalog->datastores[i]->name, name) != 0)
            continue;
        catalog->rows[i] = (unsigned)id;
        catalog->indexes[id] = (int)i;
        if (store_integer(row, 2))
            catalog->unseen &= ~(1ull << id);
        return 0;
    }
    catalog->indexes[id] = -2; /* taken */
    log_warning("datastore %s is in the catalog but not configured any more: its names answer EIO. To forget them: "
                "DELETE FROM datastores WHERE name='%s' in the catalog.db of the state directory, while not mounted",
        name, name);
    return 0;
}

int records_load_datastores(struct catalog *catalog, struct sentence *why)
{
    for (unsigned i = 0; i < CATALOG_DATASTORES_MAX; i++) {
        catalog->indexes[i] = -1;
        catalog->rows[i] = CATALOG_DATASTORES_MAX;
    }
    catalog->unseen = ~0ull;
    if (store_select(catalog->store, STORE_DATASTORES, load_datastore, catalog, "") != 0)
        return refuse(why, -EIO, "the catalog's list of datastores cannot be read");
    store_begin(catalog->store, false);
    for (unsigned i = 0, id = 0; i < catalog->count; i++) {
        if (catalog->rows[i] != CATALOG_DATASTORES_MAX)
            continue;
        while (id < CATALOG_DATASTORES_MAX && catalog->indexes[id] != -1)
            id++;
        if (id == CATALOG_DATASTORES_MAX) {
            store_rollback(catalog->store);
            return refuse(why, -ENOSPC,
                "the catalog knows %d datastores already, no room for %s: delete the rows of old ones",
                CATALOG_DATASTORES_MAX, catalog->datastores[i]->name);
        }
        catalog->rows[i] = id;
        catalog->indexes[id] = (int)i;
        store_run(catalog->store, STORE_DATASTORE_ADD, "is", (int64_t)id, catalog->datastores[i]->name);
    }
    store_run(catalog->store, STORE_NODES_FORGET, "");
    if (store_commit(catalog->store) != 0)
        return refuse(why, -EIO, "the catalog's list of datastores cannot be written");
    for (unsigned id = 0; id < CATALOG_DATASTORES_MAX; id++)
        if (catalog->indexes[id] == -2)
            catalog->indexes[id] = -1;
    catalog->unseen &= catalog_configured(catalog);
    return 0;
}

/* One row on its way into the tree; its parent may come later. */
struct loaded {
    struct entry *entry;
    uint64_t parent;
};

struct loading {
    struct catalog *catalog;
    struct loaded *rows;
    size_t count, space;
};

static void settle_datastore(struct catalog *catalog, struct entry *entry, int64_t row)
{
    int index = row >= 0 && row < CATALOG_DATASTORES_MAX ? catalog->indexes[row] : -1;
    for (unsigned i = 0; index < 0 && i < catalog->count && entry_is_directory(entry); i++)
        if (entry->carriers & catalog_bit(catalog, i))
            index = (int)i;
    entry->datastore = index < 0 ? catalog->default_datastore : (unsigned)index;
    if (index < 0 && entry->id != NODE_ROOT)
        entry->trouble = TROUBLE_ABSENT;
}

static int load_node(void *argument, struct store_row *row)
{
    struct loading *loading = argument;
    struct stat st = {
        .st_mode = (mode_t)store_integer(row, 5),
        .st_uid = (uid_t)store_integer(row, 6),
        .st_gid = (gid_t)store_integer(row, 7),
        .st_rdev = (dev_t)store_integer(row, 8),
        .st_size = store_integer(row, 9),
        .st_blocks = store_integer(row, 10),
        .st_atim = {store_integer(row, 11), store_integer(row, 12)},
        .st_mtim = {store_integer(row, 13), store_integer(row, 14)},
        .st_ctim = {store_integer(row, 15), store_integer(row, 16)},
        .st_blksize = 4096,
    };
    if (loading->count == loading->space) {
        size_t space = loading->space ? loading->space * 2 : 1024;
        struct loaded *rows = realloc(loading->rows, space * sizeof(*rows));
        if (!rows)
            return -ENOMEM;
        loading->rows = rows;
        loading->space = space;
    }
    struct entry *entry = entry_new((uint64_t)store_integer(row, 0), store_text(row, 2), &st, store_text(row, 17));
    if (!entry)
        return -ENOMEM;
    const char *file = store_text(row, 18);
    entry->file = file ? strdup(file) : NULL;
    entry->carriers = (uint64_t)store_integer(row, 4);
    entry->orphan = store_integer(row, 19) != 0;
    entry->trouble = (enum trouble)store_integer(row, 20);
    settle_datastore(loading->catalog, entry, store_integer(row, 3));
    loading->rows[loading->count++] = (struct loaded){entry, (uint64_t)store_integer(row, 1)};
    tree_add(&loading->catalog->tree, entry);
    return 0;
}

static int link_nodes(struct catalog *catalog, struct loading *loading)
{
    for (size_t i = 0; i < loading->count; i++) {
        struct entry *entry = loading->rows[i].entry;
        if (entry->id == NODE_ROOT) {
            catalog->root = entry;
            continue;
        }
        catalog_count_file(catalog, entry, 1);
        if (entry->orphan)
            continue;
        struct entry *parent = tree_get(&catalog->tree, loading->rows[i].parent);
        if (!parent || !entry_is_directory(parent) || parent == entry) {
            log_error(
                "the catalog's record %" PRIu64 " (%s) stands in no directory: passed over", entry->id, entry->name);
            entry->trouble = TROUBLE_LOST;
            continue;
        }
        if (tree_reserve(parent) != 0)
            return -ENOMEM;
        tree_link(&catalog->tree, parent, entry);
    }
    return 0;
}

static int load_job(void *argument, struct store_row *row)
{
    struct catalog *catalog = argument;
    int64_t source = store_integer(row, 2), target = store_integer(row, 3);
    int source_index = source >= 0 && source < CATALOG_DATASTORES_MAX ? catalog->indexes[source] : -1;
    int target_index = target >= 0 && target < CATALOG_DATASTORES_MAX ? catalog->indexes[target] : -1;
    if (source_index < 0 || target_index < 0) {
        log_error("job %" PRId64 " of the catalog waits for a datastore that is not configured", store_integer(row, 0));
        return 0;
    }
    struct job *job = calloc(1, sizeof(*job));
    if (!job)
        return -ENOMEM;
    list_init(&job->link);
    struct job_record *record = &job->record;
    record->id = (uint64_t)store_integer(row, 0);
    record->node = (uint64_t)store_integer(row, 1);
    record->source = (unsigned)source_index;
    record->target = (unsigned)target_index;
    record->state = (enum job_record_state)store_integer(row, 4);
    strncpy(record->request, store_text(row, 5), sizeof(record->request) - 1);
    strncpy(record->partial, store_text(row, 6), sizeof(record->partial) - 1);
    strncpy(record->source_file, store_text(row, 7), sizeof(record->source_file) - 1);
    strncpy(record->kept, store_text(row, 8), sizeof(record->kept) - 1);
    list_append(&catalog->jobs, &job->link);
    return 0;
}

static int load_last_id(void *argument, struct store_row *row)
{
    ((struct catalog *)argument)->next_id = (uint64_t)store_integer(row, 0) + 1;
    return 0;
}

static int make_root(struct catalog *catalog)
{
    struct stat st = {.st_mode = S_IFDIR | 0755, .st_blksize = 4096};
    catalog->root = entry_new(NODE_ROOT, "", &st, NULL);
    if (!catalog->root)
        return -ENOMEM;
    clock_gettime(CLOCK_REALTIME_COARSE, &st.st_mtim);
    catalog->root->st.st_atim = catalog->root->st.st_ctim = catalog->root->st.st_mtim = st.st_mtim;
    tree_add(&catalog->tree, catalog->root);
    catalog->root->datastore = catalog->default_datastore;
    store_begin(catalog->store, true);
    record_add(catalog, catalog->root, 0);
    return store_commit(catalog->store);
}

int records_load(struct catalog *catalog, struct sentence *why)
{
    struct loading loading = {.catalog = catalog};
    int error = store_select(catalog->store, STORE_NODES, load_node, &loading, "");
    if (!error)
        error = link_nodes(catalog, &loading);
    free(loading.rows);
    if (!error && !catalog->root)
        error = make_root(catalog);
    if (!error)
        error = store_select(catalog->store, STORE_LAST_ID, load_last_id, catalog, "");
    if (!error)
        error = store_select(catalog->store, STORE_JOBS, load_job, catalog, "");
    if (error)
        return refuse(why, error, "the catalog's records cannot be read: %s", error_text(error));
    catalog->root->datastore = catalog->default_datastore;
    catalog->root->carriers |= catalog_configured(catalog);
    return 0;
}

void record_add(struct catalog *catalog, const struct entry *entry, uint64_t parent)
{
    const struct stat *st = &entry->st;
    store_run(catalog->store, STORE_NODE_ADD, "iisiiiiiiiiiiiiiissii", (int64_t)entry->id, (int64_t)parent, entry->name,
        (int64_t)catalog->rows[entry->datastore], (int64_t)entry->carriers, (int64_t)st->st_mode, (int64_t)st->st_uid,
        (int64_t)st->st_gid, (int64_t)st->st_rdev, (int64_t)st->st_size, (int64_t)st->st_blocks,
        (int64_t)st->st_atim.tv_sec, (int64_t)st->st_atim.tv_nsec, (int64_t)st->st_mtim.tv_sec,
        (int64_t)st->st_mtim.tv_nsec, (int64_t)st->st_ctim.tv_sec, (int64_t)st->st_ctim.tv_nsec, entry->content,
        entry->file, (int64_t)entry->orphan, (int64_t)entry->trouble);
}

struct place place_of(const struct entry *entry)
{
    return (struct place){
        .parent = entry->parent ? entry->parent->id : 0,
        .name = entry->name,
        .datastore = entry->datastore,
        .carriers = entry->carriers,
        .file = entry->file,
        .orphan = entry->orphan,
        .trouble = entry->trouble,
    };
}

void record_place(struct catalog *catalog, uint64_t id, const struct place *place)
{
    store_run(catalog->store, STORE_NODE_PLACE, "iisiisii", (int64_t)id, (int64_t)place->parent, place->name,
        (int64_t)catalog->rows[place->datastore], (int64_t)place->carriers, place->file, (int64_t)place->orphan,
        (int64_t)place->trouble);
}

void record_attributes(struct catalog *catalog, uint64_t id, const struct stat *st)
{
    store_run(catalog->store, STORE_NODE_ATTRIBUTES, "iiiiiiiiiiiii", (int64_t)id, (int64_t)st->st_mode,
        (int64_t)st->st_uid, (int64_t)st->st_gid, (int64_t)st->st_rdev, (int64_t)st->st_size, (int64_t)st->st_blocks,
        (int64_t)st->st_atim.tv_sec, (int64_t)st->st_atim.tv_nsec, (int64_t)st->st_mtim.tv_sec,
        (int64_t)st->st_mtim.tv_nsec, (int64_t)st->st_ctim.tv_sec, (int64_t)st->st_ctim.tv_nsec);
}

void record_carriers(struct catalog *catalog, uint64_t id, uint64_t add, uint64_t remove)
{
    store_run(catalog->store, STORE_NODE_CARRIERS, "iii", (int64_t)id, (int64_t)add, (int64_t)remove);
}

void record_delete(struct catalog *catalog, uint64_t id)
{
    store_run(catalog->store, STORE_NODE_DELETE, "i", (int64_t)id);
    store_run(catalog->store, STORE_RESULT_DELETE, "i", (int64_t)id);
}

void record_applied(struct catalog *catalog, const struct origin *origin, int result, uint64_t node)
{
    if (origin)
        store_run(catalog->store, STORE_APPLIED_PUT, "iiii", (int64_t)origin->slot, (int64_t)origin->unique,
            (int64_t)result, (int64_t)node);
}

struct recalled {
    int result;
    uint64_t node;
    bool found;
};

static int recall_row(void *argument, struct store_row *row)
{
    struct recalled *recalled = argument;
    recalled->result = (int)store_integer(row, 0);
    recalled->node = (uint64_t)store_integer(row, 1);
    recalled->found = true;
    return 0;
}

int record_recall(struct catalog *catalog, const struct origin *origin, int *result, uint64_t *node)
{
    struct recalled recalled = {0};
    if (!origin || !origin->retry)
        return 0;
    intents_await(catalog, origin);
    int error = store_select(
        catalog->store, STORE_APPLIED, recall_row, &recalled, "ii", (int64_t)origin->slot, (int64_t)origin->unique);
    if (error)
        return error;
    *result = recalled.result;
    *node = recalled.node;
    return recalled.found;
}

void record_job(struct catalog *catalog, const struct job_record *record)
{
    int64_t source = catalog->rows[record->source], target = catalog->rows[record->target];
    if (record->id == 0)
        store_run(catalog->store, STORE_JOB_ADD, "iiiissss", (int64_t)record->node, source, target,
            (int64_t)record->state, record->request, record->partial, record->source_file, record->kept);
    else
        store_run(catalog->store, STORE_JOB_UPDATE, "iiiiissss", (int64_t)record->id, (int64_t)record->node, source,
            target, (int64_t)record->state, record->request, record->partial, record->source_file, record->kept);
}
