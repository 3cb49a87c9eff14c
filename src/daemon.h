/* daemon: a command that returns when its child serves, and not before. */
#pragma once

#include "base/error.h"

/* The environment's word to the worker: where the log goes ("syslog", else stderr). */
#define DAEMON_LOG_ENVIRONMENT "SVMFS_LOG"

/* Splits the process. In the parent: waits until the child says that it serves, or ends; prints its sentence to stderr
 * and ends the process with 0 or 1: never returns. In the child: returns 0 with the descriptor to say it on, in a
 * session of its own, with stdin, stdout and stderr away from the terminal: the log goes to syslog, or, where there is
 * none, to the file "log" in the state directory. -errno with a sentence when it cannot. */
int daemon_begin(const char *state_directory, int *say, struct sentence *why);

/* In the foreground: the log goes to stderr. */
void daemon_foreground(void);

/* In the child: served (why NULL), or cannot be served. Closes say. */
void daemon_say(int say, const struct sentence *why);

/* Tells the service manager that started this process ($NOTIFY_SOCKET), if one did, that it serves. */
void daemon_notify(void);
