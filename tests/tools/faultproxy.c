/* faultproxy LISTEN_PORT TARGET_PORT CONTROL: a TCP relay on 127.0.0.1 that misbehaves when told to.
 *
 * CONTROL is a file with one line "MODE [NUMBER]", read again every few milliseconds; what is in force stands in
 * CONTROL.now. A line that differs (a word behind the number may make it differ) is a new command. Modes:
 *
 *   ok              all passes; what was held is let go
 *   delay MS        each piece waits, each way
 *   stall           connections are accepted, nothing passes either way; what was sent is kept
 *   blackhole       as stall, and new connections are not even accepted: they get no answer
 *   cut             every connection is reset, new ones are refused
 *   cutonce         every connection is reset, then ok
 *   cutafter BYTES  when so many more bytes have gone to the target every connection is reset, then ok
 *   swallow         requests pass, replies are thrown away: what was asked is done and never answered
 *   hold            on the connections there are at this moment requests are held; new ones work. At ok they are let
 *                   through, even if the client has closed its connection, or died, long before: a late write.
 *   holdall         as hold, and new connections get no answer: the client cannot end what is held by coming again
 *
 * A connection whose client is gone stays until what it sent is with the target, if it was held LINGER_MS longer, so that
 * the target does what it was asked. If the target closes it first the rest is lost, as when a server ends a session.
 * A connection of which replies were thrown away is reset at the next command: its stream has a gap.
 * It prints a line per mode, and what became of held bytes. It ends on SIGTERM. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum mode { OK, DELAY, STALL, BLACKHOLE, CUT, CUTONCE, CUTAFTER, SWALLOW, HOLD, HOLDALL };
static const char *const NAMES[] = {
    "ok", "delay", "stall", "blackhole", "cut", "cutonce", "cutafter", "swallow", "hold", "holdall"};

enum { CONNECTIONS = 128, FILLERS = 4, PIECE = 256 << 10, BUFFERED = 1 << 20, LINGER_MS = 3000, TICK_MS = 5 };
enum { CLIENT, TARGET };

/* Bytes on their way from one side to the other. */
struct way {
    char *bytes;
    size_t start, end, room;
    uint64_t due; /* ms; nothing leaves before */
};

struct connection {
    int fd[2]; /* -1: closed; both: unused */
    struct way to[2];
    bool held, was_held, gap;
    uint64_t drained; /* ms; since when a connection without its client has nothing more to send; 0: it has */
};

struct proxy {
    struct connection connections[CONNECTIONS];
    struct sockaddr_in listen_address, target_address;
    int listener, fillers[FILLERS];
    enum mode mode;
    uint64_t number;
    bool enough; /* cutafter: all has gone that should */
    char command[128];
    const char *control;
};

static volatile sig_atomic_t ended;

static void on_signal(int number)
{
    ended = number;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- sockets --- */

static size_t waiting(const struct way *way)
{
    return way->end - way->start;
}

static void reset(int *fd)
{
    const struct linger at_once = {.l_onoff = 1};
    if (*fd < 0)
        return;
    setsockopt(*fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(*fd);
    *fd = -1;
}

static void drop(struct connection *connection)
{
    if (connection->was_held && waiting(&connection->to[TARGET]))
        printf("held bytes lost: %zu\n", waiting(&connection->to[TARGET]));
    for (int side = 0; side < 2; side++) {
        reset(&connection->fd[side]);
        free(connection->to[side].bytes);
    }
    *connection = (struct connection){.fd = {-1, -1}};
}

static void drop_all(struct proxy *proxy)
{
    for (int i = 0; i < CONNECTIONS; i++)
        drop(&proxy->connections[i]);
}

static int open_listener(const struct proxy *proxy)
{
    const int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (const void *)&proxy->listen_address, sizeof(proxy->listen_address)) < 0 || listen(fd, 1) < 0) {
        perror("faultproxy: listen");
        exit(1);
    }
    return fd;
}

/* The listener's queue is filled by connections of our own: the kernel answers no more that come. */
static void fill_queue(struct proxy *proxy)
{
    for (int i = 0; i < FILLERS; i++) {
        proxy->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (connect(proxy->fillers[i], (const void *)&proxy->listen_address, sizeof(proxy->listen_address)) < 0 &&
            errno != EINPROGRESS)
            perror("faultproxy: connect");
    }
}

static void empty_queue(struct proxy *proxy)
{
    for (int i = 0; i < FILLERS; i++)
        reset(&proxy->fillers[i]);
    reset(&proxy->listener);
    proxy->listener = open_listener(proxy);
}

