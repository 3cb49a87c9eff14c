/* Named events of the program, at which a crash test may let it die: SVMFS_DIE_AT=NAME:N in the environment ends the
 * process by _exit(99) at the N-th passing of NAME; NAME:N:stop stops it there (SIGSTOP); with NAME:N:hold the thread
 * that passes waits there for ever, and the others go on. Costs one load when unset. */
#pragma once

#include <stdbool.h>

extern bool event_armed;

void event_passed(const char *name);

static inline void event(const char *name)
{
    if (__builtin_expect(event_armed, 0))
        event_passed(name);
}

/* Reads the environment; once, by main, before other threads exist. */
void event_arm(void);
