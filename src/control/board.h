/* board: the jobs of a mount, at most one a disk that has not ended, and the last sentence for each disk. Starts queued
 * jobs as the limit allows. Thread safe. */
#pragma once

#include "migrate/job.h"

struct board;

/* No job starts before board_open. */
int board_new(struct board **out, unsigned limit);
void board_open(struct board *board);
/* All that a dead worker left is taken up: their journals are looked after until they start. */
void board_watch(struct board *board);
/* Suspends all, waits, frees. */
void board_free(struct board *board);

/* Takes the job over and starts it now or later. -EALREADY: the disk has one that has not ended (the job stays the
 * caller's). */
int board_add(struct board *board, struct job *job);
/* services.resting: the job is not one of those that run any more. */
void board_resting(void *board, struct job *job);
/* services.ended of every job; its argument is the board. */
void board_ended(void *board, struct job *job);

/* Calls use(argument, job) with the disk's last job, its own or as a member of its directory's, while it cannot go away;
 * -ENOENT when there is none. */
int board_with(struct board *board, uint64_t node, int (*use)(void *argument, struct job *job), void *argument);
/* Is a job of the disk under way? */
bool board_busy(struct board *board, uint64_t node);

/* The last refusal of a disk; an empty text forgets it. -ENOENT: none. */
void board_note(struct board *board, uint64_t node, const struct sentence *sentence);
int board_noted(struct board *board, uint64_t node, struct sentence *out);
