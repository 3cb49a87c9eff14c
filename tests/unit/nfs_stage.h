/* An NFS server in this process, that does what real ones do on their worst days: one file, "disk", below the root,
 * with what is cached and what is durable kept apart. It is told when to forget, to be silent, to answer late. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define STAGE_SIZE (80ull << 20)

struct stage {
    /* under mutex */
    pthread_mutex_t mutex;
    unsigned char *cached, *durable;
    uint64_t size;
    uint64_t verifier;
    unsigned writes, commits, connections; /* seen; connections: ever made */
    unsigned stable;                       /* how WRITEs are answered: UNSTABLE … FILE_SYNC */
    uint32_t most;                         /* bytes that a READ or WRITE takes, whatever it asks */
    unsigned jukebox;                      /* so many of the next WRITEs, COMMITs and SETATTRs are told to come later */
    int status;                            /* not 0: the next WRITE's */
    bool hold_writes;                      /* WRITEs are neither executed nor answered: they wait for stage_land */
    bool silent;                           /* nothing is answered */
    struct list held;
    bool cut, stop;
    /* set at start */
    uint32_t transfer; /* rtmax and wtmax */
    int port, listener, wake;
    pthread_t thread;
};

void stage_start(struct stage *stage);
void stage_stop(struct stage *stage);

/* What is not durable is forgotten, all connections end, and the next process has another verifier. */
void stage_crash(struct stage *stage);
/* All connections end; the process lives, with what it holds. */
void stage_cut(struct stage *stage);
/* The held WRITEs are executed now; nobody hears their answers. */
void stage_land(struct stage *stage);

unsigned stage_writes(struct stage *stage);
unsigned stage_commits(struct stage *stage);
