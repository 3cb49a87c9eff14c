/* A connection's life, on its reactor's thread throughout:
 *
 *   IDLE → (LOCATING →) CONNECTING → UP → IDLE      the server closed it and nothing was to do
 *                                       → WAITING → LOCATING …      with back-off, while calls wait
 *
 * It is made when the first call comes and lives as long as the server lets it. Calls are put on the wire (nfs_wire.c)
 * as they come and leave the process together, at the end of the reactor's batch. A timer is set when calls go out, and
 * ends by itself when it finds none.
 *
 * Failure modes. libnfs's own connections are not used: their timeout cuts a message that is half sent, and what follows
 * completes it at the server; their reconnecting spins; they make a system call for each message and two for each
 * answer. Here a connection is dead when its socket says so, when nothing was heard on it for the deadline while calls
 * were out, or when one call was out four times as long. Then the socket is closed, and with it what was half sent;
 * calls that were out go to the front of the queue and are sent again, with the same bytes, on the next one. That they
 * were sent before is told with the answer (sends): what a ghost may do is its caller's to know.
 *
 * Host names and ports are asked for on the locator's thread before each new connection, unless the url says numbers.
 *
 * What it does not do: give up. Callers that must not wait for ever abandon their calls. */
#include "backends/nfs_connection.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/nfs.h"
#include "backends/nfs_wire.h"
#include "base/clock.h"
#include "base/log.h"

#define BACK_OFF_FIRST (100 * NS_PER_MS)
#define BACK_OFF_MOST  (2 * NS_PER_S)
#define CALL_DEADLINES 4 /* of one call, while others are answered */
#define SOCKET_BUFFER  (4 << 20)
#define PORT_FIRST     600 /* below 1024: exports demand it of root */
#define PORT_LAST      1023

enum state { IDLE, LOCATING, CONNECTING, UP, WAITING };

struct nfsds_connection {
    struct nfs *nfs;
    struct reactor *reactor;
    enum state state;
    struct nfsds_wire *wire;
    struct source source;
    uint32_t events;
    struct batch_hook hook;
    struct timer timer;      /* CONNECTING, UP: the deadline; WAITING: the back-off */
    struct list queue, sent; /* calls */
    unsigned calls;
    uint64_t heard, back_off;
    uint64_t server; /* the write verifier that was answered on it; 0: none yet */
    bool hooked;
    struct work locate;
    struct task located, freed;
    struct task ending; /* the reactor ends before the datastore */
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
    call->answered(call, error, data);
}

/* ---- the socket ---- */

