/* keeper: the tiny process that mounts, holds every /dev/fuse descriptor and the session's memory, and starts workers,
 * one after the other. It answers FUSE_INIT itself and never serves a request. */
#pragma once

#include "base/error.h"
#include "config.h"
#include "fs/inherit.h"

struct keeper_options {
    const struct config *config;
    const char *mountpoint;      /* absolute, a directory */
    const char *mount_options;   /* for mount(2)'s data and flags: "ro,allow_other,…", checked by main */
    const char *config_argument; /* fsname in /proc/mounts */
    bool foreground;
    bool takeover;                         /* of datastores that others use */
    int config_fd;                         /* what config->file is, or -1: for the service manager's keeping */
    const struct inheritance *inheritance; /* goes on with this mount, whose keeper died; NULL: mounts */
};

/* Locks the state directory (a second mount of it: -EBUSY with a sentence that names the holder's pid), mounts, starts
 * the first worker, and calls ready(argument, 0, NULL) when the mount is served; serves until umount or SIGTERM, then
 * ends cleanly. When it cannot serve: ready is not called, the mount is undone, -errno with the sentence. Blocks; main
 * thread. */
int keeper_serve(
    const struct keeper_options *options, void (*ready)(void *argument), void *argument, struct sentence *why);
