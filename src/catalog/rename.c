#include "catalog/names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog/intent.h"
#include "catalog/place.h"
#include "catalog/records.h"

/* A rename on its way: what it found, and holds. */
struct move {
    struct catalog *catalog;
    uint64_t parent, new_parent;
    const char *name, *new_name;
    unsigned flags;
    struct entry *directory, *new_directory, *entry, *there; /* there: what has the new name, or NULL */
    struct hold hold;
    struct intent intent;
};

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* What a local file system refuses, in its order. With the tree's mutex. */
static int check(struct move *move)
{
    struct catalog *catalog = move->catalog;
    int error = catalog_directory(catalog, move->parent, &move->directory);
    if (!error)
        error = catalog_directory(catalog, move->new_parent, &move->new_directory);
    if (error)
        return error;
    if (is_dots(move->name) || is_dots(move->new_name))
        return -EBUSY;
    if (name_is_private(move->directory, move->name))
        return -ENOENT;
    move->entry = tree_child(&catalog->tree, move->directory, move->name);
    move->there = tree_child(&catalog->tree, move->new_directory, move->new_name);
    if (!move->entry)
        return catalog->unseen ? -EIO : -ENOENT;
    if (name_is_private(move->new_directory, move->new_name))
        return -EPERM;
    if (entry_trouble(move->entry) || (move->there && entry_trouble(move->there)))
        return -EIO;
    if (move->there && (move->flags & RENAME_NOREPLACE))
        return -EEXIST;
    if (entry_is_below(move->new_directory, move->entry))
        return -EINVAL;
    if (move->there == move->entry)
        return 0;
    if (!move->there)
        return catalog->unseen ? -EIO : 0;
    if (entry_is_directory(move->entry) != entry_is_directory(move->there))
        return entry_is_directory(move->entry) ? -ENOTDIR : -EISDIR;
    return move->there->child_count ? -ENOTEMPTY : 0;
}

/* -EAGAIN: look again. */
static int take(struct move *move)
{
    struct catalog *catalog = move->catalog;
    struct entry *both[2] = {move->entry, move->there};
    enum job_way way = JOB_CLEAR;
    for (int i = 0; i < 2; i++) {
        enum job_way one = both[i] ? job_way(catalog, both[i]->id) : JOB_CLEAR;
        if (one == JOB_SETTLE) {
            uint64_t id = both[i]->id;
            tree_unlock(catalog);
            int error = jobs_settle(catalog, id);
            tree_lock(catalog);
            return error ? error : -EAGAIN;
        }
        if (one == JOB_WAIT)
            way = JOB_WAIT;
    }
    struct hold *hold = &move->hold;
    hold->used[0] = move->directory;
    hold->used[1] = move->new_directory;
    hold->owned[0] = move->entry;
    hold->owned[1] = move->there;
    hold->parent = move->new_parent;
    hold->name = move->new_name;
    if (way == JOB_CLEAR && hold_take(hold))
        return 0;
    hold_wait(catalog);
    return -EAGAIN;
}

static void describe(struct move *move, const struct origin *origin)
{
    struct catalog *catalog = move->catalog;
    struct intent *intent = &move->intent;
    intent->node = move->entry->id;
    intent->parent = move->new_parent;
    snprintf(intent->name, sizeof(intent->name), "%s", move->new_name);
    intent->replaced = move->there ? move->there->id : 0;
    intent->has_origin = origin != NULL;
    if (origin)
        intent->origin = *origin;
    if (entry_is_directory(move->entry)) {
        uint64_t configured = catalog_configured(catalog);
        intent->datastores = move->entry->carriers & configured;
        intent->replaced_datastores = move->there ? move->there->carriers & configured : 0;
        bool one = (intent->datastores & (intent->datastores - 1)) == 0;
        intent->kind = one && !move->there ? INTENT_SIMPLE : INTENT_DIRECTORY;
    } else {
        intent->datastores = catalog_bit(catalog, move->entry->datastore);
        intent->replaced_datastores = move->there ? catalog_bit(catalog, move->there->datastore) : 0;
        intent->kind = !move->there || intent->datastores == intent->replaced_datastores ? INTENT_SIMPLE
                                                                                         : INTENT_REPLACE;
    }
}

/* The new directory, wherever the node stands. */
static int make_way(struct move *move)
{
    int error = 0;
    for (unsigned i = 0; i < move->catalog->count && !error; i++)
        if (move->intent.datastores & catalog_bit(move->catalog, i))
            error = place_directories(move->catalog, move->new_directory, i, false);
    return error;
}

static int lengths(const char *name, const char *new_name)
{
    int error = name_check(name);
    return error ? error : name_check(new_name);
}

int names_rename(struct catalog *catalog, const struct origin *origin, uint64_t parent, const char *name,
    uint64_t new_parent, const char *new_name, unsigned flags, bool (*keep_open)(void *argument, uint64_t id),
    void *argument, uint64_t *replaced)
{
    int result, error = flags & ~(unsigned)RENAME_NOREPLACE ? -EINVAL : lengths(name, new_name);
    if (error)
        return error;
    *replaced = 0;
    error = record_recall(catalog, origin, &result, replaced);
    if (error)
        return error < 0 ? error : result;
    struct move *move = calloc(1, sizeof(*move));
    if (!move)
        return -ENOMEM;
    *move = (struct move){.catalog = catalog,
        .parent = parent,
        .new_parent = new_parent,
        .name = name,
        .new_name = new_name,
        .flags = flags};
    hold_init(&move->hold, catalog);
    tree_lock(catalog);
    do {
        error = check(move);
        if (error || move->there == move->entry)
            break;
        error = tree_path(move->entry, move->intent.from);
        if (!error)
            error = tree_path_of(move->new_directory, new_name, move->intent.to);
        if (!error)
            error = take(move);
    } while (error == -EAGAIN);
    bool same = !error && move->there == move->entry;
    if (!error && !same)
        describe(move, origin);
    tree_unlock(catalog);
    if (!error && !same) {
        struct intent *intent = &move->intent;
        bool file = intent->replaced && !entry_is_directory(move->there);
        intent->keep = file && keep_open && keep_open(argument, intent->replaced);
        if (intent->keep)
            intent->kind = INTENT_REPLACE;
        error = make_way(move);
        if (!error)
            error = intent_perform(catalog, intent, &move->hold);
        if (!error && file)
            *replaced = intent->replaced;
        hold_release(&move->hold);
    }
    free(move);
    return error;
}
