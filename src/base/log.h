/* The program's log: one line a message, to stderr in the foreground, to syslog as a daemon. In a file that is appended
 * to, each begins with the local time. Any thread; may block on the log's own device only for as long as write(2) to it
 * does. Secrets are never passed to it. */
#pragma once

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Called once by main before other threads exist. */
void log_open(const char *name, bool to_syslog, enum log_level most);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
