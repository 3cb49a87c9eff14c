/* What the files of a history share. */
#pragma once

#include <pthread.h>
#include "history.h"
#include "linear.h"

#define UNKNOWN PATTERN_NONE
#define MIXTURE (UINT64_MAX - 1)
#define SEVERAL (UINT64_MAX - 2)

struct more {
    uint64_t counter, ended;
    struct more *next;
};

struct block {
    uint64_t counter, ended;
    union {
        struct more *more;
        uint8_t *image; /* when counter is MIXTURE */
    };
    struct more *old; /* answers that were written over, and when that ended; of a history that can lose power */
};

struct history {
    uint64_t base, length, seed;
    history_reader *reader;
    void *opaque;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t clock, counter;
    unsigned in_flight, quiet_wanted;
    bool quiet;
    unsigned reported;
    struct history_write *writes;
    struct history_read *reads;
    struct block *blocks;
    bool can_lose;
    uint64_t flushed;      /* what ended before this is durable */
    struct linear *linear; /* NULL: not recorded */
    uint64_t stride;       /* each so many blocks one is recorded */
};

void *history_must(void *memory);

/* history_power.c; with the mutex. */
void history_remember(struct history *history, struct block *block);
void history_forget_old(struct block *block);

/* history_record.c; with the mutex. */
void history_forget_record(struct history *history, uint64_t index);
void history_note_write(struct history *history, const struct history_write *write, uint64_t start, int error);
void history_note_read(struct history *history, const struct history_read *read, uint64_t start, uint64_t got);