static void destroy(struct nfsds_connection *connection)
{
    int fd = connection->source.fd;
    if (fd >= 0) {
        reactor_remove(connection->reactor, &connection->source);
        close(fd);
    }
    if (connection->hooked)
        reactor_unhook(&connection->hook);
    connection->hooked = false;
    timer_cancel(&connection->timer);
    nfsds_wire_free(connection->wire);
    connection->wire = NULL;
    connection->events = 0;
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

static void watch(struct nfsds_connection *connection, uint32_t events)
{
    if (events == connection->events)
        return;
    if (connection->events) {
        int fd = connection->source.fd;
        reactor_remove(connection->reactor, &connection->source);
        connection->source.fd = fd;
    }
    connection->events = events;
    reactor_add(connection->reactor, &connection->source, events);
}

static void send_queue(struct nfsds_connection *connection);

static void came_up(struct nfsds_connection *connection)
{
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(connection->source.fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error) {
        dead(connection, "refused the connection");
        return;
    }
    connection->state = UP;
    timer_cancel(&connection->timer);
    watch(connection, EPOLLIN);
    send_queue(connection);
}

static void send_out(struct nfsds_connection *connection)
{
    int blocked = nfsds_wire_send(connection->wire, connection->source.fd);
    if (blocked < 0)
        dead(connection, "closed the connection");
    else
        watch(connection, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void ready(struct source *source, uint32_t events)
{
    struct nfsds_connection *connection = container_of(source, struct nfsds_connection, source);
    if (connection->state == CONNECTING) {
        came_up(connection);
        return;
    }
    if (events & ~(uint32_t)EPOLLOUT && nfsds_wire_receive(connection->wire, source->fd) < 0)
        dead(connection, "closed the connection");
    else if (events & EPOLLOUT)
        send_out(connection);
}

/* The batch is over: what was queued leaves together. */
static void flush(struct batch_hook *hook)
{
    struct nfsds_connection *connection = container_of(hook, struct nfsds_connection, hook);
    reactor_unhook(hook);
    connection->hooked = false;
    if (connection->state == UP && !(connection->events & EPOLLOUT))
        send_out(connection);
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

/* As root, from a port that only root can have: most exports demand it. */
static void bind_low(int fd, int family)
{
    unsigned count = PORT_LAST - PORT_FIRST + 1, from = (unsigned)clock_now() % count;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } own = {.any.sa_family = (sa_family_t)family};
    for (unsigned i = 0; i < count; i++) {
        in_port_t port = htons((uint16_t)(PORT_FIRST + (from + i) % count));
        socklen_t size = family == AF_INET6 ? sizeof(own.v6) : sizeof(own.v4);
        if (family == AF_INET6)
            own.v6.sin6_port = port;
        else
            own.v4.sin_port = port;
        if (bind(fd, &own.any, size) == 0 || errno != EADDRINUSE)
            return;
    }
}

/* Closed at once, so that its port can be had again. */
static void tune(int fd)
{
    int one = 1, size = SOCKET_BUFFER;
    struct linger linger = {.l_onoff = 1};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* A socket that connects, or -1. */
static int open_socket(const char *address, int port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found;
    char service[12];
    snprintf(service, sizeof(service), "%d", port);
    if (getaddrinfo(address, service, &hints, &found) != 0)
        return -1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        bind_low(fd, found->ai_family);
        tune(fd);
        if (connect(fd, found->ai_addr, found->ai_addrlen) < 0 && errno != EINPROGRESS) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return fd;
}

/* A server may answer a call from its memory of the last ones, which it knows by their numbers. */
static uint32_t some_number(void)
{
    uint32_t number = 0;
    if (getrandom(&number, sizeof(number), GRND_NONBLOCK) != sizeof(number))
        number = (uint32_t)clock_now();
    return number;
}

static void answered(struct nfsds_call *call, int error, void *data);

static void connect_to(struct nfsds_connection *connection)
{
    struct nfs *nfs = connection->nfs;
    char address[sizeof(nfs->address)];
    pthread_mutex_lock(&nfs->mutex);
    memcpy(address, nfs->address, sizeof(address));
    int port = nfs->nfs_port;
    pthread_mutex_unlock(&nfs->mutex);
    connection->state = CONNECTING;
    struct nfsds_wire_owner owner = {
        .uid = nfs->url.uid >= 0 ? (uint32_t)nfs->url.uid : geteuid(),
        .gid = nfs->url.gid >= 0 ? (uint32_t)nfs->url.gid : getegid(),
        .number = some_number(),
        .sent = &connection->sent,
        .answered = answered,
    };
    connection->wire = nfsds_wire_new(&owner);
    if (!connection->wire) {
        dead(connection, "cannot be asked for lack of memory");
        return;
    }
    connection->source.fd = open_socket(address, port);
    if (connection->source.fd < 0) {
        dead(connection, "cannot be reached");
        return;
    }
    timer_set(connection->reactor, &connection->timer, nfs->deadline_ns);
    watch(connection, EPOLLOUT);
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
    uint64_t never = 0;
    if (!atomic_load_explicit(&nfs->first_answer, memory_order_relaxed))
        atomic_compare_exchange_strong(&nfs->first_answer, &never, connection->heard);
    if (atomic_load_explicit(&nfs->unreachable, memory_order_relaxed) && atomic_exchange(&nfs->unreachable, false))
        log_info("datastore %s: the NFS server %s answers again", nfs->datastore->name, nfs->url.host);
}

static void answered(struct nfsds_call *call, int error, void *data)
{
    if (!error)
        hear(call->connection);
    finish(call, error, data);
}

static void unsendable(struct task *task)
{
    struct nfsds_call *call = container_of(task, struct nfsds_call, task);
    call->connection->calls--;
    call->answered(call, call->error, NULL);
}

static void hook(struct nfsds_connection *connection)
{
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
    int error = is_forbidden(connection->nfs, call) ? -EIO : nfsds_wire_queue(connection->wire, call);
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
    if (!connection->timer.due)
        timer_set(connection->reactor, &connection->timer, connection->nfs->deadline_ns);
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
    call->sent = call->server = 0;
    call->abandoned = false;
    list_init(&call->link);
    connection->calls++;
    if (connection->state == UP) {
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
        if (call->sent && nfsds_wire_disown(call->connection->wire, call) != 0)
            dead(call->connection, "cannot be asked for lack of memory");
        return false;
    }
    list_remove(&call->link);
    call->connection->calls--;
    return true;
}

/* The reactor is not there any more. */
static void reactor_ended(struct task *task)
{
    struct nfsds_connection *connection = container_of(task, struct nfsds_connection, ending);
    destroy(connection);
    pthread_mutex_lock(&connection->nfs->mutex);
    connection->reactor = NULL;
    pthread_mutex_unlock(&connection->nfs->mutex);
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
    connection->ending.run = reactor_ended;
    reactor_at_end(reactor, &connection->ending);
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

static void leave(void *argument)
{
    struct nfsds_connection *connection = argument;
    list_remove(&connection->ending.link);
    destroy(connection);
}

static void turn_is_over(void *argument)
{
}

static void close_one(struct nfsds_connection *connection)
{
    pthread_mutex_lock(&connection->nfs->mutex);
    struct reactor *reactor = connection->reactor;
    pthread_mutex_unlock(&connection->nfs->mutex);
    if (reactor) {
        reactor_call(reactor, leave, connection);
        reactor_call(reactor, turn_is_over, NULL); /* nothing in it refers to the source now */
    }
    free(connection);
}

void nfsds_connections_close(struct nfs *nfs)
{
    for (unsigned i = 0; i < REACTORS_MAX; i++)
        for (unsigned j = 0; j < NFS_CONNECTIONS_MAX; j++) {
            if (nfs->connections[i][j])
                close_one(nfs->connections[i][j]);
            nfs->connections[i][j] = NULL;
        }
}
