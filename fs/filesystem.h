/* filesystem: what the handlers of all channels share: catalog, open disks, control surface, session. One per worker.
 */
#pragma once

#include "fs/channel.h"
#include "control/control.h"

struct filesystem {
    /* set at creation */
    struct catalog *catalog;
    struct control *control;
    struct session session;
    struct reactor *reactors[REACTORS_MAX];
    struct channel *channels[REACTORS_MAX];
    unsigned reactor_count;
    struct pool *pool;         /* calls that touch several datastores */
    struct open_files *files;  /* fs/open.c: disks by node id, with what is opening */
    struct handlers *handlers; /* fs/handlers.h: what else the handlers share */
    int notify_fd;             /* /dev/fuse, for notifications */
    int gone_fd;               /* eventfd: a channel found that the mount is gone; -1: nobody asks */
};
