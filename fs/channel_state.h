/* What a channel knows; shared by channel.c (reading, taking up, deadlines) and request.c (answers). Nobody else's. */
#pragma once

#include "base/behalf.h"
#include "fs/arena.h"
#include "fs/budget.h"
#include "fs/channel.h"
#include "fs/filesystem.h"
#include "fs/slots.h"

struct channel {
    /* set at creation */
    struct filesystem *fs;
    struct reactor *reactor;
    const struct session *session;
    unsigned index;
    int fd;
    struct request *requests; /* one for each slot */
    uint64_t longest_timeout; /* of the datastores */
    /* own thread only */
    struct source source;
    bool polling; /* source is in the epoll set */
    bool stopped;
    bool resuming;
    struct timer timer; /* runs while requests are active */
    struct task resume; /* something was given back */
    struct arena slots, chunks;
    struct budget budget;
    int reading; /* the slot that is noted READING, -1: none */
    uint32_t window[SLOT_CHUNKS];
    unsigned window_count;
    struct iovec iov[1 + SLOT_CHUNKS];
    struct list active;         /* requests not released */
    struct list buffer_waiters; /* some of them */
    uint64_t refusal_logged, timeout_logged;
    /* atomic */
    _Atomic unsigned active_count;
    _Atomic bool gone;
};

/* request_block's call. */
enum request_call { CALL_NONE, CALL_QUEUED, CALL_RUNNING, CALL_CANCELLED };

static inline struct behalf request_behalf(const struct request *request)
{
    return (struct behalf){request->slot, request->in->unique};
}

/* Writes an answer though the handler has not given one yet: the deadline's. The request stays until the handler has.
 */
void request_answer_early(struct request *request, int error);

/* Chunks for buffer_length bytes, all or none. -EAGAIN: not so many are free; -EBUSY: more than its datastore may have
 * now. */
int request_give_chunks(struct request *request);

/* Something came back: readers and those that wait for buffers may go on. */
void channel_resume(struct channel *channel);

/* A reply's bytes go to the kernel. Logs what is no race with an interrupted request. */
void channel_write(
    struct channel *channel, uint64_t unique, int error, const struct iovec *iov, int count, size_t length);

/* The request's memory is free again. */
void channel_release(struct channel *channel, struct request *request);
