#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>
#include <unistd.h>

static struct {
    const char *name;
    bool to_syslog;
    enum log_level most;
} sink = {"svmfs", false, LOG_LEVEL_INFO};

void log_open(const char *name, bool to_syslog, enum log_level most)
{
    sink.name = name;
    sink.to_syslog = to_syslog;
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
        int prefix = snprintf(line, sizeof(line), "%s: ", sink.name);
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
