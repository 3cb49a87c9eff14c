/* Rules of the fault backend, read from a file that may change at any time: what is to go wrong, where and how often.
 * One rule a line, "#" begins a comment:
 *
 *     VERB ACTION [key=value ...]
 *
 * VERB
 *   read write zero flush resize map allocate   I/O on images
 *   open                                        opening an image
 *   name                                        every other call of the datastore
 *   any                                         all of them
 *
 * ACTION
 *   fail     ends with errno, nothing is done
 *   enospc   as fail errno=ENOSPC
 *   delay    is done ms later
 *   hang     is held until the rule is gone from the file, then it goes on as if nothing had been
 *   corrupt  what is read or written has one byte changed, silently: at offset, else the first (others: no effect)
 *   late     ends with errno at once and is done ms later all the same: a ghost (reads and names: as fail)
 *   check    "any check": changes in flight on one image that overlap are logged and counted
 *
 * KEY
 *   errno=NAME   default EIO
 *   offset=N     only what touches byte N
 *   after=N      the first N matches go well
 *   count=N      at most N times
 *   ms=N         default 100; of fail: 0, I/O alone ends so much later
 *   path=TEXT    only where the image's path at its open, or the call's path, contains TEXT
 *
 * The first rule that applies acts. The file is looked at before each decision, and every 20 ms for what hangs; a rule
 * whose line stays keeps its counts. Replace the file by a rename, so that no half of it is ever read. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "io/io.h"

#define FAULT_POLL_NS 20000000ull

/* Verbs of I/O are their own points. */
enum fault_point { FAULT_OPEN = VERB_COUNT, FAULT_NAME, FAULT_POINTS };

enum fault_action { FAULT_NONE, FAULT_FAIL, FAULT_DELAY, FAULT_HANG, FAULT_LATE, FAULT_CHECK, FAULT_CORRUPT };

struct fault_rule;

struct fault_verdict {
    enum fault_action action;
    int error; /* -errno of FAIL and LATE */
    unsigned ms;
    uint64_t offset; /* of CORRUPT */
};

/* What hangs. go is called once, with the rules' mutex held, when it may go on. */
struct fault_waiting {
    struct list link;
    struct fault_rule *rule;
    void (*go)(struct fault_waiting *waiting);
};

struct fault_rules {
    char *file; /* NULL: no rules ever */
    pthread_mutex_t mutex;
    struct stat read; /* identity of what was read last */
    struct list rules, waiting;
    bool check;
};

/* 0 or -ENOMEM. */
int fault_rules_open(struct fault_rules *rules, const char *file);
/* What hangs still is forgotten: nobody is there any more to go on. */
void fault_rules_close(struct fault_rules *rules);

/* Any thread; costs one stat(2). extent: NULL where there is none. With FAULT_HANG, waiting is parked when it returns
 * (and may be let go before it returns). */
struct fault_verdict fault_decide(struct fault_rules *rules, unsigned point, const struct extent *extent,
    const char *path, struct fault_waiting *waiting);

/* Reads the file if it changed and lets go what hangs on a rule that is gone. */
void fault_rules_refresh(struct fault_rules *rules);

/* Is there an "any check" rule? Any thread; costs one stat(2). */
bool fault_checks(struct fault_rules *rules);