static void take_connection(struct proxy *proxy)
{
    const int on = 1;
    int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), i = 0;
    if (client < 0)
        return;
    while (i < CONNECTIONS && (proxy->connections[i].fd[CLIENT] >= 0 || proxy->connections[i].fd[TARGET] >= 0))
        i++;
    int target = i < CONNECTIONS ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    if (target < 0 || connect(target, (const void *)&proxy->target_address, sizeof(proxy->target_address)) < 0) {
        reset(&target);
        reset(&client);
        return;
    }
    fcntl(target, F_SETFL, O_NONBLOCK);
    setsockopt(client, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof(on));
    setsockopt(target, IPPROTO_TCP, 1, &on, sizeof(on));
    proxy->connections[i] = (struct connection){.fd = {client, target}};
}

/* --- commands --- */

static bool holds(enum mode mode)
{
    return mode == HOLD || mode == HOLDALL;
}

static bool deaf(enum mode mode)
{
    return mode == BLACKHOLE || mode == HOLDALL;
}

static void obey(struct proxy *proxy, enum mode mode, uint64_t number)
{
    enum mode before = proxy->mode;
    proxy->mode = mode == CUTONCE ? OK : mode;
    proxy->number = number;
    if (mode == CUT || mode == CUTONCE)
        drop_all(proxy);
    if (mode == CUT)
        reset(&proxy->listener);
    if (before == CUT && mode != CUT)
        proxy->listener = open_listener(proxy);
    if (deaf(before) && !deaf(mode))
        empty_queue(proxy);
    if (deaf(mode) && !deaf(before))
        fill_queue(proxy);
    for (int i = 0; i < CONNECTIONS; i++) {
        struct connection *connection = &proxy->connections[i];
        if (connection->gap)
            drop(connection);
        if (connection->held && !holds(mode) && waiting(&connection->to[TARGET]))
            printf("held bytes let go: %zu\n", waiting(&connection->to[TARGET]));
        connection->held = holds(mode) && connection->fd[CLIENT] >= 0;
        connection->was_held |= connection->held;
    }
}

static void read_control(struct proxy *proxy)
{
    char line[sizeof(proxy->command)] = "", word[32] = "", path[4096], next[4096];
    unsigned long long number = 0;
    FILE *file = fopen(proxy->control, "re");
    bool whole = file && fgets(line, sizeof(line), file) && strchr(line, '\n');
    if (file)
        fclose(file);
    if (!whole || strcmp(line, proxy->command) == 0 || sscanf(line, "%31s %llu", word, &number) < 1)
        return;
    strcpy(proxy->command, line);
    for (unsigned mode = OK; mode <= HOLDALL; mode++)
        if (strcmp(word, NAMES[mode]) == 0) {
            obey(proxy, (enum mode)mode, number);
            printf("%s", line);
        }
    snprintf(path, sizeof(path), "%s.now", proxy->control);
    snprintf(next, sizeof(next), "%s.next", proxy->control);
    file = fopen(next, "we");
    if (file && fputs(line, file) >= 0 && fclose(file) == 0)
        rename(next, path);
}

/* --- bytes --- */

static bool make_room(struct way *way)
{
    if (way->start == way->end)
        way->start = way->end = 0;
    if (way->room - way->end >= PIECE)
        return true;
    memmove(way->bytes, way->bytes + way->start, waiting(way));
    way->end -= way->start;
    way->start = 0;
    if (way->room - way->end >= PIECE)
        return true;
    char *larger = realloc(way->bytes, way->room + 2 * PIECE);
    if (!larger)
        return false;
    way->bytes = larger;
    way->room += 2 * PIECE;
    return true;
}

static bool nothing_passes(const struct proxy *proxy)
{
    return proxy->mode == STALL || proxy->mode == BLACKHOLE;
}

/* A held connection is read without a bound, so that what its client has sent is here when the client is gone. */
static bool wants_read(const struct proxy *proxy, const struct connection *connection, int side)
{
    const struct way *way = &connection->to[!side];
    if (connection->fd[side] < 0 || nothing_passes(proxy))
        return false;
    if (side == TARGET && connection->fd[CLIENT] < 0)
        return true;
    return waiting(way) < BUFFERED || (side == CLIENT && connection->held);
}

static bool wants_write(const struct proxy *proxy, const struct connection *connection, int side, uint64_t now)
{
    const struct way *way = &connection->to[side];
    return connection->fd[side] >= 0 && waiting(way) && way->due <= now && !nothing_passes(proxy) &&
           !(side == TARGET && connection->held);
}

/* False: this side is closed. */
static bool read_side(struct proxy *proxy, struct connection *connection, int side)
{
    struct way *way = &connection->to[!side];
    if (!make_room(way))
        return false;
    ssize_t got = recv(connection->fd[side], way->bytes + way->end, way->room - way->end, 0);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    if (side == TARGET && (proxy->mode == SWALLOW || connection->fd[CLIENT] < 0)) {
        connection->gap = true;
        return true;
    }
    if (proxy->mode == DELAY && !waiting(way))
        way->due = now_ms() + proxy->number;
    way->end += (size_t)got;
    return true;
}

