/* slots: how a request's memory is read back, and what a dead worker left in it. Pure: no channel, no kernel. */
#pragma once

#include "fs/session.h"

/* What fits the slot itself; the rest of a request stands in chunks. */
#define SLOT_ROOM (SLOT_HEADER + FUSE_PAGE)

#define SLOT_CRASHES_MAX 3

#define REQUEST_MAX (SLOT_ROOM + SLOT_CHUNKS * CHUNK_SIZE)

/* What the next worker does with a slot (law 9). */
enum slot_verdict {
    SLOT_IS_EMPTY,   /* nothing was read into it, or its request is over: free */
    SLOT_IS_PENDING, /* read, maybe executed, never DONE: executed again */
    SLOT_IS_POISON,  /* the same, but the worker has died of it too often: -EIO */
    SLOT_IS_DONE,    /* its recorded reply is written again, never executed */
    SLOT_IS_BROKEN,  /* nothing that this program wrote: free, and said in the log */
};

/* chunks: how many chunks there are for each reactor. */
enum slot_verdict slot_judge(struct slot *slot, uint32_t chunks);

/* Chunks that a request of so many bytes uses. */
static inline unsigned slot_chunks_for(size_t length)
{
    return length <= SLOT_ROOM ? 0 : (unsigned)((length - SLOT_ROOM + CHUNK_SIZE - 1) / CHUNK_SIZE);
}

/* The steps of a slot's life; each ends in the one store that counts. */
void slot_reading(struct slot *slot, const uint32_t window[SLOT_CHUNKS]);
void slot_read(struct slot *slot, size_t length);
void slot_done(struct slot *slot, int error, const void *reply, size_t length);
void slot_answered(struct slot *slot);
void slot_free(struct slot *slot);
