/* In the order that makes the pause after a death short: the session's memory, the datastores (in parallel), the
 * catalog's records, reactors, handlers, channels: with the first channel the mount is served. The jobs are taken up
 * after that, on a thread of their own.
 *
 * Then the main thread only watches: the keeper's words, the channels' word that the mount is gone, and, once a second,
 * whether every reactor still turns: that is the heartbeat. A keeper that died is no reason to stop: the descriptors
 * are ours too. */
#include "fs/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/crash.h"
#include "fs/datastores.h"
#include "fs/filesystem.h"
#include "fs/handlers.h"
#include "fs/identity.h"
#include "fs/message.h"
#include "fs/open.h"

#define BEAT_NS              NS_PER_S
#define FIRST_PATIENCE_NS    (5 * NS_PER_S)    /* for a datastore that hangs, when the mount is made */
#define NEXT_PATIENCE_NS     (500 * NS_PER_MS) /* and when guests wait */
#define STOP_MARGIN_NS       (2 * NS_PER_S)    /* beyond the longest timeout of a datastore */
#define STOP_PATIENCE_NS     (30 * NS_PER_S)
#define SETTLE_PATIENCE_NS   NS_PER_S
#define REST_PATIENCE_NS     (5 * NS_PER_S)
#define NOTED_PATIENCE_NS    (15 * NS_PER_S)
#define SUSPEND_PATIENCE_NS  (500 * NS_PER_MS)
#define CONTROL_POOL_THREADS 16

struct pulse {
    struct task task;
    atomic_bool on_its_way;
};

struct worker {
    int socket; /* -1: the keeper is gone */
    const struct datastore_ops *const *backends;
    struct message hello;
    int descriptors[MESSAGE_DESCRIPTORS];
    unsigned descriptor_count;
    struct config config;
    struct datastores *datastores;
    struct filesystem fs;
    struct control_disks disks;
    struct pulse pulses[REACTORS_MAX];
    pthread_t recovery;
    bool recovering; /* the thread was started */
    bool stopping;
};

static int receive_hello(struct worker *worker, struct sentence *why)
{
    int got = message_receive(worker->socket, &worker->hello, worker->descriptors, &worker->descriptor_count);
    if (got <= 0)
        return refuse(why, got < 0 ? got : -EPIPE, "the worker got nothing from its keeper");
    if (worker->hello.kind != MESSAGE_HELLO || worker->descriptor_count <= HELLO_CLONES)
        return refuse(why, -EPROTO, "the worker does not understand its keeper");
    int error = session_own(worker->descriptors[HELLO_SESSION]);
    if (error)
        return refuse(why, error, "another worker has the session: %s", error_text(error));
    error = session_map(&worker->fs.session, worker->descriptors[HELLO_SESSION]);
    if (error)
        return refuse(why, error, "the session's memory is of another version: %s", error_text(error));
    worker->fs.reactor_count = worker->fs.session.head->reactors;
    if (worker->descriptor_count != HELLO_CLONES + worker->fs.reactor_count)
        return refuse(why, -EPROTO, "the keeper sent %u descriptors for %u reactors", worker->descriptor_count,
            worker->fs.reactor_count);
    worker->fs.notify_fd = worker->descriptors[HELLO_FUSE];
    return 0;
}

static int load_config(struct worker *worker, struct sentence *why)
{
    const char *schemes[32] = {NULL};
    for (unsigned i = 0; worker->backends[i] && i < sizeof(schemes) / sizeof(schemes[0]) - 1; i++)
        schemes[i] = worker->backends[i]->scheme;
    return config_load(&worker->config, worker->hello.config, schemes, why);
}

static unsigned default_datastore(const struct config *config)
{
    for (unsigned i = 0; i < config->datastore_count; i++)
        if (config->default_datastore && strcmp(config->datastores[i].name, config->default_datastore) == 0)
            return i;
    return 0;
}

/* The keeper is who made the socket: a parent can have died by now. */
static int describe_mount(struct worker *worker, struct datastores_mount *mount, struct sentence *why)
{
    struct session_head *head = worker->fs.session.head;
    struct ucred keeper = {0};
    socklen_t length = sizeof(keeper);
    *mount = (struct datastores_mount){.reactors = head->reactors, .notes = head->notes};
    mount->identity.generation = atomic_load(&head->generation);
    mount->identity.takeover = atomic_load(&head->takeover) && !atomic_load(&head->served);
    snprintf(mount->identity.mountpoint, sizeof(mount->identity.mountpoint), "%.*s",
        (int)sizeof(mount->identity.mountpoint) - 1, worker->hello.mountpoint);
    if (getsockopt(worker->socket, SOL_SOCKET, SO_PEERCRED, &keeper, &length) == 0)
        mount->identity.keeper = keeper.pid;
    return identity_load(&mount->identity, worker->config.state, why);
}

