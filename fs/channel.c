/* Reading: one slot is noted READING, its header and page and a window of 16 free chunks go to readv; what the request
 * did not use of the window stays for the next. So a request of any length costs one readv and no copy, and a small one
 * holds no chunk.
 *
 * Taking up: a new worker judges every slot of its table before it does anything, so that the arena knows which chunks
 * are in use; then it answers what is DONE, then executes what is pending, then reads. All that on the reactor's
 * thread.
 *
 * What stops reading: no free slot, less than a window of free chunks, or the budget (fs/budget.h). What gives back
 * resumes it.
 *
 * The clones of one mount share the kernel's queue. EPOLLEXCLUSIVE, because it would otherwise wake every reactor for
 * each request; for the same reason nobody may poll another descriptor of the mount beside us (the keeper looks now and
 * then). */
#include "fs/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/log.h"
#include "fs/channel_state.h"
#include "fs/poison.h"

#define READS_PER_TURN 4 /* then they are submitted: more at once leave the disk without work meanwhile */
#define SLOT_BATCH     64
#define CHUNK_BATCH    32
#define TICK_NS        (100 * NS_PER_MS)
#define LOG_PAUSE_NS   (10 * NS_PER_S)

static int prepare_slots(void *argument, unsigned first, unsigned count)
{
    const struct channel *channel = argument;
    _Atomic uint32_t *used = &channel->session->head->slots_used[channel->index];
    if (atomic_load(used) < first + count)
        atomic_store(used, first + count);
    return session_populate(
        channel->session, session_slot(channel->session, channel->index, first), (size_t)count * SLOT_SIZE);
}

static int prepare_chunks(void *argument, unsigned first, unsigned count)
{
    const struct channel *channel = argument;
    return session_populate(
        channel->session, session_chunk(channel->session, channel->index, first), (size_t)count * CHUNK_SIZE);
}

/* What a WRITE carries, or, for others, one stretch of memory behind the header. */
static int lay_body(struct channel *channel, struct request *request)
{
    struct slot *slot = request->slot;
    uint8_t *start = (uint8_t *)slot_in(slot);
    size_t length = request->in->len;
    request->body = start + sizeof(struct fuse_in_header);
    request->body_length = length - sizeof(struct fuse_in_header);
    struct iovec rest[REQUEST_IOV];
    int count = 0;
    size_t left = length > SLOT_HEADER ? length - SLOT_HEADER : 0;
    for (unsigned i = 0; left > 0; i++) {
        size_t size = i == 0 ? FUSE_PAGE : CHUNK_SIZE;
        void *memory = i == 0 ? slot_payload(slot)
                              : session_chunk(channel->session, channel->index, slot->chunks[i - 1]);
        rest[count] = (struct iovec){memory, left < size ? left : size};
        left -= rest[count++].iov_len;
    }
    if (request->in->opcode == FUSE_WRITE) {
        memcpy(request->data, rest, (size_t)count * sizeof(rest[0]));
        request->data_count = count;
        return 0;
    }
    if (count < 2)
        return 0;
    uint8_t *linear = request->linear = malloc(request->body_length);
    if (!linear)
        return -ENOMEM;
    memcpy(linear, request->body, SLOT_HEADER - sizeof(struct fuse_in_header));
    linear += SLOT_HEADER - sizeof(struct fuse_in_header);
    for (int i = 0; i < count; i++) {
        memcpy(linear, rest[i].iov_base, rest[i].iov_len);
        linear += rest[i].iov_len;
    }
    request->body = request->linear;
    return 0;
}

static struct request *make_request(struct channel *channel, unsigned index)
{
    struct request *request = &channel->requests[index];
    struct slot *slot = session_slot(channel->session, channel->index, index);
    memset(request, 0, sizeof(*request));
    request->channel = channel;
    request->fs = channel->fs;
    request->slot = slot;
    request->slot_index = index;
    request->in = slot_in(slot);
    request->retry = slot->attempts > 0;
    request->started = clock_now();
    request->accounted = -1;
    list_init(&request->waiting);
    list_init(&request->buffer_link);
    list_append(&channel->active, &request->link);
    atomic_store_explicit(&channel->active_count,
        atomic_load_explicit(&channel->active_count, memory_order_relaxed) + 1, memory_order_relaxed);
    if (!channel->timer.due)
        timer_set(channel->reactor, &channel->timer, TICK_NS);
    return request;
}

static void execute(struct channel *channel, struct request *request)
{
    struct behalf before = behalf_set(request_behalf(request));
    int error = lay_body(channel, request);
    request->slot->attempts++;
    if (error)
        request_reply(request, error);
    else if (request->in->opcode == FUSE_WRITE &&
             (request->body_length < sizeof(struct fuse_write_in) ||
                 ((const struct fuse_write_in *)request->body)->size != request->in->len - SLOT_HEADER))
        request_reply(request, -EIO);
    else
        request_dispatch(request);
    behalf_set(before);
}

