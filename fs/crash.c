/* The handler stores one number into the session's memory and lets the signal do what it does without us. What came
 * from another process (kill -SEGV) says nothing about a request, nor does a thread that works for none. */
#include "fs/crash.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

#include "base/behalf.h"
#include "fs/slots.h"

static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
#define FATAL_COUNT (sizeof(fatal) / sizeof(fatal[0]))

static struct sigaction before[FATAL_COUNT];

static void count(void)
{
    struct slot *slot = behalf_now.place;
    if (slot && ((volatile struct fuse_in_header *)slot_in(slot))->unique == behalf_now.number)
        atomic_fetch_add(&slot->crashes, 1);
}

/* Blocked while it is handled, the signal that is raised here comes when this returns. A handler of before (a
 * sanitizer's) gets the fault itself again. */
static void crashed(int number, siginfo_t *info, void *context)
{
    bool from_outside = info->si_code <= 0 && info->si_pid != getpid();
    if (!from_outside)
        count();
    bool other_handler = false;
    for (size_t i = 0; i < FATAL_COUNT; i++) {
        if (fatal[i] == number)
            other_handler = before[i].sa_handler != SIG_DFL && before[i].sa_handler != SIG_IGN;
        sigaction(fatal[i], &before[i], NULL);
    }
    if (!other_handler)
        signal(number, SIG_DFL);
    if (!other_handler || info->si_code <= 0)
        raise(number);
}

void crash_arm(void)
{
    struct sigaction action = {.sa_sigaction = crashed, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < FATAL_COUNT; i++)
        sigaction(fatal[i], &action, &before[i]);
}
