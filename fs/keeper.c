/* The keeper's life: claim the state directory, mount, answer FUSE_INIT, make the session's memory and the clones;
 * start a worker and give it all that; wait. When the worker dies the next one is started as soon as the old one is
 * reaped: then none of its threads runs, and what it had sent to a local image has landed (law 6). One thread, one
 * poll(2), little memory.
 *
 * Upgrade (fs/upgrade.h): a program that can take the session gets it. The old worker reads no more, lets end what ends
 * soon, and ends; then the new program's first worker takes up what is in the slots, as after a death. Until it has
 * served for TRIAL_NS the old program is kept: when the new one cannot serve, the keeper goes back to it.
 *
 * The keeper's own death: what it holds is also in the service manager's keeping, if there is one (fs/inherit.h). The
 * next keeper goes on with it, and ends the worker that is left first: two workers would each take up the slots. The
 * worker owns the session as long as it lives (session_own), so that no accident of process numbers matters.
 *
 * A worker that cannot start is started again and again, ever more slowly; the mount waits. One that does not get
 * there, or does not beat, is killed.
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
#include "base/notify.h"
#include "fs/begin.h"
#include "fs/claim.h"
#include "fs/keeper_state.h"
#include "fs/message.h"
#include "fs/spawn.h"

#define TICK_NS          NS_PER_S
#define QUICK_NS         NS_PER_S /* a worker that dies sooner died of its start */
#define DELAY_LEAST_NS   (10 * NS_PER_MS)
#define DELAY_MOST_NS    (5 * NS_PER_S)
#define FIRST_TRIES      3
#define BEATS_MISSED_MAX 30
#define UMOUNT_PATIENCE  (30 * NS_PER_S)
#define STOP_PATIENCE    (60 * NS_PER_S)
#define START_PATIENCE   (60 * NS_PER_S) /* doubled each time that it was not enough, START_DOUBLED at most */
#define START_DOUBLED    4
#define TRIAL_TRIES      3
#define TRIAL_PATIENCE   (30 * NS_PER_S)
#define TRIAL_NS         (60 * NS_PER_S)
#define SUSPEND_PATIENCE (5 * NS_PER_S)
#define OWNER_LOOK_NS    (10 * NS_PER_MS)

static void close_socket(struct keeper *keeper)
{
    if (keeper->socket >= 0)
        close(keeper->socket);
    keeper->socket = -1;
}

/* For whoever asks the service manager. */
static void say_status(const struct keeper *keeper, const char *what, const char *why)
{
    char text[SENTENCE_MAX + PATH_MAX + 64];
    snprintf(text, sizeof(text), "STATUS=%s: %s%s", keeper->options->mountpoint, what, why);
    for (char *c = text; *c; c++)
        if (*c == '\n')
            *c = ' ';
    notify_say(text, NULL, 0);
}

/* A worker of a keeper that died. True: it is still there. */
static bool end_other_worker(struct keeper *keeper)
{
    pid_t other = session_owner(keeper->session.fd);
    if (other <= 0)
        return false;
    if (!keeper->other_told)
        log_warning("a worker of an earlier keeper (process %d) is ended", (int)other);
    keeper->other_told = true;
    kill(other, SIGKILL);
    keeper->start_at = clock_now() + OWNER_LOOK_NS;
    return true;
}