void channel_write(
    struct channel *channel, uint64_t unique, int error, const struct iovec *iov, int count, size_t length)
{
    struct fuse_out_header out = {.error = error, .unique = unique};
    struct iovec all[REQUEST_IOV + 1] = {{&out, sizeof(out)}};
    int used = 1;
    size_t left = length;
    for (int i = 0; i < count && left > 0 && used <= (int)REQUEST_IOV; i++) {
        size_t size = iov[i].iov_len < left ? iov[i].iov_len : left;
        all[used++] = (struct iovec){iov[i].iov_base, size};
        left -= size;
    }
    out.len = (uint32_t)(sizeof(out) + length - left);
    if (left == 0 && writev(channel->fd, all, used) >= 0)
        return;
    int failed = left == 0 ? errno : EOVERFLOW;
    /* ENOENT: answered before a death, or the caller was killed. ENODEV, ECONNABORTED: unmounted. */
    if (failed == ENOENT || failed == ENODEV || failed == ECONNABORTED)
        return;
    log_error("the kernel did not take the answer to a request: %s", strerror(failed));
    if (error != 0)
        return;
    out = (struct fuse_out_header){.len = sizeof(out), .error = -EIO, .unique = unique};
    ssize_t ignored = write(channel->fd, &out, sizeof(out));
    (void)ignored;
}

static bool fill_window(struct channel *channel)
{
    if (channel->window_count == SLOT_CHUNKS)
        return true;
    if (!arena_has(&channel->chunks, SLOT_CHUNKS - channel->window_count))
        return false;
    while (channel->window_count < SLOT_CHUNKS)
        channel->window[channel->window_count++] = (uint32_t)arena_take(&channel->chunks);
    for (unsigned i = 0; i < SLOT_CHUNKS; i++)
        channel->iov[1 + i] = (struct iovec){
            session_chunk(channel->session, channel->index, channel->window[i]), CHUNK_SIZE};
    return true;
}

/* A slot is noted READING and the iov is ready; false: something is out. */
static bool prepare_read(struct channel *channel)
{
    if (budget_scarce(&channel->budget) && budget_pauses(&channel->budget, clock_now()))
        return false;
    if (!fill_window(channel))
        return false;
    if (channel->reading < 0)
        channel->reading = arena_take(&channel->slots);
    if (channel->reading < 0)
        return false;
    struct slot *slot = session_slot(channel->session, channel->index, (unsigned)channel->reading);
    slot_reading(slot, channel->window);
    channel->iov[0] = (struct iovec){slot_in(slot), SLOT_ROOM};
    return true;
}

static void stop_polling(struct channel *channel)
{
    if (channel->polling)
        reactor_remove(channel->reactor, &channel->source);
    channel->polling = false;
}

static void mount_is_gone(struct channel *channel, int error)
{
    if (error != ENODEV && error != ECONNABORTED)
        log_error("the mount's descriptor cannot be read: %s", strerror(error));
    stop_polling(channel);
    channel->stopped = true;
    channel->gone = true;
    if (channel->fs->gone_fd > 0)
        eventfd_write(channel->fs->gone_fd, 1);
}

/* The chunks that the request took are the window's first. */
static void take(struct channel *channel, size_t length)
{
    unsigned index = (unsigned)channel->reading;
    struct slot *slot = session_slot(channel->session, channel->index, index);
    if (length < sizeof(struct fuse_in_header) || slot_in(slot)->len != length) {
        log_error("a request of %zu bytes is no request", length);
        return;
    }
    slot_read(slot, length);
    event("slot-read");
    channel->reading = -1;
    if (slot->chunk_count > 0) {
        channel->window_count -= slot->chunk_count;
        memmove(channel->window, channel->window + slot->chunk_count, channel->window_count * sizeof(uint32_t));
    }
    execute(channel, make_request(channel, index));
}

static void readable(struct source *source, uint32_t events)
{
    struct channel *channel = container_of(source, struct channel, source);
    for (int i = 0; i < READS_PER_TURN && !channel->stopped; i++) {
        if (!prepare_read(channel)) {
            stop_polling(channel);
            return;
        }
        ssize_t length = readv(channel->fd, channel->iov, 1 + SLOT_CHUNKS);
        if (length > 0) {
            take(channel, (size_t)length);
        } else if (length < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOENT)) {
            if (errno == EAGAIN)
                return;
        } else if (length < 0 && errno == EIO) {
            log_error("the kernel could not hand a request over: %s", strerror(errno));
        } else {
            mount_is_gone(channel, length < 0 ? errno : ENODEV);
            return;
        }
    }
}

