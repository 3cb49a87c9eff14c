/* What crash-kinds tells at its end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "crash.h"

const char *const how_names[HOWS] = {"kill", "event", "all", "detach"};

void judge_and_save(struct world *world)
{
    uint64_t operations = 0, places = 0, against = 0;
    for (unsigned i = 0; i < world->disks; i++) {
        struct linear_report report = history_linear(world->disk[i].history);
        operations += report.operations;
        places += report.places;
        against += report.violations;
        if (report.violations)
            fail(
                world, "disk %u: %llu violations of order: %s", i, (unsigned long long)report.violations, report.first);
        char path[600];
        snprintf(path, sizeof(path), "%s/disk%u.history", world->save ? world->save : ".", i);
        if (world->save && history_save(world->disk[i].history, path) < 0)
            fail(world, "%s: %s", path, strerror(errno));
        printf("PLACE disk%u %s\n", i, world->store[world->disk[i].store].name);
    }
    printf("LINEAR operations=%llu blocks=%llu violations=%llu\n", (unsigned long long)operations,
        (unsigned long long)places, (unsigned long long)against);
}

/* The index of the first datastore of this one's kind. */
static unsigned kind_of(const struct world *world, unsigned store)
{
    unsigned kind = 0;
    while (strcmp(world->store[kind].kind, world->store[store].kind) != 0)
        kind++;
    return kind;
}

static void print_pairs(const struct world *world)
{
    unsigned sums[MOST][MOST] = {{0}};
    for (unsigned from = 0; from < world->stores; from++)
        for (unsigned to = 0; to < world->stores; to++)
            sums[kind_of(world, from)][kind_of(world, to)] += world->pairs[from][to];
    for (unsigned from = 0; from < world->stores; from++)
        for (unsigned to = 0; to < world->stores; to++)
            if (kind_of(world, from) == from && kind_of(world, to) == to)
                printf("PAIR %s %s %u\n", world->store[from].kind, world->store[to].kind, sums[from][to]);
}

void print_counts(const struct world *world)
{
    for (unsigned how = 0; how < HOWS; how++)
        printf("DEATHS %s %u\n", how_names[how], world->deaths[how]);
    for (unsigned e = 0; e < world->events; e++)
        printf("EVENT %s armed=%u died=%u\n", world->event[e], world->armed[e], world->died[e]);
    print_pairs(world);
    unsigned deaths = 0;
    for (unsigned how = 0; how < HOWS; how++)
        deaths += world->deaths[how];
    printf("UNDONE %u\n", world->undone);
    printf("seed %u: %u moves met a death, %u deaths in %u rounds; %lu writes, %lu reads, %lu wrong blocks, %lu "
           "errors, %lu failures\n",
        world->seed, world->met, deaths, world->rounds, atomic_load(&world->writes), atomic_load(&world->reads),
        atomic_load(&world->wrong), atomic_load(&world->errors), atomic_load(&world->failed));
}
