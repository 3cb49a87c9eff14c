/* scrub: reads one disk whole, as a guest would, beside the guest, and tells which ranges cannot be read. It changes
 * nothing. Runs on a thread of its own, as a job does, but has no record: a worker's death ends it. */
#pragma once

#include "migrate/job.h"

enum scrub_state {
    SCRUB_QUEUED,
    SCRUB_VERIFYING,
    SCRUB_VERIFIED,  /* read to its end, whatever was found */
    SCRUB_CANCELLED, /* asked for */
    SCRUB_FAILED,    /* the disk cannot be opened, or its datastore does not answer */
};

struct scrub;

/* Of the services it uses catalog, reactors and open_disk. ended: on the scrub's thread, its last act. 0 or -ENOMEM. */
int scrub_new(struct scrub **out, const struct job_services *services, uint64_t node,
    void (*ended)(void *argument, struct scrub *scrub), void *argument);
/* 0 or -errno. */
int scrub_start(struct scrub *scrub);
/* Waits for the thread, if any. One caller at a time. */
void scrub_join(struct scrub *scrub);
/* The same, and frees. NULL is fine. */
void scrub_free(struct scrub *scrub);

/* Any thread, never block. */
uint64_t scrub_node(const struct scrub *scrub);
enum scrub_state scrub_state(struct scrub *scrub);
/* It ends at its next read. silent: it stores no result, because something newer will. */
void scrub_cancel(struct scrub *scrub, bool silent);
/* The progress line, and the sentence: what cannot be read, or why it failed ("" if nothing). */
void scrub_describe(struct scrub *scrub, struct job_result *out);
