/* inherit: a keeper's descriptors in the service manager's keeping (systemd's fd store): what the next keeper goes on
 * with when this one is killed. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "fs/session.h"

/* -1: not there. */
struct inheritance {
    int fuse, session, lock, config, program;
    int clones[REACTORS_MAX];
};

/* What this process was started with ($LISTEN_FDS), in its environment only once. 1: a mount that lives; 0: nothing, or
 * one that is gone: the manager was told to forget it; -errno with a sentence: a mount that this program cannot go on
 * with. Before other descriptors are opened and other threads exist. */
int inherit_take(struct inheritance *inheritance, struct sentence *why);

/* Where it is mounted, by the session. 0 or -errno with a sentence. */
int inherit_mountpoint(const struct inheritance *inheritance, char mountpoint[PATH_MAX], struct sentence *why);

/* To the manager, if there is one that keeps descriptors. Clones by their reactor. */
void inherit_leave_fuse(int fd);
void inherit_leave_clone(int fd, unsigned reactor);
void inherit_leave_session(int fd);
void inherit_leave_lock(int fd);
void inherit_leave_config(int fd);
/* In the place of the one before. */
void inherit_leave_program(int fd);

/* The mount is at its end: the manager closes all of it. */
void inherit_forget(void);
