/* What a file may hold: the model that every read of verify-load is judged by. See history.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "linear.h"
#include "pattern.h"

enum history_kind { HISTORY_DATA, HISTORY_ZERO };

/* One write in flight. `offset` and `length` are bytes of the file and may be odd. */
struct history_write {
    uint64_t offset, length;
    uint64_t counter; /* 0 for zeroes */
    uint64_t began;
    bool alone; /* set by the caller: no other write may overlap (stores through a map mix with others byte by byte) */
    bool settling;
    struct history_write *next;
};

struct history_seen {
    uint64_t counter, offset, length;
};

struct history_choice {
    uint64_t block, counter;
};

/* One read in flight: what each block might hold when it began, and the writes it ran beside. */
struct history_read {
    uint64_t offset, length, began;
    uint64_t *before;
    struct history_choice *choices; /* blocks with more than one answer at the beginning */
    size_t choice_count, choice_room;
    struct history_seen *seen;
    size_t seen_count, seen_room;
    size_t room;
    struct history_read *next;
};

struct history;

/* Reads one aligned block of the file; 0 or a negative errno. */
typedef int history_reader(void *opaque, uint64_t offset, void *block);

struct history *history_new(uint64_t base, uint64_t length, uint64_t seed, bool unknown);
void history_free(struct history *history);
void history_set_reader(struct history *history, history_reader *reader, void *opaque);

int history_write_begin(struct history *history, struct history_write *write, enum history_kind kind, unsigned writer);
void history_fill(const struct history *history, const struct history_write *write, void *data);
void history_write_end(struct history *history, struct history_write *write, int error);

void history_read_begin(struct history *history, struct history_read *read);
/* Returns the number of wrong blocks; `*torn` tells that a block was caught in the middle of a write. */
unsigned history_read_end(struct history *history, struct history_read *read, const void *data, bool *torn);
void history_read_free(struct history_read *read);

/* Between these two no write is in flight. */
void history_quiet_begin(struct history *history);
void history_quiet_end(struct history *history);

uint64_t history_base(const struct history *history);
uint64_t history_length(const struct history *history);
uint64_t history_written(const struct history *history);

/* For a disk that may lose what was not flushed: before the first write. A flush is noted by its begin and, when it
 * succeeded, its end. After a loss each block holds what it held at the last flush, or what was written since. */
void history_can_lose(struct history *history);
uint64_t history_flush_begin(struct history *history);
void history_flush_end(struct history *history, uint64_t began);
void history_lose(struct history *history);

/* From now on a sample of the blocks is recorded for the judgement by linear.c; before the first read or write. */
void history_record(struct history *history);
struct linear_report history_linear(struct history *history);

int history_save(struct history *history, const char *path);
struct history *history_load(const char *path);
