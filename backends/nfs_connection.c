/* A connection's life, on its reactor's thread throughout:
 *
 *   IDLE → (LOCATING →) CONNECTING → UP → IDLE      the server closed it and nothing was to do
 *                                       → WAITING → LOCATING …      with back-off, while calls wait
 *
 * It is made when the first call comes and lives as long as the server lets it. Calls are queued in libnfs as they
 * come and leave the process together, at the end of the reactor's batch. An idle connection has no timer: one is set
 * while calls are out.
 *
 * Failure modes. libnfs's own timeout cuts a message that is half sent, and what follows completes it at the server;
 * its reconnecting spins. Neither is used. Here a connection is dead when its socket says so, when nothing was heard on
 * it for the deadline while calls were out, or when one call was out four times as long. Then the socket is shut down
 * and the context destroyed before libnfs is called again, so that nothing half sent is completed; calls that were
 * out go to the front of the queue and are sent again, with the same bytes, on the next one. That they were sent
 * before is told with the answer (sends), and from when their ghosts count (heard_from): what a ghost may do is its
 * caller's to know.
 *
 * Host names and ports are asked for on the locator's thread before each new connection, unless the url says numbers.
 *
 * What it does not do: give up. Callers that must not wait for ever abandon their calls. */
#include "backends/nfs_connection.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/nfs.h"
#include "base/clock.h"
#include "base/log.h"

#define BACK_OFF_FIRST (100 * NS_PER_MS)
#define BACK_OFF_MOST  (2 * NS_PER_S)
#define CALL_DEADLINES 4 /* of one call, while others are answered */
#define SOCKET_BUFFER  (4 << 20)

enum state { IDLE, LOCATING, CONNECTING, UP, WAITING };

struct nfsds_connection {
    struct nfs *nfs;
    struct reactor *reactor;
    enum state state;
    struct rpc_context *rpc;
    struct source source;
    uint32_t events;
    struct batch_hook hook;
    struct timer timer;      /* CONNECTING, UP: the deadline; WAITING: the back-off */
    struct list queue, sent; /* calls */
    unsigned calls, batch;   /* batch: queued since the last flush */
    uint64_t heard, heard_from, back_off;
    uint64_t server; /* the write verifier that was answered on it; 0: none yet */
    bool hooked, serving, connected, failed, removing;
    struct work locate;
    struct task located, freed;
};

static void start(struct nfsds_connection *connection);

static struct nfsds_call *call_of(struct list *link)
{
    return container_of(link, struct nfsds_call, link);
}

static void finish(struct nfsds_call *call, int error, void *data)
{
    list_remove(&call->link);
    call->connection->calls--;
    call->heard_from = call->connection->heard_from;
    call->answered(call, error, data);
}

/* ---- the socket ---- */

/* Nothing of libnfs is called between the shutdown and the end of the context but what ends it. */
static void destroy(struct nfsds_connection *connection)
{
    if (connection->source.fd >= 0) {
        shutdown(connection->source.fd, SHUT_RDWR);
        reactor_remove(connection->reactor, &connection->source);
    }
    if (connection->hooked)
        reactor_unhook(&connection->hook);
    connection->hooked = false;
    timer_cancel(&connection->timer);
    struct rpc_context *rpc = connection->rpc;
    connection->rpc = NULL; /* what libnfs says of the calls that are out is not heard any more */
    if (rpc)
        rpc_destroy_context(rpc);
    connection->events = 0;
    connection->heard_from = 0;
    connection->connected = connection->failed = false;
}

void nfsds_connection_verifier(const struct nfsds_call *call, uint64_t stamp)
{
    call->connection->server = stamp;
}

static void note_unreachable(struct nfsds_connection *connection, const char *what)
{
    struct nfs *nfs = connection->nfs;
    if (!atomic_exchange(&nfs->unreachable, true))
        log_warning("datastore %s: the NFS server %s %s; its disks wait until it answers again", nfs->datastore->name,
            nfs->url.host, what);
}

