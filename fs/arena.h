/* arena: which of a table's equal pieces (slots, chunks) are free. Pieces become usable in batches: populated and
 * locked in memory before the first is handed out, so that an idle worker is small. Never shrinks. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct arena {
    /* set at creation */
    unsigned total, batch;
    int (*prepare)(void *argument, unsigned first, unsigned count); /* 0 or -errno */
    void *argument;
    /* own thread */
    uint32_t *free; /* a stack */
    unsigned free_count;
    unsigned ready; /* pieces below it were prepared */
};

/* 0 or -ENOMEM. Nothing is prepared yet. */
int arena_init(struct arena *arena, unsigned total, unsigned batch,
    int (*prepare)(void *argument, unsigned first, unsigned count), void *argument);
void arena_end(struct arena *arena);

/* At a worker's start, before the first take: prepares what reaches below top and frees what is not in use. in_use: one
 * bool for each piece. 0 or -errno. */
int arena_adopt(struct arena *arena, unsigned top, const bool *in_use);

/* Makes sure that count pieces are free; false when there are not so many. */
bool arena_has(struct arena *arena, unsigned count);

/* -1: none. */
int arena_take(struct arena *arena);
void arena_put(struct arena *arena, unsigned index);
