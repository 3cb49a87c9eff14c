#include "base/event.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool event_armed;

static struct {
    char name[64];
    atomic_long left;
    bool stop, hold;
} crash;

void event_arm(void)
{
    const char *text = getenv("SVMFS_DIE_AT");
    char how[8] = "";
    long count = 1;
    if (!text || sscanf(text, "%63[^:]:%ld:%7s", crash.name, &count, how) < 1)
        return;
    crash.stop = strcmp(how, "stop") == 0;
    crash.hold = strcmp(how, "hold") == 0;
    atomic_store(&crash.left, count);
    event_armed = true;
}

void event_passed(const char *name)
{
    if (strcmp(name, crash.name) != 0 || atomic_fetch_sub(&crash.left, 1) != 1)
        return;
    while (crash.hold)
        pause();
    if (crash.stop)
        raise(SIGSTOP);
    else
        _exit(99);
}