static void requeue(struct nfsds_connection *connection)
{
    struct list again;
    list_init(&again);
    list_for_each_safe (link, &connection->sent) {
        struct nfsds_call *call = call_of(link);
        if (call->abandoned) {
            finish(call, -ECANCELED, NULL);
            continue;
        }
        call->server = call->sends == 1 || call->server == connection->server ? connection->server : 0;
        call->sent = 0;
        call->refused = false;
        list_remove(link);
        list_append(&again, link);
    }
    list_splice(&again, &connection->queue);
    list_splice(&connection->queue, &again);
}

/* Nobody is closing who could also be idle: the server may close what is not used. */
static void dead(struct nfsds_connection *connection, const char *what)
{
    bool was_quiet = connection->state == UP && list_empty(&connection->sent);
    destroy(connection);
    connection->state = IDLE;
    requeue(connection);
    connection->server = 0;
    if (list_empty(&connection->queue))
        return;
    if (!was_quiet)
        note_unreachable(connection, what);
    connection->state = WAITING;
    timer_set(connection->reactor, &connection->timer, connection->back_off);
    connection->back_off *= 2;
    if (connection->back_off > BACK_OFF_MOST)
        connection->back_off = BACK_OFF_MOST;
}

static void watch(struct nfsds_connection *connection)
{
    uint32_t events = (uint32_t)rpc_which_events(connection->rpc);
    uint32_t want = (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u);
    if (want == connection->events)
        return;
    if (connection->events) {
        int fd = connection->source.fd;
        reactor_remove(connection->reactor, &connection->source);
        connection->source.fd = fd;
    }
    connection->events = want;
    reactor_add(connection->reactor, &connection->source, want);
}

/* Answers that were no success are looked at after libnfs has said whether the connection itself is to blame. */
static void finish_refused(struct nfsds_connection *connection)
{
    list_for_each_safe (link, &connection->sent)
        if (call_of(link)->refused)
            finish(call_of(link), -EIO, NULL);
}

static void set_deadline(struct nfsds_connection *connection)
{
    if (list_empty(&connection->sent) && connection->state == UP)
        timer_cancel(&connection->timer);
    else if (!connection->timer.due)
        timer_set(connection->reactor, &connection->timer, connection->nfs->deadline_ns);
}

static void send_queue(struct nfsds_connection *connection);

static void service(struct nfsds_connection *connection, int events)
{
    connection->serving = true;
    int result = rpc_service(connection->rpc, events);
    connection->serving = false;
    if (result < 0 || connection->failed) {
        dead(connection, connection->state == UP ? "closed the connection" : "refused the connection");
        return;
    }
    if (connection->connected && connection->state == CONNECTING) {
        connection->state = UP;
        timer_cancel(&connection->timer);
        send_queue(connection);
    }
    finish_refused(connection);
    set_deadline(connection);
    watch(connection);
}

static void ready(struct source *source, uint32_t events)
{
    struct nfsds_connection *connection = container_of(source, struct nfsds_connection, source);
    int poll_events = (events & EPOLLIN ? POLLIN : 0) | (events & EPOLLOUT ? POLLOUT : 0) |
                      (events & EPOLLERR ? POLLERR : 0) | (events & EPOLLHUP ? POLLHUP : 0);
    service(connection, poll_events);
}