static bool write_side(struct proxy *proxy, struct connection *connection, int side)
{
    struct way *way = &connection->to[side];
    ssize_t sent = send(connection->fd[side], way->bytes + way->start, waiting(way), MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR;
    way->start += (size_t)sent;
    if (side == TARGET && connection->fd[CLIENT] < 0)
        printf("late bytes sent: %zd\n", sent);
    if (side == TARGET && proxy->mode == CUTAFTER) {
        proxy->number -= (uint64_t)sent < proxy->number ? (uint64_t)sent : proxy->number;
        proxy->enough = proxy->number == 0;
    }
    return true;
}

/* The client is gone: has the target all that it sent? */
static bool over(struct connection *connection, uint64_t now)
{
    if (connection->held || waiting(&connection->to[TARGET])) {
        connection->drained = 0;
        return false;
    }
    if (connection->drained == 0)
        connection->drained = now;
    return now - connection->drained >= (connection->was_held ? LINGER_MS : 0);
}

/* The target has closed: its client gets what came before. */
static void say_last_words(const struct proxy *proxy, struct connection *connection)
{
    const struct way *way = &connection->to[CLIENT];
    if (nothing_passes(proxy) || connection->fd[CLIENT] < 0)
        return;
    if (waiting(way) == 0 ||
        send(connection->fd[CLIENT], way->bytes + way->start, waiting(way), MSG_NOSIGNAL) == (ssize_t)waiting(way)) {
        close(connection->fd[CLIENT]);
        connection->fd[CLIENT] = -1;
    }
}

static void serve(struct proxy *proxy, struct connection *connection, const short *events, uint64_t now)
{
    for (int side = 0; side < 2; side++) {
        bool whole = true;
        if (events[side] & (POLLIN | POLLHUP | POLLERR) && wants_read(proxy, connection, side))
            whole = read_side(proxy, connection, side);
        if (whole && events[side] & POLLOUT && wants_write(proxy, connection, side, now))
            whole = write_side(proxy, connection, side);
        if (!whole && side == TARGET) {
            say_last_words(proxy, connection);
            drop(connection);
            return;
        }
        if (!whole)
            reset(&connection->fd[CLIENT]);
    }
    if (connection->fd[CLIENT] < 0 && !nothing_passes(proxy) && over(connection, now)) {
        close(connection->fd[TARGET]); /* what was sent stays with the target */
        connection->fd[TARGET] = -1;
        drop(connection);
    }
}

static void turn(struct proxy *proxy)
{
    struct pollfd polled[1 + 2 * CONNECTIONS];
    uint64_t now = now_ms();
    /* what nothing is wanted of is not polled: an end that is not taken notice of would wake this up without end */
    polled[0] = (struct pollfd){.fd = deaf(proxy->mode) ? -1 : proxy->listener, .events = POLLIN};
    for (int i = 0; i < 2 * CONNECTIONS; i++) {
        const struct connection *connection = &proxy->connections[i / 2];
        short events = wants_read(proxy, connection, i % 2) ? POLLIN : 0;
        events |= wants_write(proxy, connection, i % 2, now) ? POLLOUT : 0;
        polled[1 + i] = (struct pollfd){.fd = events ? connection->fd[i % 2] : -1, .events = events};
    }
    if (poll(polled, 1 + 2 * CONNECTIONS, TICK_MS) < 0)
        return;
    for (int i = 0; i < CONNECTIONS; i++)
        if (proxy->connections[i].fd[TARGET] >= 0)
            serve(proxy, &proxy->connections[i], (short[]){polled[1 + 2 * i].revents, polled[2 + 2 * i].revents}, now);
    if (polled[0].revents & POLLIN)
        take_connection(proxy);
    if (proxy->enough) {
        printf("cut\n");
        drop_all(proxy);
        proxy->enough = false;
        proxy->mode = OK;
    }
}

int main(int argc, char **argv)
{
    static struct proxy proxy = {.fillers = {-1, -1, -1, -1}};
    if (argc != 4) {
        fprintf(stderr, "usage: faultproxy LISTEN_PORT TARGET_PORT CONTROL\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    proxy.control = argv[3];
    proxy.listen_address = proxy.target_address = (struct sockaddr_in){
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    proxy.listen_address.sin_port = htons((uint16_t)atoi(argv[1]));
    proxy.target_address.sin_port = htons((uint16_t)atoi(argv[2]));
    for (int i = 0; i < CONNECTIONS; i++)
        proxy.connections[i].fd[CLIENT] = proxy.connections[i].fd[TARGET] = -1;
    proxy.listener = open_listener(&proxy);
    for (uint64_t read_at = 0; !ended;) {
        if (now_ms() != read_at) {
            read_control(&proxy);
            read_at = now_ms();
        }
        turn(&proxy);
    }
    return 0;
}
