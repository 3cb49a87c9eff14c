/* What the copier's two files share: copier.c sweeps, unit.c copies one region. */
#pragma once

#include <stdatomic.h>

#include "base/bits.h"
#include "base/clock.h"
#include "io/lost.h"
#include "migrate/copier.h"
#include "migrate/marks.h"
#include "migrate/pace.h"
#include "migrate/throttle.h"
#include "migrate/zeroes.h"

#define PAGE         ZEROES_PAGE
#define READ_TRIES   3
#define RETRY_DELAY  (200 * NS_PER_MS)
#define PROBE_PLACES 64
#define NOWHERE      UINT64_MAX
#define WATCH_PERIOD PACE_PERIOD_NS
#define STEADY_AFTER 3 /* periods */
/* While it is gentle: bytes of a request, units at a time, and with a latency. Where such a request takes so long all the
 * same, as on a disk that has to seek, it is not, for a time. */
#define PIECE          (128u << 10)
#define GENTLE_WINDOW  2
#define GENTLE_IN_ALL  4 /* of all jobs, on both legs' datastores; each has one at least */
#define LATENCY_WINDOW 1
#define PIECE_SLOW     (5 * NS_PER_MS)
#define COARSE_NS      (10 * NS_PER_S)

enum unit_state {
    UNIT_FREE,
    UNIT_LOCKING,
    UNIT_MAPPING,
    UNIT_READING,
    UNIT_RETRYING,
    UNIT_PROBING,
    UNIT_TOUCHING,
    UNIT_WRITING
};

struct unit {
    struct copier *copier;
    enum unit_state state;
    bool locked;
    struct extent extent;
    bool hole; /* the scout believes so */
    struct lock_request lock;
    struct log_request touch;
    struct task touched_task;
    uint64_t position; /* bytes of the buffer that are dealt with */
    uint64_t since;    /* when its io was sent */
    uint64_t locked_at;
    unsigned tries;
    bool noted;  /* as touched */
    bool narrow; /* page by page: looking for bad ones */
    int bad_error;
    struct lost lost;        /* pages of it that cannot be read */
    bool wrote;              /* it has data */
    uint64_t sound;          /* a page of data that could be read, or NOWHERE */
    struct extent probes[3]; /* to be asked for before bad ones are believed */
    unsigned probe_count;
    struct io io;
    struct iovec iov;
    uint8_t *buffer;
    struct timer timer;
};

struct run {
    struct extent extent;
    bool data;
};

struct copier {
    struct copier_options options;
    struct image *source;
    unsigned busy, references; /* reactor's thread; references: the job's, one a busy unit, the scout, the finisher */
    bool paused, stopped, finished, scouting, finishing, tail_locked;
    uint64_t cursor;         /* region */
    struct bits aside;       /* rescue: regions with bad pages, to be copied last */
    bool last;               /* it has come to those */
    uint64_t sound;          /* a region of data that could be read, or NOWHERE */
    uint8_t *probe;          /* a page that nobody looks at */
    struct run known, ahead; /* the run that units are made of, and the one after it */
    struct throttle throttle;
    struct pace pace;
    bool gentle;  /* the pace's, but where small requests cost too much */
    bool crowded; /* while it is: so many other copies are in flight that a small request's time says nothing */
    uint64_t piece_ns, coarse_until;
    unsigned periods;
    struct timer retry, watch;
    struct io scout, resize;
    struct lock_request tail;
    uint64_t resize_since;
    _Atomic uint64_t rate, copied, skipped, steady_at, steady;
    struct unit units[];
};

void copier_fill(struct copier *copier);
void copier_release(struct copier *copier);
/* A free unit takes the extent. */
void unit_start(struct unit *unit, struct extent extent, bool hole);
void unit_retry(struct timer *timer);
/* Lets go of its lock at once. */
void unit_stop(struct unit *unit);