static void start_worker(struct keeper *keeper)
{
    if (end_other_worker(keeper))
        return;
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
    int error = spawn_worker(&keeper->program, &keeper->worker, &keeper->socket);
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

/* A worker that died has left volumes open, of which the next mount believes only what was flushed: one more takes over
 * what is known of them, and ends as it should. True: it starts. */
static bool start_last(struct keeper *keeper)
{
    if (keeper->last || keeper->waits_for_mount)
        return false;
    keeper->last = true;
    keeper->stop_deadline = clock_now() + STOP_PATIENCE;
    start_worker(keeper);
    return true;
}

static void begin_stop(struct keeper *keeper)
{
    if (keeper->ending)
        return;
    keeper->ending = true;
    atomic_store(&keeper->session.head->stopping, 1);
    keeper->stop_deadline = clock_now() + STOP_PATIENCE;
    if (!keeper->worker)
        keeper->done = !start_last(keeper);
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

static void served(struct keeper *keeper)
{
    keeper->serving = true;
    keeper->beat = 0;
    keeper->beats_missed = 0;
    if (keeper->last) {
        message_say(keeper->socket, MESSAGE_STOP);
        return;
    }
    if (keeper->ready)
        keeper->ready(keeper->ready_argument);
    else
        log_info("%s is served again", keeper->options->mountpoint);
    keeper->ready = NULL;
    keeper->waits_for_mount = false;
    say_status(keeper, "served by ", keeper->program.path);
    if (keeper->former.fd >= 0 && !keeper->trial_end)
        keeper->trial_end = clock_now() + TRIAL_NS;
    if (keeper->upgrade.state == UPGRADE_ACCEPTED)
        upgrade_end(&keeper->upgrade, 0, "%s is served by %s (%s), after a pause of %llu ms",
            keeper->options->mountpoint, keeper->program.path, keeper->upgrade.version,
            (unsigned long long)((clock_now() - keeper->upgrade.began) / NS_PER_MS));
}

static void heed(struct keeper *keeper, const struct message *message)
{
    switch (message->kind) {
    case MESSAGE_SERVING:
        served(keeper);
        break;
    case MESSAGE_REFUSED:
        snprintf(keeper->refusal, sizeof(keeper->refusal), "%.*s", SENTENCE_MAX - 1, message->text);
        if (keeper->waits_for_mount)
            refuse_mount(keeper, refuse(keeper->why, message->error, "%.*s", SENTENCE_MAX - 1, message->text));
        else
            log_error("the next worker cannot serve: %.*s", SENTENCE_MAX - 1, message->text);
        say_status(keeper, "its worker cannot serve, and is tried again: ", keeper->refusal);
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
static bool died_of_its_start(const struct keeper *keeper, int status)
{
    bool killed = WIFSIGNALED(status) && (WTERMSIG(status) == SIGKILL || WTERMSIG(status) == SIGTERM);
    return !keeper->serving || (!killed && clock_now() - keeper->started < QUICK_NS);
}

/* Suspended, or dead at the right moment: the new program's turn. */
static void change_program(struct keeper *keeper)
{
    keeper->suspend_deadline = 0;
    program_close(&keeper->former);
    keeper->former = keeper->program;
    keeper->program = keeper->upgrade.program;
    keeper->upgrade.program = PROGRAM_NONE;
    keeper->trial_end = 0;
    keeper->quick_deaths = 0;
    keeper->refusal[0] = '\0';
    inherit_leave_program(keeper->program.fd);
    start_worker(keeper);
}

static void go_back(struct keeper *keeper)
{
    struct program failed = keeper->program;
    keeper->program = keeper->former;
    keeper->former = PROGRAM_NONE;
    keeper->quick_deaths = 0;
    inherit_leave_program(keeper->program.fd);
    log_error("%s cannot serve %s%s%s: back to %s", failed.path, keeper->options->mountpoint,
        keeper->refusal[0] ? ": " : "", keeper->refusal, keeper->program.path);
    if (keeper->upgrade.state == UPGRADE_ACCEPTED)
        upgrade_end(&keeper->upgrade, -EIO, "%s cannot serve %s%s%s: %s serves on", failed.path,
            keeper->options->mountpoint, keeper->refusal[0] ? ": " : "", keeper->refusal, keeper->program.path);
    program_close(&failed);
}

/* What the worker's end means for the mount; true: there is no next worker. */
static bool is_the_end(struct keeper *keeper, int status)
{
    if (keeper->ending || keeper->done) {
        bool clean = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        keeper->done = keeper->done || clean || !start_last(keeper);
        return true;
    }
    if (mount_is_gone(&keeper->fuse)) {
        begin_stop(keeper);
        return true;
    }
    if (keeper->waits_for_mount && keeper->quick_deaths >= FIRST_TRIES) {
        refuse_mount(keeper, refuse(keeper->why, -EIO, "%s: the worker dies at its start (wait status %#x)",
                                 keeper->options->mountpoint, (unsigned)status));
        return true;
    }
    return false;
}

static uint64_t delay_after(unsigned quick_deaths)
{
    if (quick_deaths < 2)
        return 0;
    uint64_t delay = quick_deaths - 2 < 10 ? DELAY_LEAST_NS << (quick_deaths - 2) : DELAY_MOST_NS;
    return delay < DELAY_MOST_NS ? delay : DELAY_MOST_NS;
}

static void worker_ended(struct keeper *keeper, int status)
{
    int pid = (int)keeper->worker;
    listen_to_worker(keeper);
    close_socket(keeper);
    bool quick = died_of_its_start(keeper, status);
    keeper->worker = 0;
    keeper->serving = false;
    keeper->quick_deaths = quick ? keeper->quick_deaths + 1 : 0;
    if (is_the_end(keeper, status))
        return;
    if (keeper->suspend_deadline) {
        change_program(keeper);
        return;
    }
    if (keeper->former.fd >= 0 && keeper->quick_deaths >= TRIAL_TRIES)
        go_back(keeper);
    uint64_t delay = delay_after(keeper->quick_deaths);
    if (WIFSIGNALED(status))
        log_warning("the worker (process %d) was ended by signal %d: the next one starts%s", pid, WTERMSIG(status),
            delay ? " a little later" : "");
    else
        log_warning("the worker (process %d) ended with status %d: the next one starts%s", pid, WEXITSTATUS(status),
            delay ? " a little later" : "");
    keeper->start_at = clock_now() + delay;
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
        } else {
            upgrade_reap(&keeper->upgrade, pid, status);
        }
    }
}

static void begin_change(struct keeper *keeper)
{
    keeper->start_at = 0;
    if (!keeper->worker) {
        change_program(keeper);
        return;
    }
    keeper->suspend_deadline = clock_now() + SUSPEND_PATIENCE;
    if (keeper->socket < 0 || message_say(keeper->socket, MESSAGE_SUSPEND) < 0)
        kill(keeper->worker, SIGKILL);
}

static void attend_upgrade(struct keeper *keeper, const struct pollfd polled[UPGRADE_POLLED])
{
    const struct upgrade_question question = {.session = keeper->session.fd,
        .config = keeper->options->config->file,
        .busy = keeper->ending || keeper->unmounter ? "the mount is at its end"
                : keeper->waits_for_mount           ? "the mount is not served yet"
                                                    : NULL};
    if (!upgrade_turn(&keeper->upgrade, polled, &question))
        return;
    if (keeper->ending || keeper->done)
        upgrade_end(&keeper->upgrade, -ESHUTDOWN, "the mount is at its end");
    else
        begin_change(keeper);
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

/* One that is to start, or to suspend, and does not. */
static void look_at_worker(struct keeper *keeper, uint64_t now)
{
    if (!keeper->worker)
        return;
    unsigned doubled = keeper->quick_deaths < START_DOUBLED ? keeper->quick_deaths : START_DOUBLED;
    bool on_trial = keeper->former.fd >= 0;
    uint64_t patience = on_trial ? TRIAL_PATIENCE : START_PATIENCE << doubled;
    if (!keeper->serving && !keeper->waits_for_mount && now - keeper->started >= patience) {
        log_error("the worker (process %d) does not get to serve: it is ended", (int)keeper->worker);
        if (on_trial)
            keeper->quick_deaths = TRIAL_TRIES - 1;
        kill(keeper->worker, SIGKILL);
    }
    if (keeper->suspend_deadline && now >= keeper->suspend_deadline) {
        log_warning("the worker (process %d) does not suspend: it is ended", (int)keeper->worker);
        keeper->suspend_deadline = now + SUSPEND_PATIENCE;
        kill(keeper->worker, SIGKILL);
    }
    if (keeper->trial_end && keeper->serving && now >= keeper->trial_end) {
        program_close(&keeper->former);
        keeper->trial_end = 0;
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
    if (!keeper->ending)
        look_at_worker(keeper, now);
    if (keeper->unmounter && now >= keeper->unmount_deadline)
        begin_stop(keeper);
    if (keeper->ending && !keeper->worker && now >= keeper->stop_deadline) /* none can be started */
        keeper->done = true;
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
        struct pollfd polled[2 + UPGRADE_POLLED] = {
            {.fd = keeper->signals, .events = POLLIN}, {.fd = keeper->socket, .events = POLLIN}};
        upgrade_poll(&keeper->upgrade, polled + 2);
        int count = poll(polled, 2 + UPGRADE_POLLED, sleep_ms(keeper));
        if (count > 0 && polled[1].revents)
            listen_to_worker(keeper);
        if (count > 0 && polled[0].revents)
            take_signals(keeper);
        if (!keeper->done && count >= 0)
            attend_upgrade(keeper, polled + 2);
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

static void serve(struct keeper *keeper)
{
    upgrade_open(&keeper->upgrade, keeper->fuse.device);
    if (mlockall(MCL_CURRENT) < 0)
        log_debug("the keeper cannot be locked in memory: %s", error_text(errno));
    run(keeper);
    munlockall();
    upgrade_close(&keeper->upgrade);
    inherit_forget();
}

static int mount_and_serve(struct keeper *keeper)
{
    int error = program_own(&keeper->program);
    if (error)
        return refuse(keeper->why, error, "the program itself cannot be opened: %s", error_text(error));
    error = keeper->options->inheritance ? begin_again(keeper) : begin_anew(keeper);
    if (keeper->session.head)
        session_keep_head(&keeper->session);
    if (!error) {
        serve(keeper);
        error = keeper->error;
    }
    for (unsigned i = 0; i < keeper->clone_count; i++)
        close(keeper->clones[i]);
    if (keeper->fuse.fd >= 0)
        close(keeper->fuse.fd);
    if (keeper->session.fd >= 0)
        close(keeper->session.fd);
    program_close(&keeper->program);
    program_close(&keeper->former);
    return error;
}

static int claim(const struct keeper_options *options, struct sentence *why)
{
    int lock = options->inheritance ? options->inheritance->lock : -1;
    if (lock < 0)
        return claim_state(options->config->state, options->mountpoint, why);
    int error = claim_sign(lock, options->mountpoint);
    if (error)
        log_warning("the lock of %s cannot be written: %s", options->config->state, error_text(error));
    return lock;
}

int keeper_serve(
    const struct keeper_options *options, void (*ready)(void *argument), void *argument, struct sentence *why)
{
    struct keeper keeper = {.options = options,
        .ready = ready,
        .ready_argument = argument,
        .why = why,
        .program = PROGRAM_NONE,
        .former = PROGRAM_NONE,
        .session.fd = -1,
        .socket = -1,
        .signals = -1,
        .fuse.fd = -1};
    sigset_t before;
    keeper.lock = claim(options, why);
    if (keeper.lock < 0)
        return keeper.lock;
    spawn_protect();
    int error = open_signals(&keeper, &before);
    if (!error)
        error = mount_and_serve(&keeper);
    close_socket(&keeper);
    if (keeper.signals >= 0)
        close(keeper.signals);
    close(keeper.lock);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return error;
}
