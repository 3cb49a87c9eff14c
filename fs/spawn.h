/* spawn: the processes' own circumstances: what protects them, and how a worker comes to be. */
#pragma once

#include <sys/types.h>

#include "fs/program.h"

/* Keeper, before it mounts: what can be had of protection from the OOM killer and of limits; a worker inherits it. What
 * is not allowed is left. */
void spawn_protect(void);

/* Forks and executes the program as a worker, with one end of a socket pair on its descriptor 3. The other end, which
 * does not block, is *socket. 0 or -errno: then there is neither. */
int spawn_worker(const struct program *program, pid_t *worker, int *socket);

/* The same, to ask the program whether it can take the session and the configuration: what it prints comes out of
 * *answer, which does not block. */
int spawn_question(const struct program *program, int session, const char *config, pid_t *child, int *answer);
