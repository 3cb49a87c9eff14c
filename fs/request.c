/* Answers, holds, buffers, budgets of requests. A request is released when its handler has answered (finished) and
 * nobody holds it. A timeout may have answered before (answered): then the handler's own answer goes nowhere, but it
 * still ends the request: what runs may refer to its memory until then. */
#include "fs/request.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/log.h"
#include "fs/channel_state.h"
#include "fs/verbs.h"

#define LOG_PAUSE_NS (10 * NS_PER_S)
#define ERRNO_MAX    512 /* the kernel takes -511 … 0 and lets the caller hang on anything else */

static void finish(struct request *request)
{
    assert(!request->finished);
    request->finished = true;
    if (request->holds == 0)
        channel_release(request->channel, request);
}

/* DONE before the reply leaves, ANSWERED after. */
static void answer(struct request *request, int error, const void *data, size_t length)
{
    struct slot *slot = request->slot;
    struct iovec iov = {slot->reply, length};
    request->answered = true;
    slot_done(slot, error, data, length);
    event("slot-done");
    channel_write(request->channel, request->in->unique, error, &iov, 1, length);
    event("slot-answered");
    slot_answered(slot);
}

/* Law 12: a stray ENOSYS, out of whatever depth, must not reach the kernel. */
static int sane(int error)
{
    if (error == -ENOSYS)
        return -EOPNOTSUPP;
    return error > 0 || error <= -ERRNO_MAX ? -EIO : error;
}

void request_answer_early(struct request *request, int error)
{
    assert(reactor_current() == request->channel->reactor);
    if (!request->answered && !request->finished)
        answer(request, sane(error), NULL, 0);
}

void request_reply(struct request *request, int error)
{
    assert(reactor_current() == request->channel->reactor);
    if (!request->answered)
        answer(request, sane(error), NULL, 0);
    finish(request);
}

void request_reply_bytes(struct request *request, const void *data, size_t length)
{
    assert(reactor_current() == request->channel->reactor);
    assert(length <= SLOT_REPLY_MAX);
    if (!request->answered)
        answer(request, 0, data, length);
    finish(request);
}

void request_reply_iov(struct request *request, const struct iovec *iov, int count, size_t length)
{
    assert(reactor_current() == request->channel->reactor);
    if (!request->answered) {
        request->answered = true;
        channel_write(request->channel, request->in->unique, 0, iov, count, length);
        event("slot-answered");
        slot_answered(request->slot);
    }
    finish(request);
}

void request_reply_enosys(struct request *request)
{
    bool allowed = verb_may_be_enosys(request->in->opcode);
    assert(allowed);
    if (!request->answered)
        answer(request, allowed ? -ENOSYS : -EOPNOTSUPP, NULL, 0);
    finish(request);
}

void request_no_reply(struct request *request)
{
    request->answered = true;
    finish(request);
}

void request_hold(struct request *request)
{
    request->holds++;
}

void request_drop(struct request *request)
{
    assert(request->holds > 0);
    if (--request->holds == 0 && request->finished)
        channel_release(request->channel, request);
}

static struct datastore *datastore_of(const struct request *request, unsigned index)
{
    return catalog_datastore(request->fs->catalog, index);
}

bool request_account(struct request *request, unsigned datastore)
{
    struct channel *channel = request->channel;
    uint64_t now = clock_now();
    if (request->accounted >= 0)
        return true;
    if (budget_take(&channel->budget, datastore, request->slot->chunk_count, now)) {
        request->accounted = (int)datastore;
        request->timeout = datastore_of(request, datastore)->timeout_ns;
        return true;
    }
    if (channel->refusal_logged == 0 || now - channel->refusal_logged >= LOG_PAUSE_NS) {
        channel->refusal_logged = now;
        log_warning(
            "datastore %s does not answer and has its share of the requests: further ones end with an I/O error",
            datastore_of(request, datastore)->name);
    }
    return false;
}

