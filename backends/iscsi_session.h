/* session: what one reactor has of a LUN. It logs in when there is something to send, waits on the reactor's epoll set
 * and timers, and gives a link up that does not answer; then it logs in again, which ends what the target still had of
 * the link before, and sends again what was not answered. All calls on its reactor, but for wake. */
#pragma once

#include "backends/iscsi_link.h"
#include "backends/iscsi_sense.h"
#include "io/io.h"

struct lun_image;

/* One SCSI command, until it is answered for good. Embedded in its owner. */
struct lun_request {
    struct list link;
    struct lun_session *session;
    struct scsi_task *task; /* while in flight and in done */
    uint8_t cdb[16], cdb_size;
    bool change;  /* may change the LUN: it can become a ghost */
    bool urgent;  /* goes before all others and through a closed gate: the replay's, the probe */
    bool slow;    /* may take long */
    bool entered; /* counts as out in the cache */
    bool ghost;   /* was sent on a link that was given up */
    bool owed;    /* counts as owed in the cache */
    enum scsi_xfer_dir direction;
    uint32_t length;
    struct scsi_iovec *iov;
    int iov_count;
    uint64_t at;              /* sent; or, paused, when it is due */
    unsigned tries;           /* that ended in a pause */
    struct lun_answer answer; /* in quiet */
    void (*done)(struct lun_request *request, struct lun_answer answer);
};

enum lun_session_state {
    LUN_SESSION_DOWN,
    LUN_SESSION_RESOLVING,
    LUN_SESSION_LOGIN,
    LUN_SESSION_PREPARING, /* unit attentions, the reservation */
    LUN_SESSION_UP,
};

enum lun_register_step {
    LUN_REGISTER_LOOK,
    LUN_REGISTER_SET,
    LUN_REGISTER_LOOK_AGAIN,
    LUN_REGISTER_RESERVE,
    LUN_REGISTER_UNDO,
    LUN_REGISTER_END,
};

struct lun_session {
    struct lun_image *image;
    struct reactor *reactor; /* NULL once the reactor has ended; under the image's mutex */
    unsigned number;
    enum lun_session_state state;
    struct lun_link link;
    struct source in, out; /* out: a second descriptor, edge-triggered */
    struct batch_hook hook;
    struct timer timer;
    struct task wake, ending, closing, resolved;
    _Atomic bool woken;
    struct work resolving;
    struct lun_url url; /* where to log in next: the account's, or a redirection */
    char portal[LUN_PORTAL_SIZE];
    struct list own, urgent, waiting, sent, paused, ghosts, quiet; /* own: the probe; quiet: done, not told yet */
    uint32_t sent_count;
    uint64_t sent_bytes;
    uint64_t progress; /* when something was answered last */
    uint64_t since;    /* it is up */
    uint64_t retry;    /* DOWN: when to log in again */
    unsigned failures; /* logins in a row */
    bool hooked, broken, dropping, told;
    bool useful;          /* something was answered since the login */
    bool pinged;          /* a NOP-Out is on its way */
    const char *reason;   /* why it is broken; NULL: the connection was lost */
    bool closed, in_pool; /* under the image's mutex: nothing of it runs any more; its resolver does */
    bool closing_asked;   /* close when the resolver is back */
    struct lun_request probe;
    enum lun_register_step step;
    uint64_t registered; /* the key that this session's nexus has */
    struct scsi_iovec probe_iov;
    uint8_t probe_data[1024];
};

/* The session of the reactor that calls; makes it. NULL: no memory. */
struct lun_session *lun_session_here(struct lun_image *image);

/* Prepared by the caller: cdb, direction, length, iov, flags, done. done comes later, never from within. */
void lun_session_submit(struct lun_session *session, struct lun_request *request);

/* Any thread: look again at what there is to do. */
void lun_session_wake(struct lun_session *session);
void lun_session_wake_all(struct lun_image *image);

/* From the pool; nothing is in flight. Ends it and frees it. */
void lun_session_close(struct lun_session *session);
