/* The inside of marks, for marks.c and marks_writer.c. */
#pragma once

#include <pthread.h>

#include "migrate/marks.h"

#define TOUCH_GROUP(region) ((region) / JOURNAL_TOUCH_REGIONS)

struct marks {
    struct disk_log log;
    /* set at creation */
    struct journal_files *files;
    uint64_t job;
    /* the writing thread's, or before it starts */
    struct journal *journal;
    struct journal_state
        state; /* copied, marked and touched: changed under mutex; regions: the journal's, not the disk's */
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t work, changed;
    struct bits pending, used;
    struct list waiting;
    unsigned parity;
    uint64_t in_flight[2];
    struct mirror *epoch; /* of the epoch that is to be written */
    int epoch_result;
    bool threaded, logging, voided, failed, blocked, ending, news;
    uint64_t writing_since;
    uint64_t group, ahead, ahead_at, second, second_syncs;
    struct marks_figures figures;
};

static inline struct extent marks_regions(struct extent extent)
{
    return (struct extent){extent.start / REGION_SIZE, (extent.end + REGION_SIZE - 1) / REGION_SIZE};
}

/* All under mutex. The first region of the extent that has to be marked; end: none. */
uint64_t marks_next_unmarked(const struct marks *marks, uint64_t from, uint64_t end);
/* Does the request wait for nothing (any more)? */
bool marks_satisfied(const struct marks *marks, const struct log_request *request);
/* Who waits for nothing any more goes on. */
void marks_let_go(struct marks *marks);
/* The thread that writes the journal, once. 0 or -errno. */
int marks_start_writer(struct marks *marks);
