#include "fs/arena.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int arena_init(struct arena *arena, unsigned total, unsigned batch,
    int (*prepare)(void *argument, unsigned first, unsigned count), void *argument)
{
    *arena = (struct arena){.total = total, .batch = batch, .prepare = prepare, .argument = argument};
    arena->free = malloc(total * sizeof(*arena->free));
    return arena->free ? 0 : -ENOMEM;
}

void arena_end(struct arena *arena)
{
    free(arena->free);
    arena->free = NULL;
}

static int prepare_to(struct arena *arena, unsigned top)
{
    if (top > arena->total)
        top = arena->total;
    int error = top > arena->ready ? arena->prepare(arena->argument, arena->ready, top - arena->ready) : 0;
    if (!error)
        arena->ready = top;
    return error;
}

int arena_adopt(struct arena *arena, unsigned top, const bool *in_use)
{
    if (top < arena->batch)
        top = arena->batch;
    int error = prepare_to(arena, top);
    if (error)
        return error;
    for (unsigned i = arena->ready; i-- > 0;)
        if (!in_use[i])
            arena->free[arena->free_count++] = i;
    return 0;
}

bool arena_has(struct arena *arena, unsigned count)
{
    while (arena->free_count < count && arena->ready < arena->total) {
        unsigned first = arena->ready;
        if (prepare_to(arena, first + arena->batch) < 0)
            return false;
        for (unsigned i = arena->ready; i-- > first;)
            arena->free[arena->free_count++] = i;
    }
    return arena->free_count >= count;
}

int arena_take(struct arena *arena)
{
    return arena_has(arena, 1) ? (int)arena->free[--arena->free_count] : -1;
}

void arena_put(struct arena *arena, unsigned index)
{
    assert(index < arena->ready && arena->free_count < arena->ready);
    arena->free[arena->free_count++] = index;
}
