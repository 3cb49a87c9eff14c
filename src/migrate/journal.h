/* journal: the durable memory of one job: which regions of its target count as copied, which of them are marked, and
 * where the target was ever written. docs/JOURNAL.md has the format to the byte.
 *
 * One append-only file for a job, STATE/jobs/ID.journal: a state, then marks, touches and epochs. Every record bears the
 * journal's key, a sequence number and a checksum. It ends at the first record that is none; a valid one behind it means
 * that the file is damaged, and then nothing of it counts.
 *
 * All functions block; one thread at a time for one journal. Errors are negative errno. */
#pragma once

#include <limits.h>

#include "base/bits.h"
#include "base/error.h"
#include "io/extent.h"

#define JOURNAL_TOUCH_REGIONS 256 /* a touch covers so many regions */

/* What a journal says. Numbers of regions, but touched: of groups of JOURNAL_TOUCH_REGIONS. */
struct journal_state {
    uint64_t key;           /* random, this journal's */
    uint64_t epoch;         /* the last that is durable */
    uint64_t regions;       /* none of the bits lies past them */
    char partial[PATH_MAX]; /* the image on the target that it speaks of */
    struct bits copied;     /* both legs were flushed when they agreed there */
    struct bits marked;     /* and may have differed since */
    struct bits touched;    /* the job may have written the target there (law 4) */
};

void journal_state_free(struct journal_state *state);

struct journal;
struct journal_files; /* where its bytes go: files of a directory, or a test's */

/* A directory as the place for journals: files are made there by name. Made if missing. faults: NULL, or a file of rules
 * for tests: see journal_files.h. 0 or -errno with a sentence. */
int journal_files_open(struct journal_files **out, const char *directory, const char *faults, struct sentence *why);
/* Another reference: who writes a journal may do so for longer than its mount is there. close gives one back. */
struct journal_files *journal_files_get(struct journal_files *files);
void journal_files_close(struct journal_files *files);

/* Replaces the job's journal by a new one that holds just this, durable on return: a file beside it, synced, renamed over
 * it, the directory synced. *out is open for what follows. */
int journal_create(struct journal **out, struct journal_files *files, uint64_t job, const struct journal_state *state);

/* Reads the job's journal. -ENOENT: none; -EBADMSG: damaged; -EPROTO: of a newer program. Writes nothing: what was read
 * counts only after journal_create has made it durable again (law 1's note). */
int journal_read(struct journal_files *files, uint64_t job, struct journal_state *out);

/* Append and make durable. A range is of regions (touch: of groups), half open. After an error the journal takes no more:
 * every later call returns -EIO. */
int journal_mark(struct journal *journal, const struct extent *ranges, size_t count);
int journal_touch(struct journal *journal, const struct extent *ranges, size_t count);

/* An epoch: from now on copied and marked are just state's sets (touched: all that is in state, too). The record holds the
 * differences of copied, which was before; where they are many, or the file has grown long, the whole journal is made
 * anew, with state's key. */
int journal_epoch(struct journal *journal, const struct bits *before, const struct journal_state *state);

/* Bytes of the file. */
uint64_t journal_length(const struct journal *journal);

void journal_close(struct journal *journal);
/* 0 also when there is none. Durable. */
int journal_remove(struct journal_files *files, uint64_t job);
/* Calls found with the numbers of the jobs that have one. 0 or -errno. */
int journal_list(struct journal_files *files, void (*found)(void *argument, uint64_t job), void *argument);