static void start_polling(struct channel *channel)
{
    if (channel->polling || channel->stopped)
        return;
    channel->source = (struct source){channel->fd, readable};
    int error = reactor_add(channel->reactor, &channel->source, EPOLLIN | EPOLLEXCLUSIVE);
    if (error)
        log_error("the mount's descriptor cannot be polled: %s", strerror(-error));
    channel->polling = !error;
}

/* Those that wait for a buffer first: they are older than what was not read yet. */
static void serve_waiters(struct channel *channel)
{
    list_for_each_safe (link, &channel->buffer_waiters) {
        struct request *request = container_of(link, struct request, buffer_link);
        int error = request_give_chunks(request);
        if (error == -EAGAIN)
            return;
        if (error)
            continue;
        list_remove(&request->buffer_link);
        struct behalf before = behalf_set(request_behalf(request));
        request->buffer_again(request);
        behalf_set(before);
        request_drop(request);
    }
}

static void resume(struct task *task)
{
    struct channel *channel = container_of(task, struct channel, resume);
    channel->resuming = false;
    serve_waiters(channel);
    if (!channel->polling && !channel->stopped && prepare_read(channel))
        start_polling(channel);
}

void channel_resume(struct channel *channel)
{
    if (channel->resuming || (channel->polling && list_empty(&channel->buffer_waiters)))
        return;
    if (channel->stopped && list_empty(&channel->buffer_waiters))
        return;
    channel->resuming = true;
    reactor_post(channel->reactor, &channel->resume);
}

void channel_release(struct channel *channel, struct request *request)
{
    struct slot *slot = request->slot;
    unsigned held = slot->chunk_count;
    if (request->accounted >= 0)
        budget_put(&channel->budget, (unsigned)request->accounted, held + request->borrowed_count, clock_now());
    for (unsigned i = 0; i < held; i++)
        arena_put(&channel->chunks, slot->chunks[i]);
    for (unsigned i = 0; i < request->borrowed_count; i++)
        arena_put(&channel->chunks, request->borrowed[i]);
    free(request->linear);
    free(request->out);
    slot_free(slot);
    arena_put(&channel->slots, request->slot_index);
    list_remove(&request->link);
    atomic_store_explicit(&channel->active_count,
        atomic_load_explicit(&channel->active_count, memory_order_relaxed) - 1, memory_order_release);
    if (channel->stopped && list_empty(&channel->active))
        timer_cancel(&channel->timer);
    channel_resume(channel);
}

static void end_overdue(struct channel *channel, struct request *request, uint64_t now)
{
    if (channel->timeout_logged == 0 || now - channel->timeout_logged >= LOG_PAUSE_NS) {
        struct catalog *catalog = channel->fs->catalog;
        channel->timeout_logged = now;
        log_warning(
            "datastore %s: a request (opcode %u, node %llu) was not answered within %.1f s: it ends with an I/O error",
            request->accounted < 0 ? "of several" : catalog_datastore(catalog, (unsigned)request->accounted)->name,
            request->in->opcode, (unsigned long long)request->in->nodeid, (double)request->timeout / (double)NS_PER_S);
    }
    int queued = CALL_QUEUED;
    atomic_compare_exchange_strong(&request->blocking, &queued, CALL_CANCELLED);
    request_answer_early(request, -EIO);
}

/* Deadlines, and a look at what a stalled datastore no longer keeps from being read. */
static void tick(struct timer *timer)
{
    struct channel *channel = container_of(timer, struct channel, timer);
    uint64_t now = clock_now();
    list_for_each_safe (link, &channel->active) {
        struct request *request = container_of(link, struct request, link);
        if (!request->answered && request->timeout && now - request->started >= request->timeout)
            end_overdue(channel, request, now);
    }
    disk_expire(channel->reactor);
    channel_resume(channel);
    if (!list_empty(&channel->active))
        timer_set(channel->reactor, &channel->timer, TICK_NS);
}

struct leftovers {
    unsigned *pending, *done;
    unsigned pending_count, done_count;
    unsigned slots_top, chunks_top;
    bool *slots, *chunks; /* in use */
};

