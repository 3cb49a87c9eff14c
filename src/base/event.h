/* Named events of the program, at which a crash test may let it die: SVMFS_DIE_AT=NAME:N in the environment ends the
 * process by _exit(99) at the N-th passing of NAME; NAME:N:stop stops it there (SIGSTOP); with NAME:N:hold the thread
 * that passes waits there for ever, and the others go on. Costs one load when unset.
 *
 * SVMFS_DIE_PAGE=FILE: the file is a struct event_page that a test maps, too, to choose the next death while the program
 * runs. Unlike SVMFS_DIE_AT it holds for every worker. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct event_page {
    char name[64];
    atomic_long left; /* dies at this many-th passing; 0: does not. Set it last. */
};

extern bool event_armed;

void event_passed(const char *name);

static inline void event(const char *name)
{
    if (__builtin_expect(event_armed, 0))
        event_passed(name);
}

/* A fatal signal at a certain place: SVMFS_CRASH_AT=NAME:NUMBER:SIGNAL raises SIGNAL (a number) in the thread that passes
 * NAME with that NUMBER. In every worker: what dies of it dies of it again. */
void event_passed_at(const char *name, uint64_t number);

static inline void event_at(const char *name, uint64_t number)
{
    if (__builtin_expect(event_armed, 0))
        event_passed_at(name, number);
}

/* Reads the environment; once, by main, before other threads exist. */
void event_arm(void);
