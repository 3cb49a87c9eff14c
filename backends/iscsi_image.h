/* What the parts of the iscsi backend share of one open LUN. */
#pragma once

#include <pthread.h>

#include "backends/fence.h"
#include "backends/iscsi_cache.h"
#include "backends/iscsi_lun.h"
#include "backends/iscsi_session.h"
#include "base/clock.h"
#include "io/raw.h"

/* Numbers of sessions are reactors' indexes; this one is the blocking one's. */
#define LUN_SESSION_TALK REACTORS_MAX

/* After the end of a session what a target's disk has in its hands is given so long. */
#define LUN_QUIET_NS (500 * NS_PER_MS)

struct lun_image {
    struct image image;
    /* set at open */
    struct lun_account account;
    struct lun lun; /* blocks: see image.size */
    uint64_t patience_ns;
    /* locked inside */
    struct fence fence;
    struct lun_cache cache;
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t closed;
    struct lun_session *sessions[REACTORS_MAX]; /* each is set and read by its reactor */
    /* atomic */
    _Atomic uint64_t key;    /* of the reservation; 0: there is none */
    _Atomic bool taken;      /* another has put ours aside */
    _Atomic bool no_same;    /* the target refused a WRITE SAME that it should have */
    _Atomic bool sync_short; /* it has SYNCHRONIZE CACHE (10) only */
    _Atomic bool looking;    /* for a new size */
    _Atomic bool missing;    /* the target says that it has no such LUN, or no medium in it; said once */
    bool writable;
    struct work look;
    pthread_mutex_t talking;   /* over the blocking session */
    struct lun_forced *forced; /* the flush that the budget asks for */
};

static inline struct lun_image *lun_image_of(struct image *image)
{
    return container_of(image, struct lun_image, image);
}

/* Blocking session: opened for a while. 0 or -errno with a sentence. */
int lun_image_talk(struct lun_image *image, struct lun_talk *talk, struct sentence *why);
void lun_image_hang_up(struct lun_image *image, struct lun_talk *talk);

/* The capacity may have changed: it is asked for on the pool. Any thread, never blocks. */
void lun_image_look(struct lun_image *image);

/* image_ops.submit */
void lun_image_submit(struct image *image, struct io *io);
int lun_forced_new(struct lun_image *image);

/* Our reservation is another's now: said once. Any thread. */
void lun_reserve_lost(struct lun_image *image);

/* raw_ops' */
int lun_reserve(struct image *image, uint64_t key, bool takeover, struct sentence *why);
void lun_release(struct image *image, uint64_t key);

/* The next command that makes session's nexus a registrant of the image's key, in session->probe; false: nothing more to
 * do. Before the first: session->step is LOOK. answered takes its answer. */
bool lun_register_next(struct lun_session *session);
void lun_register_answered(struct lun_session *session, struct lun_answer answer);
