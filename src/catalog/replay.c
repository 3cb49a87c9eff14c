#include "catalog/intent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "catalog/place.h"

struct replay {
    struct list link;
    struct catalog *catalog;
    struct intent intent;
    struct hold hold;
    pthread_t thread;
    bool done; /* under the tree's mutex */
};

static int load(void *argument, struct store_row *row)
{
    struct list *replays = argument;
    struct replay *replay = calloc(1, sizeof(*replay));
    if (!replay)
        return -ENOMEM;
    struct intent *intent = &replay->intent;
    intent->id = (uint64_t)store_integer(row, 0);
    intent->kind = (enum intent_kind)store_integer(row, 1);
    intent->committed = store_integer(row, 2) != 0;
    intent->has_origin = store_integer(row, 3) >= 0;
    intent->origin.slot = intent->has_origin ? (uint32_t)store_integer(row, 3) : 0;
    intent->origin.unique = (uint64_t)store_integer(row, 4);
    intent->origin.retry = true;
    intent->node = (uint64_t)store_integer(row, 5);
    intent->parent = (uint64_t)store_integer(row, 6);
    strncpy(intent->name, store_text(row, 7), sizeof(intent->name) - 1);
    strncpy(intent->from, store_text(row, 8), sizeof(intent->from) - 1);
    strncpy(intent->to, store_text(row, 9), sizeof(intent->to) - 1);
    intent->datastores = (uint64_t)store_integer(row, 10);
    intent->replaced = (uint64_t)store_integer(row, 11);
    intent->replaced_datastores = (uint64_t)store_integer(row, 12);
    intent->replaced_inode = (uint64_t)store_integer(row, 13);
    intent->keep = store_integer(row, 14) != 0;
    list_init(&replay->link);
    list_append(replays, &replay->link);
    return 0;
}

/* 1: there, 0: not, -errno: cannot be told. */
static int is_there(struct datastore *datastore, const char *path)
{
    struct stat st;
    int error = datastore ? datastore->ops->lookup(datastore, path, &st) : -EIO;
    return error == 0 ? 1 : error == -ENOENT || error == -ENOTDIR ? 0 : error;
}

/* 1: forward, 0: as if it never was, -errno: cannot be told now. */
static int decide_replace(struct catalog *catalog, const struct intent *intent)
{
    struct datastore *datastore = intent_datastore(catalog, intent->datastores);
    char hidden[PATH_MAX];
    int from = is_there(datastore, intent->from), to = is_there(datastore, intent->to);
    if (from < 0 || to < 0)
        return from < 0 ? from : to;
    if (intent->datastores != intent->replaced_datastores)
        return !from && to;
    place_orphan(intent->replaced, hidden);
    int hides = is_there(datastore, hidden);
    if (hides <= 0)
        return hides;
    int error = from ? datastore->ops->rename(datastore, intent->from, intent->to, false) : to ? 0 : -ENODATA;
    return error ? error : 1;
}

static int decide_directory(struct catalog *catalog, const struct intent *intent)
{
    for (uint64_t bits = intent->datastores; bits; bits &= bits - 1)
        if (!intent_datastore(catalog, bits & -bits))
            return -EIO;
    int from = is_there(intent_datastore(catalog, intent->datastores & -intent->datastores), intent->from);
    if (from < 0)
        return from;
    if (from) {
        intent_restore_directory(catalog, intent);
        return 0;
    }
    for (uint64_t bits = intent->datastores; bits; bits &= bits - 1) {
        struct datastore *datastore = intent_datastore(catalog, bits & -bits);
        from = is_there(datastore, intent->from);
        if (from < 0)
            return from;
        int error = from ? place_rename(datastore, intent->from, intent->to, false, true) : 0;
        if (error)
            return error;
    }
    return 1;
}

static void replay_intent(struct catalog *catalog, struct intent *intent, struct hold *hold)
{
    int forward = intent->committed                ? 1
                  : intent->kind == INTENT_REPLACE ? decide_replace(catalog, intent)
                                                   : decide_directory(catalog, intent);
    int error = forward < 0 ? forward : 0;
    if (forward > 0 && !intent->committed) {
        struct datastore *datastore = intent_datastore(catalog, intent->datastores & -intent->datastores);
        if (intent->kind == INTENT_REPLACE && datastore)
            error = datastore->ops->sync_directory(datastore, intent->to);
        if (!error)
            error = intent_commit(catalog, intent, hold);
        if (error == -ENOENT) {
            log_error("the rename of %s to %s is of a node that is gone: forgotten", intent->from, intent->to);
            forward = 0;
            error = 0;
        }
    }
    if (forward > 0 && !error)
        error = intent_finish(catalog, intent);
    if (error)
        log_error("the rename of %s to %s cannot be completed yet: %s", intent->from, intent->to, error_text(error));
    else
        intent_drop(catalog, intent);
}