/* Law 9. Only pending ones keep their payload: a local write that a dead worker sent has landed or never will. */
static void judge_slots(struct channel *channel, struct leftovers *left)
{
    const struct session_head *head = channel->session->head;
    unsigned used = atomic_load(&head->slots_used[channel->index]);
    for (unsigned i = 0; i < used && i < head->slots; i++) {
        struct slot *slot = session_slot(channel->session, channel->index, i);
        if (atomic_load(&slot->state) == SLOT_FREE)
            continue;
        left->slots_top = i + 1;
        enum slot_verdict verdict = slot_judge(slot, head->chunks);
        if (verdict == SLOT_IS_BROKEN)
            log_error("slot %u of reactor %u makes no sense: its request is lost", i, channel->index);
        if (verdict == SLOT_IS_POISON) {
            poison_tell(channel->fs, slot);
            slot_done(slot, -EIO, NULL, 0);
        }
        if (verdict == SLOT_IS_DONE || verdict == SLOT_IS_POISON) {
            left->done[left->done_count++] = i;
        } else if (verdict == SLOT_IS_PENDING) {
            left->pending[left->pending_count++] = i;
            left->slots[i] = true;
            slot_read(slot, slot_in(slot)->len);
        } else {
            slot_free(slot);
        }
        for (unsigned j = 0; verdict == SLOT_IS_PENDING && j < slot->chunk_count; j++) {
            left->chunks[slot->chunks[j]] = true;
            if (slot->chunks[j] >= left->chunks_top)
                left->chunks_top = slot->chunks[j] + 1;
        }
    }
}

static void answer_again(struct channel *channel, unsigned index)
{
    struct slot *slot = session_slot(channel->session, channel->index, index);
    struct iovec reply = {slot->reply, slot->reply_length};
    channel_write(channel, slot_in(slot)->unique, slot->error, &reply, 1, slot->reply_length);
    slot_answered(slot);
    slot_free(slot);
}

static int take_up(struct channel *channel)
{
    const struct session_head *head = channel->session->head;
    struct leftovers left = {
        .pending = calloc(head->slots, sizeof(*left.pending)),
        .done = calloc(head->slots, sizeof(*left.done)),
        .slots = calloc(head->slots, sizeof(*left.slots)),
        .chunks = calloc(head->chunks, sizeof(*left.chunks)),
    };
    int error = left.pending && left.done && left.slots && left.chunks ? 0 : -ENOMEM;
    if (!error) {
        judge_slots(channel, &left);
        for (unsigned i = 0; i < left.done_count; i++)
            answer_again(channel, left.done[i]);
        error = arena_adopt(&channel->slots, left.slots_top, left.slots);
    }
    if (!error)
        error = arena_adopt(&channel->chunks, left.chunks_top, left.chunks);
    for (unsigned i = 0; !error && i < left.pending_count; i++)
        execute(channel, make_request(channel, left.pending[i]));
    free(left.pending);
    free(left.done);
    free(left.slots);
    free(left.chunks);
    return error;
}

int channel_open(struct channel **out, struct filesystem *fs, struct reactor *reactor, const struct session *session,
    unsigned index, int fd)
{
    const struct session_head *head = session->head;
    struct channel *channel = calloc(1, sizeof(*channel));
    if (!channel)
        return -ENOMEM;
    channel->fs = fs;
    channel->reactor = reactor;
    channel->session = session;
    channel->index = index;
    channel->fd = fd;
    channel->reading = -1;
    channel->timer.fired = tick;
    channel->resume.run = resume;
    list_init(&channel->active);
    list_init(&channel->buffer_waiters);
    channel->requests = calloc(head->slots, sizeof(*channel->requests));
    unsigned datastores = fs->catalog ? catalog_datastore_count(fs->catalog) : 0;
    budget_init(&channel->budget, head->slots, head->chunks, datastores);
    for (unsigned i = 0; i < datastores; i++)
        if (catalog_datastore(fs->catalog, i)->timeout_ns > channel->longest_timeout)
            channel->longest_timeout = catalog_datastore(fs->catalog, i)->timeout_ns;
    int error = channel->requests ? 0 : -ENOMEM;
    if (!error)
        error = arena_init(&channel->slots, head->slots, SLOT_BATCH, prepare_slots, channel);
    if (!error)
        error = arena_init(&channel->chunks, head->chunks, CHUNK_BATCH, prepare_chunks, channel);
    if (!error)
        error = take_up(channel);
    if (error) {
        channel_free(channel);
        return error;
    }
    *out = channel;
    if (fs->reactor_count == 1)
        reactor_set_eager(reactor);
    start_polling(channel);
    return 0;
}

void channel_stop(struct channel *channel)
{
    channel->stopped = true;
    stop_polling(channel);
    if (list_empty(&channel->active))
        timer_cancel(&channel->timer);
}

unsigned channel_active(const struct channel *channel)
{
    return atomic_load_explicit(&channel->active_count, memory_order_acquire);
}

bool channel_gone(const struct channel *channel)
{
    return channel->gone;
}

void channel_free(struct channel *channel)
{
    if (!channel)
        return;
    arena_end(&channel->slots);
    arena_end(&channel->chunks);
    free(channel->requests);
    free(channel);
}
