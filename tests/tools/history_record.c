/* What is recorded of a history for linear.c: the reads and writes of a sample of its blocks.
 *
 * A write of a part of a block makes a content that hardly any read can name (the rest may be the same by chance), but it
 * certainly changed the block when enough of the part differs between any two writes: then it is a write like others. */
#include "history_inside.h"

enum { SAMPLE = 4096, ROOM = 1 << 20, HEAD = 64, ENOUGH = 32 };

static uint64_t initial(void *opaque, uint64_t place)
{
    const struct history *history = opaque;
    const struct block *block = &history->blocks[place * history->stride];
    if (block->counter == MIXTURE)
        return LINEAR_NAMELESS;
    return block->counter == UNKNOWN || block->more ? LINEAR_UNKNOWN : block->counter;
}

void history_record(struct history *history)
{
    uint64_t blocks = history->length / BLOCK;
    history->stride = (blocks + SAMPLE - 1) / SAMPLE;
    history->stride += history->stride > 1 && history->stride % 2 == 0; /* not the first of each page */
    history->linear = linear_new((blocks + history->stride - 1) / history->stride, initial, history, ROOM);
}

static bool is_recorded(const struct history *history, uint64_t start, uint64_t *place)
{
    uint64_t block = (start - history->base) / BLOCK;
    if (!history->linear || block % history->stride != 0)
        return false;
    *place = block / history->stride;
    return true;
}

void history_note_write(struct history *history, const struct history_write *write, uint64_t start, int error)
{
    uint64_t place, from = start + HEAD, to = start + BLOCK;
    if (!is_recorded(history, start, &place))
        return;
    if (write->offset > start || write->offset + write->length < start + BLOCK) {
        from = write->offset > from ? write->offset : from;
        to = write->offset + write->length < to ? write->offset + write->length : to;
        if (error || to < from + ENOUGH || write->counter == 0)
            return;
    }
    linear_write(history->linear, place, write->began, error ? LINEAR_NEVER : history->clock, write->counter);
}

void history_note_read(struct history *history, const struct history_read *read, uint64_t start, uint64_t got)
{
    uint64_t place;
    if (got != UNKNOWN && is_recorded(history, start, &place))
        linear_read(history->linear, place, read->began, history->clock, got);
}

void history_forget_record(struct history *history, uint64_t index)
{
    if (history->linear && index % history->stride == 0)
        linear_forget(history->linear, index / history->stride);
}

struct linear_report history_linear(struct history *history)
{
    struct linear_report report = {0};
    pthread_mutex_lock(&history->mutex);
    if (history->linear)
        report = linear_check(history->linear);
    pthread_mutex_unlock(&history->mutex);
    return report;
}
