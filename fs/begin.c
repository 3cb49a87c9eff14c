#include "fs/begin.h"

#include <stdio.h>

#include "base/log.h"
#include "fs/inherit.h"
#include "fs/keeper_state.h"

static int open_clones(struct keeper *keeper)
{
    const struct inheritance *inheritance = keeper->options->inheritance;
    for (; keeper->clone_count < keeper->session.head->reactors; keeper->clone_count++) {
        int fd = inheritance ? inheritance->clones[keeper->clone_count] : -1;
        if (fd < 0) {
            fd = mount_clone(&keeper->fuse);
            if (fd >= 0)
                inherit_leave_clone(fd, keeper->clone_count);
        }
        if (fd < 0)
            return refuse(
                keeper->why, fd, "%s: /dev/fuse cannot be cloned: %s", keeper->options->mountpoint, error_text(fd));
        keeper->clones[keeper->clone_count] = fd;
    }
    return 0;
}

int begin_anew(struct keeper *keeper)
{
    const struct keeper_options *options = keeper->options;
    int error = session_create(&keeper->session, options->config->reactors, options->config->buffers);
    if (error)
        return refuse(keeper->why, error, "memory for requests: %s", error_text(error));
    error = mount_open(
        &keeper->fuse, options->config_argument, options->mountpoint, options->mount_options, keeper->why);
    if (error)
        return error;
    struct session_head *head = keeper->session.head;
    head->init_in = keeper->fuse.init_in;
    head->init_out = keeper->fuse.init_out;
    head->device = keeper->fuse.device;
    snprintf(head->mountpoint, sizeof(head->mountpoint), "%s", options->mountpoint);
    atomic_store(&head->takeover, options->takeover);
    inherit_leave_fuse(keeper->fuse.fd);
    inherit_leave_session(keeper->session.fd);
    inherit_leave_lock(keeper->lock);
    if (options->config_fd >= 0)
        inherit_leave_config(options->config_fd);
    keeper->waits_for_mount = true;
    error = open_clones(keeper);
    if (error) {
        mount_abort(&keeper->fuse);
        inherit_forget();
    }
    return error;
}

/* The mount of a keeper that died. Nothing here may end it: its guests wait. */
int begin_again(struct keeper *keeper)
{
    const struct inheritance *inheritance = keeper->options->inheritance;
    int error = session_map_keeper(&keeper->session, inheritance->session);
    if (error)
        return refuse(keeper->why, error, "the session's memory: %s", error_text(error));
    struct session_head *head = keeper->session.head;
    keeper->fuse = (struct fuse_mount){.fd = inheritance->fuse,
        .point = keeper->options->mountpoint,
        .device = head->device,
        .init_in = head->init_in,
        .init_out = head->init_out};
    atomic_store(&head->stopping, 0);
    if (inheritance->program >= 0) {
        keeper->former = keeper->program;
        program_take(&keeper->program, inheritance->program);
    }
    log_warning("the keeper of %s died: this one goes on", keeper->options->mountpoint);
    keeper->ready(keeper->ready_argument);
    keeper->ready = NULL;
    return open_clones(keeper);
}
