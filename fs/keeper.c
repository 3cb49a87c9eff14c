/* The keeper's life: claim the state directory, mount, answer FUSE_INIT, make the session's memory and the clones;
 * start a worker and give it all that; wait. When the worker dies the next one is started as soon as the old one is
 * reaped: then none of its threads runs, and what it had sent to a local image has landed (law 6). One thread, one
 * poll(2), little memory.
 *
 * The end: umount makes the worker's reads fail: it says GONE (the keeper itself looks once a second: see
 * mount_is_gone), the keeper says STOP, the worker finishes, persists its jobs, exits. SIGTERM: a child of the keeper
 * unmounts while the worker still serves, since an umount writes out what is dirty; then the same. What does not end in
 * time is ended by force. */
#include "fs/keeper.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "fs/claim.h"
#include "fs/message.h"
#include "fs/mount.h"
#include "fs/session.h"
#include "fs/spawn.h"

#define TICK_NS          NS_PER_S
#define QUICK_NS         NS_PER_S /* a worker that dies sooner died of its start */
#define DELAY_LEAST_NS   (10 * NS_PER_MS)
#define DELAY_MOST_NS    (5 * NS_PER_S)
#define FIRST_TRIES      3
#define BEATS_MISSED_MAX 30
#define UMOUNT_PATIENCE  (30 * NS_PER_S)
#define STOP_PATIENCE    (60 * NS_PER_S)

struct keeper {
    const struct keeper_options *options;
    void (*ready)(void *argument);
    void *ready_argument;
    struct sentence *why;
    int lock, signals;
    struct fuse_mount fuse;
    struct session session;
    int clones[REACTORS_MAX];
    unsigned clone_count;
    /* the worker */
    pid_t worker; /* 0: none */
    int socket;
    bool serving;
    uint64_t started, start_at; /* start_at: when the next is to be started, 0: not planned */
    unsigned quick_deaths;
    uint64_t beat;
    unsigned beats_missed;
    /* the end */
    pid_t unmounter;
    uint64_t unmount_deadline, stop_deadline;
    bool ending, done;
    int error;
};

static void close_socket(struct keeper *keeper)
{
    if (keeper->socket >= 0)
        close(keeper->socket);
    keeper->socket = -1;
}

static void start_worker(struct keeper *keeper)
{
    struct message hello = {.version = MESSAGE_VERSION, .kind = MESSAGE_HELLO};
    int descriptors[MESSAGE_DESCRIPTORS] = {
        [HELLO_SESSION] = keeper->session.fd, [HELLO_LOCK] = keeper->lock, [HELLO_FUSE] = keeper->fuse.fd};
    memcpy(descriptors + HELLO_CLONES, keeper->clones, keeper->clone_count * sizeof(int));
    snprintf(hello.config, sizeof(hello.config), "%s", keeper->options->config->file);
    snprintf(hello.mountpoint, sizeof(hello.mountpoint), "%s", keeper->options->mountpoint);

    atomic_fetch_add(&keeper->session.head->generation, 1);
    keeper->start_at = 0;
    keeper->serving = false;
    keeper->started = clock_now();
    int error = spawn_worker(&keeper->worker, &keeper->socket);
    if (!error)
        error = message_send(keeper->socket, &hello, descriptors, HELLO_CLONES + keeper->clone_count);
    if (error) {
        log_error("no worker can be started: %s", error_text(error));
        if (keeper->worker)
            kill(keeper->worker, SIGKILL);
        else
            keeper->start_at = keeper->started + NS_PER_S;
    }
}

static void begin_stop(struct keeper *keeper)
{
    if (keeper->ending)
        return;
    keeper->ending = true;
    atomic_store(&keeper->session.head->stopping, 1);
    keeper->stop_deadline = clock_now() + STOP_PATIENCE;
    if (!keeper->worker)
        keeper->done = true;
    else if (keeper->socket >= 0)
        message_say(keeper->socket, MESSAGE_STOP);
}

/* The child keeps no descriptor of the mount: were it to hang, the mount could still be ended. */
static void begin_unmount(struct keeper *keeper)
{
    if (keeper->unmounter || keeper->ending || !keeper->serving) {
        begin_stop(keeper);
        return;
    }
    pid_t child = fork();
    if (child == 0) {
        close_range(STDERR_FILENO + 1, ~0u, 0);
        _exit(mount_detach(&keeper->fuse) == 0 ? 0 : 1);
    }
    if (child < 0) {
        begin_stop(keeper);
        return;
    }
    keeper->unmounter = child;
    keeper->unmount_deadline = clock_now() + UMOUNT_PATIENCE;
}

