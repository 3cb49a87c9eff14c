/* scrubs: the scrubs of a mount, at most one a disk; some at once, the others wait. Thread safe. */
#pragma once

#include "control/board.h"
#include "migrate/scrub.h"

struct scrubs;

/* The board notes the sentences of those that end with one. */
int scrubs_new(struct scrubs **out, const struct job_services *services, struct board *board, unsigned limit);
/* Cancels all, waits for the reads in flight, frees. NULL is fine. */
void scrubs_free(struct scrubs *scrubs);

/* -EALREADY: the disk has one that has not ended. */
int scrubs_add(struct scrubs *scrubs, uint64_t node);
/* -EINVAL: the disk has none under way. */
int scrubs_cancel(struct scrubs *scrubs, uint64_t node);
/* Something newer begins with the disk: its scrub ends, if there is one, and is not told of any more. Does not wait. */
void scrubs_forget(struct scrubs *scrubs, uint64_t node);
/* Calls with each disk that is told of; true: forget it. */
void scrubs_forget_if(struct scrubs *scrubs, bool (*is)(void *argument, uint64_t node), void *argument);
/* Of the one under way, or the last. -ENOENT: none. */
int scrubs_describe(struct scrubs *scrubs, uint64_t node, struct job_result *out);