static int open_names(struct worker *worker, struct sentence *why)
{
    struct filesystem *fs = &worker->fs;
    struct datastores_mount mount;
    bool first = atomic_load(&fs->session.head->served) == 0;
    int error = describe_mount(worker, &mount, why);
    if (!error)
        error = datastores_open(&worker->datastores, &worker->config, worker->backends, &mount,
            first ? FIRST_PATIENCE_NS : NEXT_PATIENCE_NS, why);
    if (error)
        return error;
    error = catalog_open(&fs->catalog, worker->config.state, datastores_array(worker->datastores),
        datastores_count(worker->datastores), default_datastore(&worker->config), first, why);
    if (!error)
        datastores_publish(worker->datastores, fs->catalog);
    return error;
}

static int open_engine(struct worker *worker, struct sentence *why)
{
    struct filesystem *fs = &worker->fs;
    int error = pool_open(&fs->pool, "control", CONTROL_POOL_THREADS);
    for (unsigned i = 0; !error && i < fs->reactor_count; i++)
        error = reactor_start(&fs->reactors[i], i);
    if (!error)
        error = handlers_open(fs);
    worker->disks = (struct control_disks){open_files_disk, fs->files};
    if (!error)
        error = control_open(
            &fs->control, &worker->config, fs->catalog, &worker->disks, fs->reactors, fs->reactor_count);
    return error ? refuse(why, error, "the worker cannot start: %s", error_text(error)) : 0;
}

struct channel_call {
    struct worker *worker;
    unsigned index;
    int error;
};

static void open_channel(void *argument)
{
    struct channel_call *call = argument;
    struct filesystem *fs = &call->worker->fs;
    call->error = channel_open(&fs->channels[call->index], fs, fs->reactors[call->index], &fs->session, call->index,
        call->worker->descriptors[HELLO_CLONES + call->index]);
}

static void stop_channel(void *argument)
{
    channel_stop(argument);
}

static int open_channels(struct worker *worker, struct sentence *why)
{
    worker->fs.gone_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (worker->fs.gone_fd < 0)
        return refuse(why, -errno, "eventfd: %s", error_text(errno));
    for (unsigned i = 0; i < worker->fs.reactor_count; i++) {
        struct channel_call call = {worker, i, 0};
        reactor_call(worker->fs.reactors[i], open_channel, &call);
        if (call.error)
            return refuse(why, call.error, "reactor %u cannot serve: %s", i, error_text(call.error));
    }
    return 0;
}

static void *recovery_thread(void *argument)
{
    struct worker *worker = argument;
    pthread_setname_np(pthread_self(), "recovery");
    int error = control_recover(worker->fs.control);
    if (error)
        log_error("the jobs of before were not taken up: %s", error_text(error));
    return NULL;
}

static void beat_back(struct task *task)
{
    struct pulse *pulse = container_of(task, struct pulse, task);
    atomic_store(&pulse->on_its_way, false);
}

static void beat(struct worker *worker)
{
    bool all = true;
    for (unsigned i = 0; i < worker->fs.reactor_count; i++)
        all = all && !atomic_load(&worker->pulses[i].on_its_way);
    if (all)
        atomic_store(&worker->fs.session.head->heartbeat, clock_now());
    for (unsigned i = 0; i < worker->fs.reactor_count; i++) {
        struct pulse *pulse = &worker->pulses[i];
        if (atomic_exchange(&pulse->on_its_way, true))
            continue;
        pulse->task.run = beat_back;
        reactor_post(worker->fs.reactors[i], &pulse->task);
    }
}

static void stop_channels(struct worker *worker)
{
    for (unsigned i = 0; i < worker->fs.reactor_count; i++)
        reactor_call(worker->fs.reactors[i], stop_channel, worker->fs.channels[i]);
}

/* True: none is active any more. */
static bool await_channels(struct worker *worker, uint64_t patience)
{
    struct filesystem *fs = &worker->fs;
    uint64_t end = clock_now() + patience;
    for (;;) {
        unsigned active = 0;
        for (unsigned i = 0; i < fs->reactor_count; i++)
            active += channel_active(fs->channels[i]);
        if (active == 0 || clock_now() >= end)
            return active == 0;
        nanosleep(&(struct timespec){.tv_nsec = (long)NS_PER_MS}, NULL);
    }
}

/* The next worker is waiting, and takes up from the session what it would after a death: requests that did not end
 * soon, jobs, datastores. */
static void suspend(struct worker *worker)
{
    stop_channels(worker);
    await_channels(worker, SUSPEND_PATIENCE_NS);
    _exit(0);
}

static void hear_keeper(struct worker *worker)
{
    struct message message;
    int got = message_receive(worker->socket, &message, NULL, NULL);
    if (got == 1 && message.kind == MESSAGE_STOP) {
        worker->stopping = true;
    } else if (got == 1 && message.kind == MESSAGE_SUSPEND) {
        suspend(worker);
    } else if (got == 0) {
        log_warning("the keeper is gone: %s is served on without it", worker->hello.mountpoint);
        close(worker->socket);
        worker->socket = -1;
    }
}

