/* The door is a socket in the abstract space, named after the mount's device number, which no two living mounts share
 * and which /proc/self/mountinfo tells without asking the filesystem. Both sides make sure that the other is root.
 *
 * Who asks sends the program as an open descriptor. It is run with the session's memory on descriptor 3 and prints its
 * version, or a sentence; it has QUESTION_PATIENCE for that. Nothing of the mount is touched before. */
#include "fs/upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "fs/message.h"
#include "fs/mount.h"
#include "fs/session.h"
#include "fs/spawn.h"

#define QUESTION_PATIENCE (15 * NS_PER_S)

static socklen_t address_of(struct sockaddr_un *address, dev_t device)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int length = snprintf(
        address->sun_path + 1, sizeof(address->sun_path) - 1, "svmfs-keeper/%u:%u", major(device), minor(device));
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static bool is_root(int socket)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t length = sizeof(peer);
    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == 0;
}

static void close_one(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void upgrade_open(struct upgrade *upgrade, dev_t device)
{
    struct sockaddr_un address;
    *upgrade = (struct upgrade){.client = -1, .answer = -1, .program = PROGRAM_NONE};
    socklen_t length = address_of(&address, device);
    upgrade->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (upgrade->listener >= 0 && bind(upgrade->listener, (struct sockaddr *)&address, length) == 0 &&
        listen(upgrade->listener, 4) == 0)
        return;
    log_warning("the mount cannot be upgraded: its socket: %s", error_text(errno));
    close_one(&upgrade->listener);
}

void upgrade_close(struct upgrade *upgrade)
{
    if (upgrade->child > 0) {
        kill(upgrade->child, SIGKILL);
        waitpid(upgrade->child, NULL, 0);
    }
    if (upgrade->state != UPGRADE_NONE)
        upgrade_end(upgrade, -ESHUTDOWN, "the mount is at its end");
    close_one(&upgrade->listener);
    program_close(&upgrade->program);
}

static void say(int socket, int error, const char *text)
{
    struct message message = {.version = MESSAGE_VERSION, .kind = MESSAGE_UPGRADED, .error = error};
    snprintf(message.text, sizeof(message.text), "%s", text);
    message_send(socket, &message, NULL, 0);
}

void upgrade_end(struct upgrade *upgrade, int error, const char *format, ...)
{
    char text[SENTENCE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (error)
        log_error("upgrade: %s", text);
    else
        log_info("upgrade: %s", text);
    if (upgrade->client >= 0)
        say(upgrade->client, error, text);
    close_one(&upgrade->client);
    close_one(&upgrade->answer);
    program_close(&upgrade->program);
    upgrade->state = UPGRADE_NONE;
}

/* The new program, by whoever wants it. */
static int hear(int client, struct program *program, struct sentence *why)
{
    struct message message;
    int descriptors[MESSAGE_DESCRIPTORS];
    unsigned count = 0;
    int got = message_receive(client, &message, descriptors, &count);
    if (got == 1 && message.kind == MESSAGE_UPGRADE && count == 1) {
        program_take(program, descriptors[0]);
        return 0;
    }
    for (unsigned i = 0; i < count; i++)
        close(descriptors[i]);
    return refuse(why, got < 0 ? got : -EPROTO, "the keeper does not understand what is wanted of it");
}

static void admit(struct upgrade *upgrade, const struct upgrade_question *question)
{
    struct sentence why = {0};
    struct program program = PROGRAM_NONE;
    const struct timeval patience = {.tv_usec = 200000};
    int client = accept4(upgrade->listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
        return;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    int error = is_root(client) ? hear(client, &program, &why) : refuse(&why, -EPERM, "only root may upgrade a mount");
    if (!error && (upgrade->state != UPGRADE_NONE || upgrade->child > 0))
        error = refuse(&why, -EBUSY, "another upgrade of this mount is going on");
    if (!error && question->busy)
        error = refuse(&why, -EBUSY, "%s", question->busy);
    if (!error) {
        error = spawn_question(&program, question->session, question->config, &upgrade->child, &upgrade->answer);
        if (error)
            refuse(&why, error, "%s cannot be started: %s", program.path, error_text(error));
    }
    if (error) {
        say(client, error, why.text);
        close(client);
        program_close(&program);
        return;
    }
    upgrade->state = UPGRADE_ASKING;
    upgrade->client = client;
    upgrade->program = program;
    upgrade->length = 0;
    upgrade->answered = false;
    upgrade->deadline = clock_now() + QUESTION_PATIENCE;
}

static void read_answer(struct upgrade *upgrade)
{
    char rest[256];
    for (ssize_t got = 1; got > 0;) {
        size_t room = sizeof(upgrade->text) - 1 - upgrade->length;
        got = read(upgrade->answer, room ? upgrade->text + upgrade->length : rest, room ? room : sizeof(rest));
        if (got > 0 && room)
            upgrade->length += (size_t)got;
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            close_one(&upgrade->answer);
    }
    upgrade->text[upgrade->length] = '\0';
    upgrade->text[strcspn(upgrade->text, "\n")] = '\0';
}

/* True: it accepts. */
static bool judge(struct upgrade *upgrade)
{
    if (upgrade->answer >= 0)
        read_answer(upgrade);
    if (WIFEXITED(upgrade->status) && WEXITSTATUS(upgrade->status) == 0 && strncmp(upgrade->text, "svmfs ", 6) == 0) {
        close_one(&upgrade->answer);
        snprintf(upgrade->version, sizeof(upgrade->version), "%.*s", (int)sizeof(upgrade->version) - 1, upgrade->text);
        upgrade->state = UPGRADE_ACCEPTED;
        upgrade->began = clock_now();
        return true;
    }
    bool says = WIFEXITED(upgrade->status) && WEXITSTATUS(upgrade->status) == 1 && upgrade->text[0];
    upgrade_end(upgrade, -EPROTO, "%s cannot take this mount: %s", upgrade->program.path,
        says                           ? upgrade->text
        : WIFSIGNALED(upgrade->status) ? "it was killed, or did not answer in time"
                                       : "it does not understand the question: it is no svmfs, or too old");
    return false;
}

void upgrade_poll(const struct upgrade *upgrade, struct pollfd polled[UPGRADE_POLLED])
{
    polled[0] = (struct pollfd){.fd = upgrade->listener, .events = POLLIN};
    polled[1] = (struct pollfd){.fd = upgrade->answer, .events = POLLIN};
    polled[2] = (struct pollfd){.fd = -1};
}

bool upgrade_turn(
    struct upgrade *upgrade, const struct pollfd polled[UPGRADE_POLLED], const struct upgrade_question *question)
{
    if (polled[1].revents && upgrade->answer >= 0)
        read_answer(upgrade);
    if (upgrade->state == UPGRADE_ASKING && upgrade->answered)
        return judge(upgrade);
    if (upgrade->state == UPGRADE_ASKING && clock_now() >= upgrade->deadline && upgrade->child > 0)
        kill(upgrade->child, SIGKILL);
    if (polled[0].revents)
        admit(upgrade, question);
    return false;
}

bool upgrade_reap(struct upgrade *upgrade, pid_t pid, int status)
{
    if (upgrade->child <= 0 || pid != upgrade->child)
        return false;
    upgrade->child = 0;
    upgrade->answered = true;
    upgrade->status = status;
    return true;
}

int upgrade_ask(const char *mountpoint, struct sentence *said)
{
    struct sockaddr_un address;
    struct program program;
    char real[PATH_MAX];
    dev_t device;
    if (mount_find(mountpoint, &device) < 0 && (!realpath(mountpoint, real) || mount_find(real, &device) < 0))
        return refuse(said, -EINVAL, "%s is no mount of svmfs", mountpoint);
    if (geteuid() != 0)
        return refuse(said, -EPERM, "only root may upgrade a mount");
    auto_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    socklen_t length = address_of(&address, device);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, length) < 0)
        return refuse(said, -errno, "%s: its keeper does not answer: %s", mountpoint, error_text(errno));
    if (!is_root(fd))
        return refuse(said, -EPERM, "%s: who answers is not its keeper", mountpoint);
    int error = program_own(&program);
    struct message message = {.version = MESSAGE_VERSION, .kind = MESSAGE_UPGRADE};
    if (!error)
        error = message_send(fd, &message, &program.fd, 1);
    program_close(&program);
    if (error)
        return refuse(said, error, "%s: its keeper cannot be told: %s", mountpoint, error_text(error));
    int got = message_receive(fd, &message, NULL, NULL);
    if (got != 1 || message.kind != MESSAGE_UPGRADED)
        return refuse(
            said, got < 0 ? got : -EPROTO, "%s: its keeper ended, or does not speak our language", mountpoint);
    if (message.error)
        return refuse(said, message.error, "%.*s", SENTENCE_MAX - 1, message.text);
    snprintf(said->text, sizeof(said->text), "%.*s", SENTENCE_MAX - 1, message.text);
    return 0;
}

int upgrade_answer(const char *message_version)
{
    struct sentence why = {0};
    if (strtoul(message_version, NULL, 10) != MESSAGE_VERSION)
        refuse(&why, -EPROTO,
            "its keeper speaks version %s of their language, it speaks version %u: umount and mount again "
            "to change to it",
            message_version, MESSAGE_VERSION);
    else if (session_accepts(UPGRADE_SESSION, &why) == 0)
        snprintf(why.text, sizeof(why.text), "svmfs %s", SVMFS_VERSION);
    printf("%s\n", why.text);
    return fflush(stdout) == 0 && strncmp(why.text, "svmfs ", 6) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
