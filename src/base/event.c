#include "base/event.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool event_armed;

static struct {
    char name[64];
    atomic_long left;
    bool stop, hold;
} crash;

static struct {
    char name[64];
    unsigned long long number;
    int signal;
} fatal;

static struct event_page *page;

static void map_page(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (map != MAP_FAILED) {
        page = map;
        event_armed = true;
    }
}

static void arm_fatal(void)
{
    const char *text = getenv("SVMFS_CRASH_AT");
    if (text && sscanf(text, "%63[^:]:%llu:%d", fatal.name, &fatal.number, &fatal.signal) == 3)
        event_armed = true;
}

void event_passed_at(const char *name, uint64_t number)
{
    if (fatal.signal && number == fatal.number && strcmp(name, fatal.name) == 0)
        raise(fatal.signal);
}

void event_arm(void)
{
    arm_fatal();
    if (getenv("SVMFS_DIE_PAGE"))
        map_page(getenv("SVMFS_DIE_PAGE"));
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
    if (page && atomic_load(&page->left) > 0 && strncmp(name, page->name, sizeof(page->name)) == 0 &&
        atomic_fetch_sub(&page->left, 1) == 1)
        _exit(99);
    if (strcmp(name, crash.name) != 0 || atomic_fetch_sub(&crash.left, 1) != 1)
        return;
    while (crash.hold)
        pause();
    if (crash.stop)
        raise(SIGSTOP);
    else
        _exit(99);
}
