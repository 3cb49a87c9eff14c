/* spawn: the processes' own circumstances: what protects them, and how a worker comes to be. */
#pragma once

#include <sys/types.h>

/* Keeper, before it mounts: what can be had of protection from the OOM killer and of limits; a worker inherits it. What
 * is not allowed is left. */
void spawn_protect(void);

/* Forks and executes this program as a worker, with one end of a socket pair on its descriptor 3. The other end, which
 * does not block, is *socket. 0 or -errno: then there is neither. */
int spawn_worker(pid_t *worker, int *socket);
