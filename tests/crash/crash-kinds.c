/* crash-kinds: holds disks open on a mount, writes and proves every block, asks for moves between datastores of all
 * kinds, and lets svmfs die in the middle of them, again and again.
 *
 * In each round every disk is told to move to a datastore drawn at random, now and then with verify, or keeping its old copy
 * (--keep), to which it is told to go back in a later round. Then one of these happens:
 *
 *   kill      the worker is killed at a random instant; now and then the next one, too, while it takes over
 *   event     the worker ends at a named event of the journal or the switchover (SVMFS_DIE_PAGE, base/event.h)
 *   all       keeper and worker are killed; the mount is made again
 *   detach    umount -l while the disks are open and moving; they are closed, the mount ends and is made again
 *
 * and it must hold: the holder of a disk sees no error (but when all died), each read returns what was written last
 * (history.h; when all died, a volume may have lost what no flush was answered for), each job ends as done, the disk lives on its new datastore and nowhere else, no partial stays. At the end
 * the histories are judged for linearizability, and saved, so that what the datastores hold can be proven without svmfs.
 *
 * A run is a move that was not over when svmfs died. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crash.h"

unsigned roll(unsigned *random, unsigned sides)
{
    return (unsigned)rand_r(random) % sides;
}

uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void fail(struct world *world, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf("FAILED  round %u (%s): ", world->rounds, how_names[world->how]);
    vprintf(format, list);
    printf("\n");
    fflush(stdout);
    va_end(list);
    atomic_fetch_add(&world->failed, 1);
}

void give_up(const char *what)
{
    fprintf(stderr, "crash-kinds: %s: %s\n", what, strerror(errno));
    exit(2);
}

int main(int argc, char **argv)
{
    static struct world world = {.disks = 4, .runs = 100, .size = 16 << 20, .think_us = 1000, .seed = 1};
    struct guest guests[MOST * 2];
    uint8_t *buffer = aligned_alloc(4096, 1 << 20);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    parse(&world, argc, argv);
    world.random = world.seed;
    make_disks(&world);
    start_guests(&world, guests);
    while (world.met < world.runs && (world.stubborn || atomic_load(&world.failed) == 0))
        one_round(&world, buffer);
    release_all(&world);
    halt(&world);
    for (unsigned i = 0; i < world.disks; i++)
        prove_all(&world, i, buffer);
    end_guests(&world, guests);
    judge_and_save(&world);
    print_counts(&world);
    free(buffer);
    return atomic_load(&world.failed) == 0 && atomic_load(&world.wrong) == 0 && atomic_load(&world.errors) == 0 ? 0 : 1;
}
