#include "fs/budget.h"

#include <assert.h>

void budget_init(struct budget *budget, unsigned slots, unsigned chunks, unsigned datastores)
{
    *budget = (struct budget){.slots = slots, .chunks = chunks, .datastores = datastores};
}

bool budget_stalled(const struct budget *budget, unsigned datastore, uint64_t now)
{
    const struct share *share = &budget->share[datastore];
    return share->slots > 0 && now >= share->progress + BUDGET_STALL_NS;
}

bool budget_scarce(const struct budget *budget)
{
    return budget->slots_held >= budget->slots / 4 * 3 || budget->chunks_held >= budget->chunks / 4 * 3;
}

/* More than one of so many parts of it all? */
static bool exceeds(const struct budget *budget, unsigned slots, unsigned chunks, unsigned parts)
{
    return slots > budget->slots / parts || chunks > budget->chunks / parts;
}

static bool refused(const struct budget *budget, unsigned datastore, unsigned slots, unsigned chunks, uint64_t now)
{
    slots += budget->share[datastore].slots;
    chunks += budget->share[datastore].chunks;
    if (budget->datastores < 2 || !exceeds(budget, slots, chunks, budget_scarce(budget) ? 4 * budget->datastores : 2))
        return false;
    return budget_stalled(budget, datastore, now);
}

static void count(struct budget *budget, unsigned datastore, int slots, int chunks)
{
    budget->share[datastore].slots += (unsigned)slots;
    budget->share[datastore].chunks += (unsigned)chunks;
    budget->slots_held += (unsigned)slots;
    budget->chunks_held += (unsigned)chunks;
}

bool budget_take(struct budget *budget, unsigned datastore, unsigned chunks, uint64_t now)
{
    assert(datastore < CONFIG_DATASTORES_MAX);
    if (refused(budget, datastore, 1, chunks, now))
        return false;
    if (budget->share[datastore].slots == 0)
        budget->share[datastore].progress = now;
    count(budget, datastore, 1, (int)chunks);
    return true;
}

bool budget_take_chunks(struct budget *budget, unsigned datastore, unsigned chunks, uint64_t now)
{
    if (refused(budget, datastore, 0, chunks, now))
        return false;
    count(budget, datastore, 0, (int)chunks);
    return true;
}

void budget_put(struct budget *budget, unsigned datastore, unsigned chunks, uint64_t now)
{
    struct share *share = &budget->share[datastore];
    assert(share->slots > 0 && share->chunks >= chunks);
    count(budget, datastore, -1, -(int)chunks);
    share->progress = now;
}

bool budget_pauses(const struct budget *budget, uint64_t now)
{
    if (budget->datastores < 2 || !budget_scarce(budget))
        return false;
    for (unsigned i = 0; i < budget->datastores; i++)
        if (exceeds(budget, budget->share[i].slots, budget->share[i].chunks, budget->datastores) &&
            !budget_stalled(budget, i, now))
            return true;
    return false;
}