static void call_ended(struct task *task)
{
    struct request *request = container_of(task, struct request, task);
    atomic_store(&request->blocking, CALL_NONE);
    struct behalf before = behalf_set(request_behalf(request));
    request->after(request, request->call_error);
    behalf_set(before);
    request_drop(request);
}

static void make_call(struct work *work)
{
    struct request *request = container_of(work, struct request, work);
    int queued = CALL_QUEUED;
    bool mine = atomic_compare_exchange_strong(&request->blocking, &queued, CALL_RUNNING);
    struct behalf before = behalf_set(request_behalf(request));
    event_at("call", request->in->opcode);
    request->call_error = mine ? request->call(request) : -EIO;
    behalf_set(before);
    reactor_post(request->channel->reactor, &request->task);
}

static void begin_call(struct request *request, struct pool *pool, int (*call)(struct request *),
    void (*after)(struct request *, int error))
{
    request_hold(request);
    request->call = call;
    request->after = after;
    request->call_error = -EIO;
    request->work.run = make_call;
    request->task.run = call_ended;
    atomic_store(&request->blocking, CALL_QUEUED);
    if (pool && !request->answered)
        pool_run(pool, &request->work);
    else
        reactor_post(request->channel->reactor, &request->task);
}

void request_block(struct request *request, struct datastore *datastore, int (*call)(struct request *),
    void (*after)(struct request *, int error))
{
    bool within = request_account(request, datastore->index);
    begin_call(request, within ? datastore->pool : NULL, call, after);
}

void request_block_control(
    struct request *request, int (*call)(struct request *), void (*after)(struct request *, int error))
{
    if (request->timeout < request->channel->longest_timeout)
        request->timeout = request->channel->longest_timeout;
    begin_call(request, request->fs->pool, call, after);
}

static bool give_page(struct request *request, size_t length)
{
    if (length > FUSE_PAGE || request->in->len > SLOT_HEADER)
        return false;
    request->data[0] = (struct iovec){slot_payload(request->slot), length};
    request->data_count = 1;
    return true;
}

int request_give_chunks(struct request *request)
{
    struct channel *channel = request->channel;
    size_t left = request->buffer_length;
    unsigned count = (unsigned)((left + CHUNK_SIZE - 1) / CHUNK_SIZE);
    if (!arena_has(&channel->chunks, count))
        return -EAGAIN;
    if (request->accounted >= 0 &&
        !budget_take_chunks(&channel->budget, (unsigned)request->accounted, count, clock_now()))
        return -EBUSY;
    for (unsigned i = 0; i < count; i++) {
        request->borrowed[i] = (uint32_t)arena_take(&channel->chunks);
        void *memory = session_chunk(channel->session, channel->index, request->borrowed[i]);
        request->data[i] = (struct iovec){memory, left < CHUNK_SIZE ? left : CHUNK_SIZE};
        left -= request->data[i].iov_len;
    }
    request->borrowed_count = count;
    request->data_count = (int)count;
    return 0;
}

bool request_buffer(struct request *request, size_t length, void (*again)(struct request *))
{
    struct channel *channel = request->channel;
    assert(length <= MAX_WRITE && request->in->opcode != FUSE_WRITE);
    if (length == 0 || (request->data_count > 0 && request->buffer_length == length))
        return true;
    request->buffer_length = length;
    if (give_page(request, length))
        return true;
    if (list_empty(&channel->buffer_waiters) && request_give_chunks(request) == 0)
        return true;
    request->buffer_again = again;
    request_hold(request);
    list_append(&channel->buffer_waiters, &request->buffer_link);
    channel_resume(channel);
    return false;
}

struct origin request_origin(const struct request *request)
{
    const struct channel *channel = request->channel;
    return (struct origin){
        .slot = channel->index * channel->session->head->slots + request->slot_index,
        .unique = request->in->unique,
        .retry = request->retry,
    };
}
