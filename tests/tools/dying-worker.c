/* A worker that cannot serve: a program with it takes every session, and dies at its start, or, with HANGS, never gets
 * further. For upgrade.sh. */
#include <unistd.h>

#include "fs/worker.h"

int worker_serve(int socket, const struct datastore_ops *const *backends)
{
#ifdef HANGS
    for (;;)
        pause();
#endif
    return 3;
}
