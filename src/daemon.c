#include "daemon.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/notify.h"

#define DEV_LOG      "/dev/log"
#define LOG_SIZE_MAX (1 << 20) /* at a start a larger log becomes log.old */

static int make_directories(const char *path)
{
    char part[PATH_MAX];
    if (snprintf(part, sizeof(part), "%s", path) >= (int)sizeof(part))
        return -ENAMETOOLONG;
    for (char *p = part + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -errno;
        *p = '/';
    }
    return mkdir(part, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int open_log_file(const char *state_directory)
{
    char path[PATH_MAX], old[PATH_MAX + 4];
    struct stat st;
    int error = make_directories(state_directory);
    if (error < 0)
        return error;
    if (snprintf(path, sizeof(path), "%s/log", state_directory) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    snprintf(old, sizeof(old), "%s.old", path);
    if (stat(path, &st) == 0 && st.st_size > LOG_SIZE_MAX)
        rename(path, old);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    return fd < 0 ? -errno : fd;
}

static int leave_terminal(const char *state_directory, struct sentence *why)
{
    bool has_syslog = access(DEV_LOG, W_OK) == 0;
    auto_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return refuse(why, -errno, "/dev/null: %s", error_text(errno));
    auto_close int file = has_syslog ? -1 : open_log_file(state_directory);
    if (!has_syslog && file < 0)
        return refuse(why, file, "state directory %s: %s", state_directory, error_text(file));
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(has_syslog ? null : file, STDERR_FILENO);
    setenv(DAEMON_LOG_ENVIRONMENT, has_syslog ? "syslog" : "stderr", 1);
    log_open("svmfs", has_syslog, LOG_LEVEL_INFO);
    return chdir("/") < 0 ? refuse(why, -errno, "/: %s", error_text(errno)) : 0;
}

/* The parent's part: one byte 0 is "served", anything else the sentence. */
static void wait_for_child(pid_t child, int from)
{
    char text[SENTENCE_MAX];
    size_t length = 0;
    ssize_t got;
    while (length < sizeof(text) - 1 &&
           ((got = read(from, text + length, sizeof(text) - 1 - length)) > 0 || (got < 0 && errno == EINTR)))
        length += got > 0 ? (size_t)got : 0;
    text[length] = '\0';
    if (length == 1 && text[0] == '\0')
        exit(0);
    if (length > 0) {
        fprintf(stderr, "svmfs: %s\n", text);
        exit(1);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status))
        fprintf(stderr, "svmfs: the keeper was ended by signal %d before the mount was served\n", WTERMSIG(status));
    else
        fprintf(stderr, "svmfs: the keeper ended with status %d before the mount was served\n", WEXITSTATUS(status));
    exit(1);
}

int daemon_begin(const char *state_directory, int *say, struct sentence *why)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return refuse(why, -errno, "pipe: %s", error_text(errno));
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        int error = -errno;
        close(ends[0]);
        close(ends[1]);
        return refuse(why, error, "fork: %s", error_text(error));
    }
    if (child > 0) {
        close(ends[1]);
        wait_for_child(child, ends[0]);
    }
    close(ends[0]);
    setsid();
    signal(SIGPIPE, SIG_IGN); /* the parent may have been interrupted */
    *say = ends[1];
    int error = leave_terminal(state_directory, why);
    if (error < 0) {
        daemon_say(ends[1], why);
        _exit(1);
    }
    return 0;
}

void daemon_foreground(void)
{
    signal(SIGPIPE, SIG_IGN);
    setenv(DAEMON_LOG_ENVIRONMENT, "stderr", 1);
    log_open("svmfs", false, LOG_LEVEL_INFO);
}

void daemon_say(int say, const struct sentence *why)
{
    const char *text = why ? why->text : "";
    size_t length = why ? strlen(text) : 1;
    ssize_t ignored = write(say, text, length);
    (void)ignored;
    close(say);
}

void daemon_notify(void)
{
    int error = notify_say("READY=1", NULL, 0);
    if (error)
        log_warning("the service manager could not be told that the mount is served: %s", error_text(error));
}
