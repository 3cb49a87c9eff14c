#include "fs/slots.h"

#include <assert.h>
#include <string.h>

enum slot_verdict slot_judge(struct slot *slot, uint32_t chunks)
{
    const struct fuse_in_header *in = slot_in(slot);
    uint64_t state = atomic_load(&slot->state);
    if (in->unique == 0 || state == SLOT_FREE || state == SLOT_ANSWERED)
        return SLOT_IS_EMPTY;
    if (state == SLOT_DONE)
        return slot->reply_length <= SLOT_REPLY_MAX ? SLOT_IS_DONE : SLOT_IS_BROKEN;
    if (state != SLOT_READING && state != SLOT_READ)
        return SLOT_IS_BROKEN;
    if (in->len < sizeof(*in) || in->len > REQUEST_MAX || slot_chunks_for(in->len) > slot->chunk_count)
        return SLOT_IS_BROKEN;
    for (unsigned i = 0; i < slot_chunks_for(in->len); i++)
        if (slot->chunks[i] >= chunks)
            return SLOT_IS_BROKEN;
    return atomic_load(&slot->crashes) >= SLOT_CRASHES_MAX ? SLOT_IS_POISON : SLOT_IS_PENDING;
}

void slot_reading(struct slot *slot, const uint32_t window[SLOT_CHUNKS])
{
    slot_in(slot)->unique = 0;
    memcpy(slot->chunks, window, sizeof(slot->chunks));
    slot->chunk_count = SLOT_CHUNKS;
    slot->attempts = 0;
    slot->note = 0;
    atomic_store_explicit(&slot->crashes, 0, memory_order_relaxed);
    slot->length = 0;
    atomic_store_explicit(&slot->state, SLOT_READING, memory_order_release);
}

void slot_read(struct slot *slot, size_t length)
{
    slot->length = (uint32_t)length;
    slot->chunk_count = slot_chunks_for(length);
    atomic_store_explicit(&slot->state, SLOT_READ, memory_order_release);
}

void slot_done(struct slot *slot, int error, const void *reply, size_t length)
{
    assert(length <= SLOT_REPLY_MAX);
    if (length > 0)
        memcpy(slot->reply, reply, length);
    slot->reply_length = (uint32_t)length;
    slot->error = error;
    atomic_store_explicit(&slot->state, SLOT_DONE, memory_order_release);
}

void slot_answered(struct slot *slot)
{
    atomic_store_explicit(&slot->state, SLOT_ANSWERED, memory_order_release);
}

void slot_free(struct slot *slot)
{
    ((volatile struct fuse_in_header *)slot_in(slot))->unique = 0;
    slot->chunk_count = 0;
    atomic_store_explicit(&slot->state, SLOT_FREE, memory_order_release);
}
