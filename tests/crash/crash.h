/* What the files of crash-kinds share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/event.h"
#include "tests/tools/history.h"

enum { MOST = 32, LARGEST = 64 << 10, PATIENCE_S = 90, MOST_EVENTS = 128 };

enum how { KILL, EVENT, ALL, DETACH, HOWS };
extern const char *const how_names[HOWS];

struct store {
    char name[32], kind[32];
    const char *folder; /* where its files can be looked at, or NULL */
};

struct world;

struct guest {
    struct world *world;
    unsigned disk;
    bool writer;
    unsigned random;
    pthread_t thread;
    uint8_t *buffer;
};

struct disk {
    char path[300];
    int fd;
    unsigned store, target;
    struct history *history;
    bool over; /* its job, in this round */
    bool kept; /* its old copy, on datastore `before` */
    unsigned before;
    bool undoing;
};

struct world {
    const char *mount, *start, *save;
    unsigned disks, stores, events, runs, think_us;
    uint64_t size;
    struct disk disk[MOST];
    struct store store[MOST];
    const char *event[MOST_EVENTS];
    struct event_page *page;
    unsigned seed, random;
    bool keeps;    /* some moves keep the old copy, and are undone */
    bool stubborn; /* goes on after something went wrong */
    atomic_bool halt, stop, tolerate;
    atomic_uint parked, guests;
    atomic_ulong wrong, errors, failed, writes, reads;
    enum how how; /* in this round */
    unsigned met, rounds, stale, turn, undone, deaths[HOWS], armed[MOST_EVENTS], died[MOST_EVENTS], pairs[MOST][MOST];
};

unsigned roll(unsigned *random, unsigned sides);
uint64_t now_ms(void);
/* Something was not as it must be. */
void fail(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Nothing can be tested. */
void give_up(const char *what);

/* options.c */
void parse(struct world *world, int argc, char **argv);

/* guests.c */
void make_disks(struct world *world);
void start_guests(struct world *world, struct guest *guests);
/* Returns when none has a request in flight; they go on when world->halt is false. */
void halt(struct world *world);
void end_guests(struct world *world, struct guest *guests);
/* Reads all of a disk. buffer: 1 MiB. */
void prove_all(struct world *world, unsigned disk, uint8_t *buffer);

/* rounds.c */
void one_round(struct world *world, uint8_t *buffer);
/* What is kept is removed. */
void release_all(struct world *world);

/* report.c */
void judge_and_save(struct world *world);
void print_counts(const struct world *world);
