/* program: a binary that workers are made of. Held open, so that what becomes of its name does not matter. */
#pragma once

#include <limits.h>
#include <sys/types.h>

struct program {
    int fd;              /* -1: none */
    char path[PATH_MAX]; /* for sentences */
};

#define PROGRAM_NONE ((struct program){.fd = -1})

/* The one that this process runs. 0 or -errno. */
int program_own(struct program *program);
/* Takes the descriptor. */
void program_take(struct program *program, int fd);
void program_close(struct program *program);
