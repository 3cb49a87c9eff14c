#include "backends/aio.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

#define BATCH      64   /* requests of one io_submit */
#define DEPTH      1024 /* requests in flight per reactor and datastore; what is more is refused with -EAGAIN */
#define RING_MAGIC 0xa10a10a1u

/* What io_setup's handle points to, as include/linux and every user of it have it. */
struct aio_ring {
    unsigned id, nr, head, tail;
    unsigned magic, compat_features, incompat_features, header_length;
    struct io_event events[];
};

struct aio_queue {
    io_context_t context; /* NULL: could not be made; asked no more */
    bool ring_known;
    struct reactor *reactor;
    struct source source;
    struct batch_hook hook; /* hooked while something is queued, so that an idle queue is known to nobody */
    struct task end;        /* runs when the reactor ends */
    atomic_bool ended;      /* it has: nobody looks at the queue any more */
    unsigned queued;
    struct iocb *batch[BATCH];
};

static void completed(const struct io_event *event)
{
    struct aio_request *request = event->data;
    request->done(request, (long)event->res);
}

static void harvest(struct aio_queue *queue)
{
    struct io_event event;
    struct timespec zero = {0, 0};
    if (!queue->ring_known) {
        while (io_getevents(queue->context, 0, 1, &event, &zero) == 1)
            completed(&event);
        return;
    }
    struct aio_ring *ring = (struct aio_ring *)queue->context;
    unsigned head = ring->head;
    while (head != __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE)) {
        event = ring->events[head];
        head = (head + 1) % ring->nr;
        __atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
        completed(&event);
    }
}

/* Edge triggered: the counter is never read, each signal is an event of its own. */
static void signalled(struct source *source, uint32_t events)
{
    harvest(container_of(source, struct aio_queue, source));
}

static void refused(struct iocb *iocb, int error)
{
    struct aio_request *request = iocb->data;
    request->done(request, error);
}

static void submit(struct aio_queue *queue)
{
    unsigned queued = queue->queued, at = 0;
    queue->queued = 0;
    reactor_unhook(&queue->hook);
    while (at < queued) {
        int count = io_submit(queue->context, queued - at, queue->batch + at);
        if (count > 0) {
            at += (unsigned)count;
            continue;
        }
        refused(queue->batch[at++], count < 0 ? count : -EAGAIN);
        while (count == -EAGAIN && at < queued)
            refused(queue->batch[at++], -EAGAIN);
    }
}

static void flush(struct batch_hook *hook)
{
    struct aio_queue *queue = container_of(hook, struct aio_queue, hook);
    submit(queue);
    harvest(queue); /* what ended at once needs no wake-up */
}

static void reactor_ended(struct task *task)
{
    atomic_store(&container_of(task, struct aio_queue, end)->ended, true);
}

static int open_queue(struct aio_queue *queue)
{
    io_context_t context = NULL;
    int error = io_setup(DEPTH, &context);
    if (error < 0)
        return error;
    queue->source.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    queue->source.ready = signalled;
    error = queue->source.fd < 0 ? -errno : reactor_add(queue->reactor, &queue->source, EPOLLIN | EPOLLET);
    if (error) {
        io_destroy(context);
        if (queue->source.fd >= 0)
            close(queue->source.fd);
        return error;
    }
    const struct aio_ring *ring = (const struct aio_ring *)context;
    queue->ring_known = ring->magic == RING_MAGIC && ring->incompat_features == 0;
    queue->context = context;
    queue->end.run = reactor_ended;
    reactor_at_end(queue->reactor, &queue->end);
    return 0;
}

static struct aio_queue *queue_of(struct aio *aio, struct reactor *reactor)
{
    struct aio_queue **slot = &aio->queues[reactor_index(reactor)];
    if (!*slot && (*slot = calloc(1, sizeof(**slot)))) {
        (*slot)->reactor = reactor;
        (*slot)->hook.flush = flush;
        int error = open_queue(*slot);
        if (error)
            log_warning("no asynchronous I/O on reactor %u: %s; threads are used instead", reactor_index(reactor),
                error_text(error));
    }
    assert(!*slot || (*slot)->reactor == reactor); /* an index is not used again while a datastore lives */
    return *slot && (*slot)->context ? *slot : NULL;
}

bool aio_queue(struct aio *aio, struct reactor *reactor, struct aio_request *request, uint64_t bytes)
{
    struct aio_queue *queue = queue_of(aio, reactor);
    if (!queue)
        return false;
    request->iocb.data = request;
    io_set_eventfd(&request->iocb, queue->source.fd);
    if (queue->queued == 0)
        reactor_hook(reactor, &queue->hook);
    queue->batch[queue->queued++] = &request->iocb;
    if (queue->queued == BATCH || bytes >= AIO_AT_ONCE)
        submit(queue);
    return true;
}

static void detach(void *argument)
{
    struct aio_queue *queue = argument;
    reactor_remove(queue->reactor, &queue->source);
    list_remove(&queue->end.link);
}

static void nothing(void *argument)
{
}

/* A reactor that lives may be about to look at the queue for a signal whose requests it has taken already: it is told to
 * forget it, and its turn is waited for. */
static void leave_reactor(struct aio_queue *queue)
{
    if (atomic_load(&queue->ended))
        return;
    reactor_call(queue->reactor, detach, queue);
    reactor_call(queue->reactor, nothing, NULL);
}

void aio_close(struct aio *aio)
{
    for (unsigned i = 0; i < REACTORS_MAX; i++) {
        struct aio_queue *queue = aio->queues[i];
        if (queue && queue->context) {
            leave_reactor(queue);
            io_destroy(queue->context);
            close(queue->source.fd);
        }
        free(queue);
        aio->queues[i] = NULL;
    }
}
