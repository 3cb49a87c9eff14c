/* The model of a disk that loses what was not flushed. */
#include "history_inside.h"

#include <stdlib.h>

void history_can_lose(struct history *history)
{
    history->can_lose = true;
}

uint64_t history_flush_begin(struct history *history)
{
    pthread_mutex_lock(&history->mutex);
    uint64_t now = ++history->clock;
    pthread_mutex_unlock(&history->mutex);
    return now;
}

void history_flush_end(struct history *history, uint64_t began)
{
    pthread_mutex_lock(&history->mutex);
    if (began > history->flushed)
        history->flushed = began;
    pthread_mutex_unlock(&history->mutex);
}

void history_forget_old(struct block *block)
{
    while (block->old) {
        struct more *next = block->old->next;
        free(block->old);
        block->old = next;
    }
}

/* What was written over by something durable cannot come back. */
static void prune(const struct history *history, struct block *block)
{
    for (struct more **at = &block->old; *at;) {
        struct more *old = *at;
        if (old->ended > history->flushed) {
            at = &old->next;
        } else {
            *at = old->next;
            free(old);
        }
    }
}

static void add(struct more **list, uint64_t counter, uint64_t ended)
{
    struct more *more = history_must(malloc(sizeof *more));
    *more = (struct more){counter, ended, *list};
    *list = more;
}

void history_remember(struct history *history, struct block *block)
{
    if (!history->can_lose || block->counter == UNKNOWN || block->counter == MIXTURE)
        return;
    prune(history, block);
    add(&block->old, block->counter, history->clock);
    for (struct more *more = block->more; more; more = more->next)
        add(&block->old, more->counter, history->clock);
}

void history_lose(struct history *history)
{
    pthread_mutex_lock(&history->mutex);
    history->clock++;
    for (uint64_t i = 0; i < history->length / BLOCK; i++) {
        struct block *block = &history->blocks[i];
        prune(history, block);
        if (!block->old || block->counter == UNKNOWN || block->counter == MIXTURE)
            continue;
        for (struct more *old = block->old; old; old = old->next)
            add(&block->more, old->counter, history->clock);
        block->ended = history->clock;
        history_forget_old(block);
        history_forget_record(history, i);
    }
    pthread_mutex_unlock(&history->mutex);
}
