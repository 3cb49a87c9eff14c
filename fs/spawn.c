#include "fs/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/message.h"
#include "fs/upgrade.h"

#define WORKER_SOCKET 3
#define FILES_WANTED  (1u << 20)

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

static void raise_limit(__rlimit_resource_t which, rlim_t wanted)
{
    struct rlimit limit;
    if (getrlimit(which, &limit) < 0 || (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur >= wanted))
        return;
    struct rlimit more = {wanted, limit.rlim_max == RLIM_INFINITY || limit.rlim_max > wanted ? limit.rlim_max : wanted};
    if (setrlimit(which, &more) == 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(which, &limit);
}

/* IO_FLUSHER: memory that we ask for must not be made by writing to ourselves. */
void spawn_protect(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "-1000", 5) < 0)
        log_debug("no protection from the OOM killer: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
        log_debug("PR_SET_IO_FLUSHER: %s", strerror(errno));
    raise_limit(RLIMIT_MEMLOCK, RLIM_INFINITY);
    raise_limit(RLIMIT_NOFILE, FILES_WANTED);
}

static void become(const struct program *program, char *const arguments[])
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execveat(program->fd, "", arguments, environ, AT_EMPTY_PATH);
    _exit(127);
}

static void put(int fd, int where)
{
    if (fd == where)
        fcntl(fd, F_SETFD, 0);
    else
        dup2(fd, where);
}

/* A core of 1 byte: none is written, nor piped to a program; dumping would prolong the pause before the next worker. */
static void become_worker(const struct program *program, int socket)
{
    static char *const arguments[] = {"svmfs-worker", "--worker", NULL};
    const struct rlimit no_core = {1, 1};
    setrlimit(RLIMIT_CORE, &no_core);
    put(socket, WORKER_SOCKET);
    become(program, arguments);
}

/* A crash test's SVMFS_DIE_AT is for the first worker alone: the next would die of it again. */
int spawn_worker(const struct program *program, pid_t *worker, int *out)
{
    int pair[2];
    *worker = 0;
    *out = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    pid_t child = fork();
    if (child == 0)
        become_worker(program, pair[1]);
    int error = child < 0 ? -errno : 0;
    close(pair[1]);
    if (error) {
        close(pair[0]);
        return error;
    }
    unsetenv("SVMFS_DIE_AT");
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    *worker = child;
    *out = pair[0];
    return 0;
}

static void become_question(const struct program *program, int session, const char *config, int answer)
{
    char option[64], *const arguments[] = {"svmfs", option, (char *)config, NULL};
    snprintf(option, sizeof(option), "--takes-session=%u", MESSAGE_VERSION);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    put(answer, STDOUT_FILENO);
    put(null, STDIN_FILENO);
    put(null, STDERR_FILENO);
    put(session, UPGRADE_SESSION);
    become(program, arguments);
}

int spawn_question(const struct program *program, int session, const char *config, pid_t *out, int *answer)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid_t child = fork();
    if (child == 0)
        become_question(program, session, config, ends[1]);
    int error = child < 0 ? -errno : 0;
    close(ends[1]);
    if (error) {
        close(ends[0]);
        return error;
    }
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    *out = child;
    *answer = ends[0];
    return 0;
}