static void refuse_mount(struct keeper *keeper, int error)
{
    keeper->error = error;
    keeper->done = true;
}

static void heed(struct keeper *keeper, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_SERVING:
        keeper->serving = true;
        keeper->beat = 0;
        keeper->beats_missed = 0;
        if (keeper->ready)
            keeper->ready(keeper->ready_argument);
        else
            log_info("%s is served again", keeper->options->mountpoint);
        keeper->ready = NULL;
        break;
    case MESSAGE_REFUSED:
        if (keeper->ready)
            refuse_mount(keeper, refuse(keeper->why, message->error, "%.*s", SENTENCE_MAX - 1, message->text));
        else
            log_error("the next worker cannot serve: %.*s", SENTENCE_MAX - 1, message->text);
        break;
    case MESSAGE_GONE:
        begin_stop(keeper);
        break;
    default:
        log_error("the worker said something unknown (%u)", message->kind);
    }
}

static void listen_to_worker(struct keeper *keeper)
{
    struct message message;
    while (keeper->socket >= 0) {
        int got = message_receive(keeper->socket, &message, NULL, NULL);
        if (got == 1)
            heed(keeper, &message);
        else if (got == -EAGAIN)
            return;
        else
            close_socket(keeper);
    }
}

/* Killed from outside (an administrator, the OOM killer) while it served, it is no worse than the next one will be. */
static bool own_fault(const struct keeper *keeper, int status)
{
    return !keeper->serving || !WIFSIGNALED(status) || (WTERMSIG(status) != SIGKILL && WTERMSIG(status) != SIGTERM);
}

static void worker_ended(struct keeper *keeper, int status)
{
    uint64_t now = clock_now();
    int pid = (int)keeper->worker;
    listen_to_worker(keeper);
    close_socket(keeper);
    bool quick = own_fault(keeper, status) && now - keeper->started < QUICK_NS;
    keeper->worker = 0;
    keeper->serving = false;
    if (keeper->ending || keeper->done) {
        keeper->done = true;
        return;
    }
    if (mount_is_gone(&keeper->fuse)) {
        begin_stop(keeper);
        return;
    }
    keeper->quick_deaths = quick ? keeper->quick_deaths + 1 : 0;
    if (WIFSIGNALED(status))
        log_warning("the worker (process %d) was ended by signal %d: the next one starts", pid, WTERMSIG(status));
    else
        log_warning("the worker (process %d) ended with status %d: the next one starts", pid, WEXITSTATUS(status));
    if (keeper->ready && keeper->quick_deaths >= FIRST_TRIES) {
        refuse_mount(keeper, refuse(keeper->why, -EIO, "%s: the worker dies at its start (wait status %#x)",
                                 keeper->options->mountpoint, (unsigned)status));
        return;
    }
    uint64_t delay = 0;
    if (keeper->quick_deaths > 1) {
        delay = keeper->quick_deaths - 2 < 10 ? DELAY_LEAST_NS << (keeper->quick_deaths - 2) : DELAY_MOST_NS;
        delay = delay < DELAY_MOST_NS ? delay : DELAY_MOST_NS;
    }
    keeper->start_at = now + delay;
    if (delay == 0)
        start_worker(keeper);
}

static void reap(struct keeper *keeper)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        if (pid == keeper->worker) {
            worker_ended(keeper, status);
        } else if (pid == keeper->unmounter) {
            keeper->unmounter = 0;
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                log_warning("%s has open files: it is detached, they end with errors", keeper->options->mountpoint);
            begin_stop(keeper);
        }
    }
}