static bool try_hold(struct catalog *catalog, struct replay *replay)
{
    struct hold *hold = &replay->hold;
    const struct intent *intent = &replay->intent;
    hold_init(hold, catalog);
    hold->parent = intent->parent;
    hold->name = intent->name;
    struct entry *entry = tree_get(&catalog->tree, intent->node);
    struct entry *directory = tree_get(&catalog->tree, intent->parent);
    hold->used[0] = directory;
    if (!intent->committed && entry) {
        hold->used[1] = entry->parent;
        hold->owned[0] = entry;
    }
    if (intent->replaced)
        hold->owned[1] = tree_get(&catalog->tree, intent->replaced);
    return hold_take(hold);
}

static void wait_hold(struct catalog *catalog, struct replay *replay)
{
    tree_lock(catalog);
    while (!try_hold(catalog, replay))
        hold_wait(catalog);
    tree_unlock(catalog);
}

static void *replay_thread(void *argument)
{
    struct replay *replay = argument;
    if (!replay->hold.catalog)
        wait_hold(replay->catalog, replay);
    replay_intent(replay->catalog, &replay->intent, &replay->hold);
    tree_lock(replay->catalog);
    replay->done = true;
    hold_release_locked(&replay->hold);
    tree_unlock(replay->catalog);
    return NULL;
}

int intents_replay(struct catalog *catalog, bool serving)
{
    struct list replays;
    list_init(&replays);
    int error = store_select(catalog->store, STORE_INTENTS, load, &replays, "");
    for (struct list *link; (link = list_pop(&replays));) {
        struct replay *replay = container_of(link, struct replay, link);
        replay->catalog = catalog;
        if (!serving) {
            replay_intent(catalog, &replay->intent, NULL);
            free(replay);
            continue;
        }
        tree_lock(catalog);
        if (!try_hold(catalog, replay))
            replay->hold.catalog = NULL; /* another replay has it: the thread waits */
        tree_unlock(catalog);
        if (pthread_create(&replay->thread, NULL, replay_thread, replay) == 0) {
            list_append(&catalog->replays, &replay->link);
        } else {
            replay_thread(replay);
            free(replay);
        }
    }
    return error;
}

static int count_row(void *argument, struct store_row *row)
{
    struct replay *replay = argument;
    if (store_integer(row, 0) == (int64_t)replay->intent.id) {
        replay->intent.committed = store_integer(row, 2) != 0;
        replay->intent.replaced_inode = (uint64_t)store_integer(row, 13);
        return 1;
    }
    return 0;
}

void intents_retry(struct catalog *catalog)
{
    struct list replays;
    list_init(&replays);
    store_select(catalog->store, STORE_INTENTS, load, &replays, "");
    for (struct list *link; (link = list_pop(&replays));) {
        struct replay *replay = container_of(link, struct replay, link);
        wait_hold(catalog, replay);
        /* A rename that was under way is done now: its record is gone, or further than it was. */
        if (store_select(catalog->store, STORE_INTENTS, count_row, replay, "") == 1)
            replay_intent(catalog, &replay->intent, &replay->hold);
        hold_release(&replay->hold);
        free(replay);
    }
}

static bool is_under_way(struct catalog *catalog, const struct origin *origin)
{
    list_for_each (link, &catalog->replays) {
        const struct replay *replay = container_of(link, struct replay, link);
        const struct intent *intent = &replay->intent;
        if (!replay->done && intent->has_origin && intent->origin.slot == origin->slot &&
            intent->origin.unique == origin->unique)
            return true;
    }
    return false;
}

void intents_await(struct catalog *catalog, const struct origin *origin)
{
    tree_lock(catalog);
    while (is_under_way(catalog, origin))
        hold_wait(catalog);
    tree_unlock(catalog);
}

void intents_join(struct catalog *catalog)
{
    for (struct list *link; (link = list_pop(&catalog->replays));) {
        struct replay *replay = container_of(link, struct replay, link);
        pthread_join(replay->thread, NULL);
        free(replay);
    }
}
