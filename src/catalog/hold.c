#include "catalog/hold.h"

#include <string.h>

#include "base/clock.h"
#include "catalog/private.h"

#define WANTED_NS (100 * NS_PER_MS)

void hold_init(struct hold *hold, struct catalog *catalog)
{
    memset(hold, 0, sizeof(*hold));
    hold->catalog = catalog;
    list_init(&hold->link);
}

static bool name_is_free(const struct hold *hold)
{
    if (!hold->name)
        return true;
    list_for_each (link, &hold->catalog->making) {
        const struct hold *other = container_of(link, struct hold, link);
        if (other->parent == hold->parent && strcmp(other->name, hold->name) == 0)
            return false;
    }
    return true;
}

static bool can_use(const struct entry *entry, uint64_t now)
{
    for (; entry; entry = entry->parent)
        if (entry->owned || now - entry->wanted < WANTED_NS)
            return false;
    return true;
}

static bool can_own(struct entry *entry, uint64_t now)
{
    if (!entry || (!entry->owned && entry->users == 0))
        return true;
    if (now - entry->wanted > NS_PER_S)
        entry->wanted = now;
    return false;
}

static void use(struct entry *entry, int by)
{
    for (; entry; entry = entry->parent)
        entry->users += (unsigned)by;
}

bool hold_take(struct hold *hold)
{
    uint64_t now = clock_now();
    bool can = name_is_free(hold);
    for (int i = 0; i < 2; i++)
        can = can_use(hold->used[i], now) && can_own(hold->owned[i], now) && can;
    if (!can)
        return false;
    for (int i = 0; i < 2; i++) {
        use(hold->used[i], 1);
        if (hold->owned[i]) {
            hold->owned[i]->owned = true;
            hold->owned[i]->wanted = 0;
        }
    }
    if (hold->name)
        list_append(&hold->catalog->making, &hold->link);
    return true;
}

void hold_wait(struct catalog *catalog)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)WANTED_NS;
    if (until.tv_nsec >= (long)NS_PER_S) {
        until.tv_nsec -= (long)NS_PER_S;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&catalog->tree.changed, &catalog->tree.mutex, &until);
}

void hold_release_locked(struct hold *hold)
{
    for (int i = 0; i < 2; i++) {
        use(hold->used[i], -1);
        if (hold->owned[i])
            hold->owned[i]->owned = false;
    }
    list_remove(&hold->link);
    memset(hold->used, 0, sizeof(hold->used));
    memset(hold->owned, 0, sizeof(hold->owned));
    pthread_cond_broadcast(&hold->catalog->tree.changed);
}

void hold_release(struct hold *hold)
{
    tree_lock(hold->catalog);
    hold_release_locked(hold);
    tree_unlock(hold->catalog);
}
