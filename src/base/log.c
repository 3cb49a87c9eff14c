#include "base/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

static struct {
    const char *name;
    bool to_syslog, times;
    enum log_level most;
} sink = {"svmfs", false, false, LOG_LEVEL_INFO};

static bool is_log_file(int fd)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_APPEND) && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static int begin_line(char *line, size_t size)
{
    struct timespec now;
    struct tm when;
    char time[32];
    if (!sink.times)
        return snprintf(line, size, "%s: ", sink.name);
    clock_gettime(CLOCK_REALTIME, &now);
    strftime(time, sizeof(time), "%F %T", localtime_r(&now.tv_sec, &when));
    return snprintf(line, size, "%s.%03ld %s: ", time, now.tv_nsec / 1000000, sink.name);
}

void log_open(const char *name, bool to_syslog, enum log_level most)
{
    sink.name = name;
    sink.to_syslog = to_syslog;
    sink.times = !to_syslog && is_log_file(STDERR_FILENO);
    sink.most = most;
    if (to_syslog)
        openlog(name, LOG_PID, LOG_DAEMON);
}

void log_write(enum log_level level, const char *format, ...)
{
    static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
    if (level > sink.most)
        return;
    va_list arguments;
    va_start(arguments, format);
    if (sink.to_syslog) {
        vsyslog(priorities[level], format, arguments);
    } else {
        char line[1024];
        int prefix = begin_line(line, sizeof(line));
        int length = vsnprintf(line + prefix, sizeof(line) - (size_t)prefix - 1, format, arguments);
        size_t end = (size_t)prefix + (size_t)(length < 0 ? 0 : length);
        if (end > sizeof(line) - 2)
            end = sizeof(line) - 2;
        line[end] = '\n';
        ssize_t ignored = write(STDERR_FILENO, line, end + 1);
        (void)ignored;
    }
    va_end(arguments);
}
