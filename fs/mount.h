/* mount: the kernel's side of a mount's life: mount(2), the answer to FUSE_INIT, clones of the descriptor, the end. */
#pragma once

#include <linux/fuse.h>
#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

struct fuse_mount {
    int fd;            /* the descriptor of mount(2); the clones' are the reactors' */
    const char *point; /* absolute */
    dev_t device;      /* of the filesystem: whether what is mounted there is still ours */
    struct fuse_init_in init_in;
    struct fuse_init_out init_out;
};

/* Mounts, reads FUSE_INIT and answers it. source: what /proc/mounts shows. options: comma separated; what is no flag of
 * mount(2) and no security context is left out. Everything is undone on failure. 0 or -errno with a sentence. */
int mount_open(
    struct fuse_mount *fuse, const char *source, const char *point, const char *options, struct sentence *why);

/* A further non-blocking descriptor of the mount, on which a reactor reads. -errno. */
int mount_clone(const struct fuse_mount *fuse);

/* Has the kernel closed the connection? One system call; never left waiting on: the kernel wakes whoever polls a
 * descriptor of the mount for each request. */
bool mount_is_gone(const struct fuse_mount *fuse);

/* umount as umount(8) does it, waiting for what is dirty; when files are open: written out and detached, -EBUSY. Needs
 * a worker that serves; may block. */
int mount_detach(const struct fuse_mount *fuse);

/* Ends it by force: nothing is waited for. For when nobody serves any more. */
void mount_abort(const struct fuse_mount *fuse);

/* The answer: of what the kernel offers (in) what svmfs wants. Pure. */
void mount_negotiate(const struct fuse_init_in *in, struct fuse_init_out *out);

/* Splits options into mount(2)'s flags and the data that goes on behind ours. Pure. 0 or -ENAMETOOLONG. */
int mount_options_parse(const char *options, unsigned long *flags, char *data, size_t size);

/* The device number of what was mounted last at this absolute path, without asking it. -ENOENT: nothing; -EINVAL: it is
 * no svmfs. */
int mount_find(const char *point, dev_t *device);