static void cork(struct nfsds_connection *connection, int on)
{
    if (connection->rpc && connection->source.fd >= 0)
        setsockopt(connection->source.fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

/* The batch is over: what was queued leaves together, in as few packets as it fills. */
static void flush(struct batch_hook *hook)
{
    struct nfsds_connection *connection = container_of(hook, struct nfsds_connection, hook);
    bool many = connection->batch > 1;
    reactor_unhook(hook);
    connection->hooked = false;
    connection->batch = 0;
    if (connection->state != UP)
        return;
    if (many)
        cork(connection, 1);
    service(connection, POLLOUT);
    if (many)
        cork(connection, 0);
}

static void timed_out(struct timer *timer)
{
    struct nfsds_connection *connection = container_of(timer, struct nfsds_connection, timer);
    uint64_t deadline = connection->nfs->deadline_ns, now = clock_now();
    if (connection->state == WAITING) {
        start(connection);
        return;
    }
    if (connection->state != UP || list_empty(&connection->sent)) {
        if (connection->state == CONNECTING)
            dead(connection, "does not answer");
        return;
    }
    uint64_t oldest = call_of(connection->sent.next)->sent + CALL_DEADLINES * deadline;
    uint64_t silent = connection->heard + deadline, due = silent < oldest ? silent : oldest;
    if (due <= now)
        dead(connection, "does not answer");
    else
        timer_set(connection->reactor, timer, due - now);
}

/* ---- connecting ---- */

static void tune(int fd)
{
    int one = 1, size = SOCKET_BUFFER;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void connected(struct rpc_context *rpc, int status, void *data, void *private_data)
{
    struct nfsds_connection *connection = private_data;
    if (connection->rpc != rpc)
        return;
    connection->connected = status == RPC_STATUS_SUCCESS;
    connection->failed = !connection->connected;
}

/* A server may answer a call from its memory of the last ones, which it knows by their numbers. */
static uint32_t some_number(void)
{
    uint32_t number = 0;
    if (getrandom(&number, sizeof(number), GRND_NONBLOCK) != sizeof(number))
        number = (uint32_t)clock_now();
    return number;
}

static void connect_to(struct nfsds_connection *connection)
{
    struct nfs *nfs = connection->nfs;
    char address[sizeof(nfs->address)];
    pthread_mutex_lock(&nfs->mutex);
    memcpy(address, nfs->address, sizeof(address));
    int port = nfs->nfs_port;
    pthread_mutex_unlock(&nfs->mutex);
    connection->state = CONNECTING;
    connection->rpc = rpc_init_context();
    if (!connection->rpc) {
        dead(connection, "cannot be asked for lack of memory");
        return;
    }
    rpc_set_next_xid(connection->rpc, some_number());
    if (nfs->url.uid >= 0)
        rpc_set_uid(connection->rpc, (int)nfs->url.uid);
    if (nfs->url.gid >= 0)
        rpc_set_gid(connection->rpc, (int)nfs->url.gid);
    int error = rpc_connect_async(connection->rpc, address, port, connected, connection);
    connection->source.fd = rpc_get_fd(connection->rpc);
    if (error < 0 || connection->source.fd < 0) {
        connection->source.fd = -1;
        dead(connection, "cannot be reached");
        return;
    }
    tune(connection->source.fd);
    timer_set(connection->reactor, &connection->timer, nfs->deadline_ns);
    watch(connection);
}

static void located(struct task *task)
{
    struct nfsds_connection *connection = container_of(task, struct nfsds_connection, located);
    connect_to(connection);
}

static void locate(struct work *work)
{
    struct nfsds_connection *connection = container_of(work, struct nfsds_connection, locate);
    nfsds_locate(connection->nfs, NULL); /* what was known before serves otherwise */
    reactor_post(connection->reactor, &connection->located);
}

static void start(struct nfsds_connection *connection)
{
    if (connection->nfs->numeric) {
        connect_to(connection);
        return;
    }
    connection->state = LOCATING;
    connection->locate.run = locate;
    connection->located.run = located;
    pool_run(connection->nfs->locator, &connection->locate);
}

/* ---- calls ---- */

static void hear(struct nfsds_connection *connection)
{
    struct nfs *nfs = connection->nfs;
    connection->heard = clock_now();
    connection->back_off = BACK_OFF_FIRST;
    if (!connection->heard_from)
        connection->heard_from = connection->heard;
    uint64_t never = 0;
    if (!atomic_load_explicit(&nfs->first_answer, memory_order_relaxed))
        atomic_compare_exchange_strong(&nfs->first_answer, &never, connection->heard);
    if (atomic_load_explicit(&nfs->unreachable, memory_order_relaxed) && atomic_exchange(&nfs->unreachable, false))
        log_info("datastore %s: the NFS server %s answers again", nfs->datastore->name, nfs->url.host);
}

static void answered(struct rpc_context *rpc, int status, void *data, void *private_data)
{
    struct nfsds_call *call = private_data;
    struct nfsds_connection *connection = call->connection;
    if (connection->rpc != rpc)
        return;
    if (status != RPC_STATUS_SUCCESS || !data) {
        call->refused = true;
        return;
    }
    hear(connection);
    finish(call, 0, data);
}

static void unsendable(struct task *task)
{
    struct nfsds_call *call = container_of(task, struct nfsds_call, task);
    call->connection->calls--;
    call->answered(call, call->error, NULL);
}

static void hook(struct nfsds_connection *connection)
{
    connection->batch++;
    if (connection->hooked)
        return;
    connection->hooked = true;
    reactor_hook(connection->reactor, &connection->hook);
}

/* Nothing of ours may reach what somebody else has taken over, also not what waited. */
static bool is_forbidden(const struct nfs *nfs, const struct nfsds_call *call)
{
    return atomic_load_explicit(&nfs->disowned, memory_order_relaxed) && nfsds_rpc_changes(call->procedure);
}

static void send_call(struct nfsds_connection *connection, struct nfsds_call *call)
{
    int error = is_forbidden(connection->nfs, call)
                    ? -EIO
                    : nfsds_rpc_send(connection->rpc, call->procedure, call->arguments, call->memory, answered, call);
    if (error) {
        call->error = error;
        call->task.run = unsendable;
        list_init(&call->link);
        reactor_post(connection->reactor, &call->task);
        return;
    }
    call->sends++;
    call->sent = clock_now();
    if (list_empty(&connection->sent))
        connection->heard = call->sent;
    list_append(&connection->sent, &call->link);
    if (!connection->serving)
        set_deadline(connection);
    hook(connection);
}

static void send_queue(struct nfsds_connection *connection)
{
    struct list *link;
    while ((link = list_pop(&connection->queue)))
        send_call(connection, call_of(link));
}

void nfsds_connection_call(struct nfsds_connection *connection, struct nfsds_call *call)
{
    call->connection = connection;
    call->sends = 0;
    call->sent = call->server = call->heard_from = 0;
    call->refused = call->abandoned = false;
    list_init(&call->link);
    connection->calls++;
    if (connection->state == UP && !connection->failed) {
        send_call(connection, call);
        return;
    }
    list_append(&connection->queue, &call->link);
    if (connection->state == IDLE)
        start(connection);
}

bool nfsds_connection_abandon(struct nfsds_call *call)
{
    if (call->sent || call->error) {
        call->abandoned = true;
        return false;
    }
    list_remove(&call->link);
    call->connection->calls--;
    return true;
}

static struct nfsds_connection *make(struct nfs *nfs, struct reactor *reactor)
{
    struct nfsds_connection *connection = calloc(1, sizeof(*connection));
    if (!connection)
        return NULL;
    connection->nfs = nfs;
    connection->reactor = reactor;
    connection->source = (struct source){.fd = -1, .ready = ready};
    connection->hook.flush = flush;
    connection->timer.fired = timed_out;
    connection->back_off = BACK_OFF_FIRST;
    list_init(&connection->queue);
    list_init(&connection->sent);
    return connection;
}

struct nfsds_connection *nfsds_connection_of(struct nfs *nfs, struct reactor *reactor)
{
    struct nfsds_connection **all = nfs->connections[reactor_index(reactor)], *best = NULL;
    for (unsigned i = 0; i < nfs->connections_max; i++) {
        if (!all[i])
            all[i] = make(nfs, reactor);
        if (all[i] && (!best || all[i]->calls < best->calls))
            best = all[i];
        if (best && best->calls == 0)
            break;
    }
    return best;
}

void nfsds_connections_close(struct nfs *nfs)
{
    for (unsigned i = 0; i < REACTORS_MAX; i++)
        for (unsigned j = 0; j < NFS_CONNECTIONS_MAX; j++) {
            struct nfsds_connection *connection = nfs->connections[i][j];
            struct rpc_context *rpc = connection ? connection->rpc : NULL;
            if (rpc) {
                connection->rpc = NULL;
                connection->source.fd = -1;
                rpc_destroy_context(rpc);
            }
            free(connection);
            nfs->connections[i][j] = NULL;
        }
}