static void take_signals(struct keeper *keeper)
{
    struct signalfd_siginfo info;
    while (read(keeper->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            reap(keeper);
        else if (info.ssi_signo != SIGHUP || keeper->options->foreground)
            begin_unmount(keeper);
    }
}

/* Once a second. */
static void look(struct keeper *keeper)
{
    uint64_t now = clock_now(), beat = atomic_load(&keeper->session.head->heartbeat);
    if (!keeper->ending && mount_is_gone(&keeper->fuse))
        begin_stop(keeper);
    keeper->beats_missed = keeper->serving && beat == keeper->beat ? keeper->beats_missed + 1 : 0;
    keeper->beat = beat;
    if (keeper->worker && keeper->beats_missed >= BEATS_MISSED_MAX && !keeper->ending) {
        log_error("the worker (process %d) does not beat any more: it is ended", (int)keeper->worker);
        keeper->beats_missed = 0;
        kill(keeper->worker, SIGKILL);
    }
    if (keeper->unmounter && now >= keeper->unmount_deadline)
        begin_stop(keeper);
    if (keeper->ending && keeper->worker && now >= keeper->stop_deadline) {
        log_error("the worker (process %d) does not end: it is ended", (int)keeper->worker);
        kill(keeper->worker, SIGKILL);
        keeper->stop_deadline = now + STOP_PATIENCE;
    }
}

static int sleep_ms(const struct keeper *keeper)
{
    uint64_t now = clock_now(), span = TICK_NS;
    if (keeper->start_at)
        span = keeper->start_at <= now ? 0 : keeper->start_at - now;
    span = span < TICK_NS ? span : TICK_NS;
    return (int)((span + NS_PER_MS - 1) / NS_PER_MS);
}

static void run(struct keeper *keeper)
{
    uint64_t looked = clock_now();
    start_worker(keeper);
    while (!keeper->done) {
        struct pollfd polled[] = {{.fd = keeper->signals, .events = POLLIN}, {.fd = keeper->socket, .events = POLLIN}};
        int count = poll(polled, 2, sleep_ms(keeper));
        if (count > 0 && polled[1].revents)
            listen_to_worker(keeper);
        if (count > 0 && polled[0].revents)
            take_signals(keeper);
        if (clock_now() - looked >= TICK_NS) {
            looked = clock_now();
            look(keeper);
        }
        if (!keeper->done && keeper->start_at && clock_now() >= keeper->start_at)
            start_worker(keeper);
    }
    if (keeper->worker) {
        kill(keeper->worker, SIGKILL);
        waitpid(keeper->worker, NULL, 0);
        keeper->worker = 0;
    }
    if (!mount_is_gone(&keeper->fuse))
        mount_abort(&keeper->fuse);
}

static int open_clones(struct keeper *keeper)
{
    for (; keeper->clone_count < keeper->session.head->reactors; keeper->clone_count++) {
        int fd = mount_clone(&keeper->fuse);
        if (fd < 0)
            return refuse(
                keeper->why, fd, "%s: /dev/fuse cannot be cloned: %s", keeper->options->mountpoint, error_text(fd));
        keeper->clones[keeper->clone_count] = fd;
    }
    return 0;
}

static int open_signals(struct keeper *keeper, sigset_t *before)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, before);
    keeper->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return keeper->signals < 0 ? refuse(keeper->why, -errno, "signalfd: %s", error_text(errno)) : 0;
}

static int serve(struct keeper *keeper)
{
    const struct config *config = keeper->options->config;
    int error = session_create(&keeper->session, config->reactors, config->buffers);
    if (error)
        return refuse(keeper->why, error, "memory for requests: %s", error_text(error));
    error = mount_open(&keeper->fuse, keeper->options->config_argument, keeper->options->mountpoint,
        keeper->options->mount_options, keeper->why);
    if (!error) {
        keeper->session.head->init_in = keeper->fuse.init_in;
        keeper->session.head->init_out = keeper->fuse.init_out;
        atomic_store(&keeper->session.head->takeover, keeper->options->takeover);
        error = open_clones(keeper);
        if (error)
            mount_abort(&keeper->fuse);
    }
    session_keep_head(&keeper->session);
    if (!error) {
        if (mlockall(MCL_CURRENT) < 0)
            log_debug("the keeper cannot be locked in memory: %s", error_text(errno));
        run(keeper);
        munlockall();
        error = keeper->error;
    }
    for (unsigned i = 0; i < keeper->clone_count; i++)
        close(keeper->clones[i]);
    if (keeper->fuse.fd >= 0)
        close(keeper->fuse.fd);
    close(keeper->session.fd);
    return error;
}

int keeper_serve(
    const struct keeper_options *options, void (*ready)(void *argument), void *argument, struct sentence *why)
{
    struct keeper keeper = {.options = options,
        .ready = ready,
        .ready_argument = argument,
        .why = why,
        .socket = -1,
        .signals = -1,
        .fuse.fd = -1};
    sigset_t before;
    keeper.lock = claim_state(options->config->state, options->mountpoint, why);
    if (keeper.lock < 0)
        return keeper.lock;
    spawn_protect();
    int error = open_signals(&keeper, &before);
    if (!error)
        error = serve(&keeper);
    close_socket(&keeper);
    if (keeper.signals >= 0)
        close(keeper.signals);
    close(keeper.lock);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return error;
}
