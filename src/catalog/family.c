/* What moves with a directory: what is below it, and what becomes of the directories themselves. See jobs.h. */
#include <errno.h>
#include <stdlib.h>

#include "base/event.h"
#include "base/log.h"
#include "catalog/place.h"
#include "catalog/records.h"

struct found {
    struct catalog *catalog;
    unsigned target;
    bool directories; /* them, or the others */
    uint64_t *ids;
    size_t count, room, most;
    const struct entry *conflict;
};

static int add(struct found *found, uint64_t id)
{
    if (found->count == found->most)
        return -E2BIG;
    if (found->count == found->room) {
        size_t room = found->room ? 2 * found->room : 32;
        uint64_t *ids = realloc(found->ids, room * sizeof(*ids));
        if (!ids)
            return -ENOMEM;
        found->ids = ids;
        found->room = room;
    }
    found->ids[found->count++] = id;
    return 0;
}

static int find(struct found *found, const struct entry *directory)
{
    int error = found->directories ? add(found, directory->id) : 0;
    for (unsigned i = 0; i < directory->child_count && !error; i++) {
        const struct entry *child = directory->children[i];
        if (entry_is_directory(child)) {
            error = find(found, child);
        } else if (!found->directories && child->datastore != found->target) {
            if (child->trouble)
                found->conflict = child;
            error = child->trouble ? -EIO : add(found, child->id);
        }
    }
    return error;
}

static int find_all(struct found *found, uint64_t directory, uint64_t **ids, size_t *count, struct sentence *why)
{
    char path[PATH_MAX] = "";
    tree_lock(found->catalog);
    struct entry *entry = tree_get(&found->catalog->tree, directory);
    int error = !entry ? -ENOENT : !entry_is_directory(entry) ? -ENOTDIR : find(found, entry);
    if (found->conflict)
        tree_path(found->conflict, path);
    tree_unlock(found->catalog);
    if (found->conflict)
        refuse(why, error, "/%s in it cannot be told for sure: settle that first", path);
    if (error == -E2BIG)
        refuse(why, error, "it has more than %zu files; move its directories one by one", found->most);
    if (error) {
        free(found->ids);
        return error;
    }
    *ids = found->ids;
    *count = found->count;
    return 0;
}

int jobs_find_members(struct catalog *catalog, uint64_t directory, unsigned target, size_t most, uint64_t **ids,
    size_t *count, struct sentence *why)
{
    struct found found = {.catalog = catalog, .target = target, .most = most};
    return find_all(&found, directory, ids, count, why);
}

int jobs_find_directories(struct catalog *catalog, uint64_t directory, uint64_t **ids, size_t *count)
{
    struct found found = {.catalog = catalog, .directories = true, .most = SIZE_MAX};
    return find_all(&found, directory, ids, count, NULL);
}

uint64_t jobs_moving(struct catalog *catalog, uint64_t node)
{
    tree_lock(catalog);
    struct job *job = job_of_node(catalog, node);
    uint64_t id = job ? job->record.id : 0;
    tree_unlock(catalog);
    return id;
}

bool jobs_running(struct catalog *catalog, uint64_t id)
{
    tree_lock(catalog);
    struct job *job = job_of_id(catalog, id);
    bool runs = job && job_record_runs(&job->record);
    tree_unlock(catalog);
    return runs;
}

uint64_t jobs_family_of(struct catalog *catalog, uint64_t node)
{
    uint64_t directory = 0;
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, node);
    list_for_each (link, &catalog->jobs) {
        const struct job *job = container_of(link, struct job, link);
        struct entry *moving = tree_get(&catalog->tree, job->record.node);
        if (entry && moving && moving != entry && entry_is_directory(moving) && entry_is_below(entry, moving) &&
            job->record.state == JOB_RECORD_RUNNING)
            directory = moving->id;
    }
    tree_unlock(catalog);
    return directory;
}

uint64_t jobs_overlap(struct catalog *catalog, uint64_t node)
{
    uint64_t other = 0;
    tree_lock(catalog);
    struct entry *entry = tree_get(&catalog->tree, node);
    list_for_each (link, &catalog->jobs) {
        const struct job *job = container_of(link, struct job, link);
        const struct entry *moving = tree_get(&catalog->tree, job->record.node);
        if (entry && moving && job->record.state != JOB_RECORD_ABANDONED &&
            (entry_is_below(entry, moving) || entry_is_below(moving, entry)))
            other = moving->id;
    }
    tree_unlock(catalog);
    return other;
}

/* One directory leaves the datastores that it was on, where it is empty. It is owned meanwhile: nothing is being made
 * in it. What others have put there keeps it. */
static void leave(struct catalog *catalog, uint64_t id, unsigned target)
{
    struct hold hold;
    char path[PATH_MAX];
    hold_init(&hold, catalog);
    tree_lock(catalog);
    for (;;) {
        struct entry *entry = tree_get(&catalog->tree, id);
        hold.owned[0] = entry && entry->parent && entry->datastore == target && tree_path(entry, path) == 0 ? entry
                                                                                                            : NULL;
        if (!hold.owned[0] || hold_take(&hold))
            break;
        hold_wait(catalog);
    }
    tree_unlock(catalog);
    struct entry *entry = hold.owned[0];
    for (unsigned i = 0; entry && i < catalog->count; i++) {
        struct datastore *datastore = place_datastore(catalog, i);
        uint64_t bit = catalog_bit(catalog, i);
        if (i == target || !datastore || !(entry->carriers & bit) || datastore->ops->remove(datastore, path, true) < 0)
            continue;
        store_begin(catalog->store, false);
        record_carriers(catalog, id, 0, bit);
        store_commit(catalog->store);
        tree_lock(catalog);
        entry->carriers &= ~bit;
        tree_unlock(catalog);
        event("family-left");
    }
    if (entry)
        hold_release(&hold);
}

/* A committed member whose end is not done yet; 0: none. */
static uint64_t member_left(struct catalog *catalog, const struct job_record *family)
{
    uint64_t node = 0;
    tree_lock(catalog);
    const struct entry *directory = tree_get(&catalog->tree, family->node);
    list_for_each (link, &catalog->jobs) {
        const struct job *job = container_of(link, struct job, link);
        const struct entry *member = tree_get(&catalog->tree, job->record.node);
        if (directory && member && member != directory && job->record.state == JOB_RECORD_COMMITTED &&
            entry_is_below(member, directory))
            node = member->id;
    }
    tree_unlock(catalog);
    return node;
}

int jobs_complete_family(struct catalog *catalog, const struct job_record *family)
{
    uint64_t *ids = NULL, member;
    size_t count = 0;
    int error = 0;
    while (!error && (member = member_left(catalog, family)))
        error = jobs_settle(catalog, member);
    if (error)
        return error;
    jobs_find_directories(catalog, family->node, &ids, &count);
    while (count > 0)
        leave(catalog, ids[--count], family->target);
    free(ids);
    return jobs_drop(catalog, family->id);
}
