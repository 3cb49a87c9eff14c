#include "fs/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int program_own(struct program *program)
{
    *program = PROGRAM_NONE;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    program_take(program, fd);
    return 0;
}

void program_take(struct program *program, int fd)
{
    char name[64];
    program->fd = fd;
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, program->path, sizeof(program->path) - 1);
    program->path[length > 0 ? length : 0] = '\0';
}

void program_close(struct program *program)
{
    if (program->fd >= 0)
        close(program->fd);
    *program = PROGRAM_NONE;
}
