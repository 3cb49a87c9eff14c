/* The manager is told not to poll what it keeps (FDPOLL=0): the kernel would wake it for each request of the mount. So
 * it does not notice the mount's end by itself: it is told to forget, and what it hands over is looked at. */
#include "fs/inherit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/notify.h"
#include "fs/mount.h"

#define FIRST_DESCRIPTOR 3
#define NAME_FUSE        "svmfs-fuse"
#define NAME_CLONE       "svmfs-clone-"
#define NAME_SESSION     "svmfs-session"
#define NAME_LOCK        "svmfs-lock"
#define NAME_CONFIG      "svmfs-config"
#define NAME_PROGRAM     "svmfs-program"

static void forget(const char *name)
{
    char text[128];
    snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
    notify_say(text, NULL, 0);
}

static void leave(int fd, const char *name)
{
    char text[128];
    snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
    int error = notify_say(text, &fd, 1);
    if (error)
        log_warning("the service manager cannot keep the mount's descriptors: %s", error_text(error));
}

void inherit_leave_fuse(int fd)
{
    leave(fd, NAME_FUSE);
}

void inherit_leave_clone(int fd, unsigned reactor)
{
    char name[32];
    snprintf(name, sizeof(name), NAME_CLONE "%u", reactor);
    leave(fd, name);
}

void inherit_leave_session(int fd)
{
    leave(fd, NAME_SESSION);
}

void inherit_leave_lock(int fd)
{
    leave(fd, NAME_LOCK);
}

void inherit_leave_config(int fd)
{
    leave(fd, NAME_CONFIG);
}

void inherit_leave_program(int fd)
{
    forget(NAME_PROGRAM);
    leave(fd, NAME_PROGRAM);
}

void inherit_forget(void)
{
    static const char *const names[] = {NAME_FUSE, NAME_SESSION, NAME_LOCK, NAME_CONFIG, NAME_PROGRAM};
    if (!getenv("NOTIFY_SOCKET"))
        return;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        forget(names[i]);
    for (unsigned i = 0; i < REACTORS_MAX; i++) {
        char name[32];
        snprintf(name, sizeof(name), NAME_CLONE "%u", i);
        forget(name);
    }
}

static int *place_of(struct inheritance *inheritance, const char *name)
{
    unsigned reactor;
    if (strcmp(name, NAME_FUSE) == 0)
        return &inheritance->fuse;
    if (strcmp(name, NAME_SESSION) == 0)
        return &inheritance->session;
    if (strcmp(name, NAME_LOCK) == 0)
        return &inheritance->lock;
    if (strcmp(name, NAME_CONFIG) == 0)
        return &inheritance->config;
    if (strcmp(name, NAME_PROGRAM) == 0)
        return &inheritance->program;
    if (sscanf(name, NAME_CLONE "%u", &reactor) == 1 && reactor < REACTORS_MAX)
        return &inheritance->clones[reactor];
    return NULL;
}

static void drop(struct inheritance *inheritance)
{
    int *const all[] = {
        &inheritance->fuse, &inheritance->session, &inheritance->lock, &inheritance->config, &inheritance->program};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (*all[i] >= 0)
            close(*all[i]);
        *all[i] = -1;
    }
    for (unsigned i = 0; i < REACTORS_MAX; i++) {
        if (inheritance->clones[i] >= 0)
            close(inheritance->clones[i]);
        inheritance->clones[i] = -1;
    }
}

/* Names and descriptors are in the same order. */
static void sort(struct inheritance *inheritance, unsigned count, char *names)
{
    char *rest = names;
    for (unsigned i = 0; i < count; i++) {
        int fd = FIRST_DESCRIPTOR + (int)i;
        char *name = strsep(&rest, ":");
        int *place = name ? place_of(inheritance, name) : NULL;
        fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (place && *place < 0)
            *place = fd;
        else if (place)
            close(fd);
    }
}

int inherit_take(struct inheritance *inheritance, struct sentence *why)
{
    const char *process = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"), *given = getenv("LISTEN_FDNAMES");
    memset(inheritance, -1, sizeof(*inheritance));
    if (process && count && given && strtol(process, NULL, 10) == getpid()) {
        char *names = strdup(given);
        if (!names)
            return refuse(why, -ENOMEM, "no memory");
        sort(inheritance, (unsigned)strtoul(count, NULL, 10), names);
        free(names);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    if (inheritance->fuse < 0)
        return 0;
    struct fuse_mount fuse = {.fd = inheritance->fuse};
    if (mount_is_gone(&fuse)) {
        drop(inheritance);
        inherit_forget();
        return 0;
    }
    if (inheritance->session < 0 || inheritance->config < 0)
        return refuse(why, -EPROTO,
            "the service manager kept a mount, but not all that belongs to it: umount -l it and "
            "start again");
    return session_accepts(inheritance->session, why) < 0 ? -EPROTO : 1;
}

int inherit_mountpoint(const struct inheritance *inheritance, char mountpoint[PATH_MAX], struct sentence *why)
{
    struct session session;
    int error = session_map_keeper(&session, inheritance->session);
    if (error)
        return refuse(why, error, "the session's memory: %s", error_text(error));
    snprintf(mountpoint, PATH_MAX, "%.*s", PATH_MAX - 1, session.head->mountpoint);
    session_unmap(&session);
    return 0;
}
