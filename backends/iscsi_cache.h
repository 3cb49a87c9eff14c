/* cache: what a target's write cache could lose (law 10), one for all sessions of a LUN. The stamp is the number of the
 * cache's life; a reset (unit attention 29h) begins the next one, and everything that was answered and not flushed is
 * written again before anything else is sent: the gate is closed from then on until the replay has ended.
 *
 * A change that was not answered on a link that was given up is owed: the target may have carried it out, and who has read its
 * bytes must not find older ones that the replay wrote over them. So after a replay what is owed goes first, and the gate stays
 * closed to all others until it is kept, too. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "backends/unflushed.h"
#include "io/io.h"

#define LUN_CACHE_BUDGET (64ull << 20)

struct lun_session;

struct lun_cache {
    struct unflushed *unflushed; /* NULL: the LUN has no write cache, nothing below matters */
    _Atomic uint64_t stamp;
    /* under mutex */
    pthread_mutex_t mutex;
    bool lost;                    /* the gate is closed */
    uint32_t out;                 /* changes that may still land, or have landed and are not kept yet */
    struct lun_session *replayer; /* whose duty the replay is, while lost */
    bool replaying;               /* it has begun */
    bool again;                   /* more was lost since */
    uint32_t owed;                /* changes of given-up links that are not answered yet */
    bool owing;                   /* a replay went over them */
    int failed;                   /* of the last replay: -errno; the next flush tells it */
    struct list held;             /* io.link: changes that a flush must follow before they are answered */
    uint64_t flushes;             /* forced flushes begun */
    bool flushing;
};

int lun_cache_init(struct lun_cache *cache, bool has_cache);
void lun_cache_destroy(struct lun_cache *cache);

/* May a request be sent now? change: it counts as out from now on, until leave. owed: it is one of those. */
bool lun_cache_enter(struct lun_cache *cache, bool change, bool owed);
/* A change is owed from now on, until it is paid. paid: true: the gate is open to all, all sessions are to be woken. */
void lun_cache_owe(struct lun_cache *cache);
bool lun_cache_paid(struct lun_cache *cache);
/* What entered cannot land any more, and is kept if it has. Returns the session to be woken, as its replay can begin, or NULL. */
struct lun_session *lun_cache_leave(struct lun_cache *cache);

/* A unit attention 29h was told to session. fresh: the stamp changes; else what bears older ones is written again. */
void lun_cache_lose(struct lun_cache *cache, struct lun_session *session, bool fresh);

/* Is it session's duty to write again what was lost? */
bool lun_cache_duty(struct lun_cache *cache, struct lun_session *session);
/* Can session begin its replay now? Once true, end is called later. */
bool lun_cache_begin(struct lun_cache *cache, struct lun_session *session);
/* The replay of all that did not bear stamp has ended. False: it has to be done once more; true: the gate is open, all
 * sessions are to be woken. */
bool lun_cache_end(struct lun_cache *cache, uint64_t stamp, int failed);
