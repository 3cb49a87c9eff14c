/* worker: the process that serves. Started by the keeper as `svmfs --worker` with a socket on descriptor 3, on which
 * the keeper sends the session's memfd, the /dev/fuse clones (one per reactor), the path of the configuration and the
 * mountpoint. */
#pragma once

#include "config.h"
#include "io/datastore.h"

/* Receives, maps, opens datastores, catalog and control, takes up what the last worker left, serves until the keeper
 * says stop or the mount is gone. Returns the process's exit status: 0 clean end, 1 cannot serve (the sentence went to
 * the keeper over the socket). backends: the visible array of main.c. */
int worker_serve(int socket, const struct datastore_ops *const *backends);
