#include "fs/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

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

/* A core of 1 byte: none is written, nor piped to a program; dumping would prolong the pause before the next worker. */
static void become_worker(int socket)
{
    static char *const arguments[] = {"svmfs-worker", "--worker", NULL};
    const struct rlimit no_core = {1, 1};
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setrlimit(RLIMIT_CORE, &no_core);
    if (socket == WORKER_SOCKET)
        fcntl(socket, F_SETFD, 0);
    else
        dup2(socket, WORKER_SOCKET);
    execv("/proc/self/exe", arguments);
    _exit(127);
}

/* A crash test's SVMFS_DIE_AT is for the first worker alone: the next would die of it again. */
int spawn_worker(pid_t *worker, int *out)
{
    int pair[2];
    *worker = 0;
    *out = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    pid_t child = fork();
    if (child == 0)
        become_worker(pair[1]);
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