/* The mount is gone: the keeper decides when to stop; without one, now. */
static void hear_channels(struct worker *worker)
{
    eventfd_t count;
    eventfd_read(worker->fs.gone_fd, &count);
    if (worker->socket < 0 || message_say(worker->socket, MESSAGE_GONE) < 0)
        worker->stopping = true;
}

static void watch(struct worker *worker)
{
    uint64_t next = 0;
    while (!worker->stopping) {
        uint64_t now = clock_now();
        if (now >= next) {
            beat(worker);
            next = now + BEAT_NS;
        }
        struct pollfd polled[] = {
            {.fd = worker->fs.gone_fd, .events = POLLIN}, {.fd = worker->socket, .events = POLLIN}};
        if (poll(polled, 2, (int)((next - now + NS_PER_MS - 1) / NS_PER_MS)) <= 0)
            continue;
        if (polled[0].revents)
            hear_channels(worker);
        if (polled[1].revents)
            hear_keeper(worker);
    }
}

/* Requests in flight end, at the latest by their timeouts. */
static bool drain_channels(struct worker *worker)
{
    uint64_t patience = 0;
    for (unsigned i = 0; i < worker->config.datastore_count; i++)
        if (worker->config.datastores[i].timeout_ns > patience)
            patience = worker->config.datastores[i].timeout_ns;
    patience = patience + STOP_MARGIN_NS < STOP_PATIENCE_NS ? patience + STOP_MARGIN_NS : STOP_PATIENCE_NS;
    stop_channels(worker);
    return await_channels(worker, patience);
}

/* What was sent to an image comes back to a reactor that runs: a job that was suspended leaves copies in flight. */
static bool rest(struct worker *worker)
{
    struct filesystem *fs = &worker->fs;
    uint64_t end = clock_now() + REST_PATIENCE_NS;
    for (;;) {
        unsigned in_flight = 0;
        for (unsigned i = 0; i < fs->reactor_count; i++)
            in_flight += reactor_in_flight(fs->reactors[i]);
        if (in_flight == 0 || clock_now() >= end)
            return in_flight == 0;
        nanosleep(&(struct timespec){.tv_nsec = (long)NS_PER_MS}, NULL);
    }
}

/* What hangs in a datastore is left to the end of the process: all that matters is durable by then. A volume's records of
 * what was written and not flushed are: the next mount does not believe others. */
static void stop(struct worker *worker)
{
    struct filesystem *fs = &worker->fs;
    bool clean = drain_channels(worker);
    control_ends(fs->control);
    if (worker->recovering)
        pthread_join(worker->recovery, NULL);
    control_close(fs->control);
    if (!clean)
        log_warning("%s: requests did not end in time", worker->hello.mountpoint);
    if (clean)
        handlers_close(fs);
    clean = clean && rest(worker);
    datastores_await_noted(worker->datastores, NOTED_PATIENCE_NS);
    clean = datastores_settle(worker->datastores, SETTLE_PATIENCE_NS) && clean;
    clean = datastores_sync(worker->datastores, REST_PATIENCE_NS) && clean;
    if (!clean)
        _exit(0);
    for (unsigned i = 0; i < fs->reactor_count; i++)
        reactor_stop(fs->reactors[i]);
    for (unsigned i = 0; i < fs->reactor_count; i++)
        channel_free(fs->channels[i]);
    pool_close(fs->pool);
    catalog_close(fs->catalog);
    datastores_close(worker->datastores);
    config_free(&worker->config);
    close(fs->gone_fd);
    session_unmap(&fs->session);
}

/* TERM and the like are for the keeper: a service manager or a terminal sends them to both. */
static void settle_in(void)
{
    static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE};
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    crash_arm();
    prctl(PR_SET_NAME, "svmfs-worker");
}

static int start(struct worker *worker, struct sentence *why)
{
    int error = receive_hello(worker, why);
    if (!error)
        error = load_config(worker, why);
    if (!error)
        error = open_names(worker, why);
    if (!error)
        error = open_engine(worker, why);
    if (!error)
        error = open_channels(worker, why);
    if (error)
        return error;
    atomic_store(&worker->fs.session.head->served, 1);
    message_say(worker->socket, MESSAGE_SERVING);
    worker->recovering = pthread_create(&worker->recovery, NULL, recovery_thread, worker) == 0;
    if (!worker->recovering)
        log_error("no thread to take up the jobs of before");
    return 0;
}

int worker_serve(int socket, const struct datastore_ops *const *backends)
{
    static struct worker worker; /* large; a process serves once */
    struct sentence why = {""};
    worker = (struct worker){.socket = socket, .backends = backends};
    settle_in();
    int error = start(&worker, &why);
    if (error) {
        struct message message = {.version = MESSAGE_VERSION, .kind = MESSAGE_REFUSED, .error = error};
        snprintf(message.text, sizeof(message.text), "%s", why.text[0] ? why.text : error_text(error));
        message_send(worker.socket, &message, NULL, 0);
        _exit(1);
    }
    watch(&worker);
    stop(&worker);
    return 0;
}
