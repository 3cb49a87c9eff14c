/* request: a FUSE request while the worker has it; one per slot, in the worker's memory. Handlers (node.c, dir.c,
 * file.c, xattr.c) get it from the channel on its reactor and answer it once, now or later.
 *
 * Life: channel reads a slot → request_dispatch (verb table) → handler → request_reply* on its reactor → the slot is
 * DONE and the reply is written → request_release when nothing refers to its memory any more → FREE. request_reply*
 * releases by itself unless hold was taken. */
#pragma once

#include "fs/session.h"
#include "io/disk.h"

#include "catalog/names.h"

struct channel;
struct filesystem;

#define REQUEST_IOV (SLOT_CHUNKS + 2)

struct request {
    /* the channel's */
    struct list link; /* in the channel's list of active requests */
    struct channel *channel;
    struct slot *slot;
    unsigned slot_index;
    bool retry;              /* executed before, by a worker that died */
    bool answered;           /* a reply was written: the handler's, or the -EIO of a timeout */
    bool finished;           /* the handler has answered: released when holds is 0 */
    unsigned holds;          /* references beside the channel's; own reactor only */
    uint64_t started;        /* clock_now() */
    uint64_t timeout;        /* 0: none; else the channel answers -EIO when it is over, and what goes on is a ghost */
    int accounted;           /* datastore index whose budget it is counted on, -1: none */
    _Atomic int blocking;    /* request_block's call: enum request_call; one that has not begun when the time is over is
                                not made */
    struct list buffer_link; /* among those that wait for a buffer */
    size_t buffer_length;
    void (*buffer_again)(struct request *);

    const struct fuse_in_header *in;
    const void *body; /* what follows fuse_in_header; linear except for WRITE's data */
    size_t body_length;
    void *linear;                   /* heap copy of a body that does not fit its page, or NULL */
    struct iovec data[REQUEST_IOV]; /* WRITE: the payload; READ: the reply's buffer */
    int data_count;
    uint32_t borrowed[SLOT_CHUNKS]; /* chunks of a READ's buffer */
    unsigned borrowed_count;

    /* for handlers */
    struct filesystem *fs;
    struct disk_io disk_io;
    struct work work;                           /* a call that blocks, on a pool … */
    int (*call)(struct request *);              /* … this, returns 0 or -errno */
    void (*after)(struct request *, int error); /* … and this, on the reactor again */
    struct task task;
    struct node node; /* result of call */
    struct list waiting;
    struct disk *disk;
    uint64_t fh, aux[4];
    int call_error;
    void *out; /* heap, freed with the request */
    size_t out_length;
};

/* Answers. error: 0 or -errno; data may be NULL. Own reactor only, once; a second answer (a timeout came first) is
 * ignored. reply_bytes is for changes: kept in the slot (DONE) to be answered again, at most SLOT_REPLY_MAX. reply_iov
 * is for what changes nothing: only written, executed again after a death. */
void request_reply(struct request *request, int error);
void request_reply_bytes(struct request *request, const void *data, size_t length);
void request_reply_iov(struct request *request, const struct iovec *iov, int count, size_t length);

/* Law 12: the one place ENOSYS leaves through; asserts that the opcode is on the list, otherwise EOPNOTSUPP is sent. */
void request_reply_enosys(struct request *request);

/* FORGET and the like: no reply at all. */
void request_no_reply(struct request *request);

/* Keeps slot and memory beyond the answer; own reactor only. */
void request_hold(struct request *request);
void request_drop(struct request *request);

/* Counts the request on a datastore's budget and gives it that datastore's timeout. False: the datastore is stalled and
 * has its share of slots or chunks already (law 14): the handler answers -EIO at once. Before anything is sent to it.
 */
bool request_account(struct request *request, unsigned datastore) __attribute__((warn_unused_result));

/* Runs call on the pool, then after on the reactor; holds in between. Accounts the request; when its datastore is over
 * its budget, or the time is over before the call began, call is not made and after gets -EIO. */
void request_block(struct request *request, struct datastore *datastore, int (*call)(struct request *),
    void (*after)(struct request *, int error));

/* The same on the mount's own pool, for what touches several datastores. */
void request_block_control(
    struct request *request, int (*call)(struct request *), void (*after)(struct request *, int error));

/* Memory for a reply's data of length bytes (at most MAX_WRITE): request->data; the slot's own page or chunks of the
 * arena. False: none now; then again is called on the reactor when there is some, even when a timeout has answered
 * meanwhile: again calls request_buffer once more, gets it, and goes on as ever. */
bool request_buffer(struct request *request, size_t length, void (*again)(struct request *));

struct origin request_origin(const struct request *request);

/* The verb table's door: decides every opcode once. Implemented in fs/verbs.c, called by the channel. */
void request_dispatch(struct request *request);
