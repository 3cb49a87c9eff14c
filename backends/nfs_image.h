/* nfs_image: what the parts of an image on NFS share: its requests (nfs_image.c) and its flushes (nfs_flush.c). */
#pragma once

#include "backends/fence.h"
#include "backends/nfs.h"
#include "backends/unflushed.h"
#include "io/image.h"
#include "io/lock.h"

#define NFS_UNFLUSHED_BUDGET (64ull << 20) /* of an image */

struct nfsds_image;

/* The one flush of an image that runs. Those who ask while it runs are served by the next. */
struct nfsds_flush {
    /* under the image's mutex */
    bool running, wanted;
    struct list waiting; /* ios; for the next */
    struct list parked;  /* requests over the budget; until it has room again */
    /* the running one's, on its reactor */
    struct list served;
    struct reactor *reactor;
    struct nfsds_call call;
    union {
        struct COMMIT3args commit;
        struct WRITE3args write;
    } arguments;
    struct timer timer;
    uint64_t mark, stamp, offset;
    unsigned rounds, refusals;
    bool inherited_lost;
    struct nfsds_rewrite *rewrite; /* what is being written again */
};

struct nfsds_image {
    struct image image;
    struct nfs *nfs;
    struct nfsds_handle handle;
    bool writable;
    struct fence fence;
    struct region_lock lock; /* each change holds its extent until no ghost of it is left */
    struct unflushed *unflushed;
    struct nfsds_uncommitted uncommitted;
    struct nfsds_flush flush;
    struct task recommit;
    /* under nfs->mutex */
    struct list link;
    bool closing;
    char removed[48]; /* its name in the private directory, when its own is gone */
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t idle;
    unsigned busy; /* requests, holds, fences and flushes that will touch the image */
    bool recommit_posted;
};

/* One change or read of an image. Outlives its io while a ghost is feared. */
struct nfsds_request {
    struct nfsds_image *image;
    struct io *io;
    struct lock_request lock;
    struct nfsds_hold hold;
    struct list link; /* parked */
    struct task task;
    struct reactor *reactor;
    unsigned epoch, pending;
    int error;
    uint64_t quiet_until; /* 0: no ghost is feared */
    unsigned count;
    struct nfsds_piece {
        struct nfsds_call call;
        struct nfsds_request *request;
        struct timer timer;
        struct extent extent; /* what of it is still to do */
        uint64_t first_sent;
        union {
            struct READ3args read;
            struct WRITE3args write;
            struct SETATTR3args resize;
        } arguments;
        bool stable;
        unsigned refusals;
    } pieces[];
};

/* Keep and let go of the image. Any thread. */
void nfsds_image_enter(struct nfsds_image *image);
void nfsds_image_leave(struct nfsds_image *image);

/* The write verifier of an answer; what a new one means is seen to. */
uint64_t nfsds_image_verifier(struct nfsds_image *image, const struct nfsds_call *call, const char *verifier);

/* How long a change that was answered must still be feared: until when, or 0. stamp: the verifier of its answer, or 0. */
uint64_t nfsds_ghost_until(const struct nfs *nfs, const struct nfsds_call *call, uint64_t stamp);

/* For an answer that says "later": the delay before the n-th asking. 0: it has been asked often enough. */
uint64_t nfsds_refusal_delay(const struct nfs *nfs, int status, unsigned refusals);

/* The parked request's io ends with result. On any thread. */
void nfsds_request_unpark(struct nfsds_request *request, int result);

extern const struct image_ops nfsds_image_ops;
/* nfs_open.c */
void nfsds_image_close(struct image *image);

/* nfs_flush.c */
void nfsds_flush_init(struct nfsds_image *image);
/* io is a FLUSH; from its reactor. */
void nfsds_flush_io(struct nfsds_image *image, struct io *io);
/* The request waits until there is room in the budget; from its reactor. */
void nfsds_flush_park(struct nfsds_image *image, struct nfsds_request *request);
/* One more, after that which runs; from a reactor. */
void nfsds_flush_kick(struct nfsds_image *image);
/* One if none runs; from a reactor. */
void nfsds_flush_ahead(struct nfsds_image *image);
