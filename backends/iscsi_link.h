/* link: one iSCSI session with a target (RFC 7143), from the connection's first packet until it is given up. It never
 * reconnects by itself. Used by one thread at a time; the caller waits for events on its descriptor. */
#pragma once

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <stdbool.h>
#include <stdint.h>

#include "backends/iscsi_secret.h"
#include "backends/iscsi_url.h"
#include "io/datastore.h"

/* Who logs in where. Set once, then read by all links. */
struct lun_account {
    char name[DATASTORE_NAME_MAX + 1]; /* of the datastore, for sentences */
    struct lun_url url;
    char initiator[LUN_NAME_MAX + 1];
    char secret[LUN_SECRET_SIZE], mutual_secret[LUN_SECRET_SIZE]; /* empty: none */
    char mutual_user[256];
    const _Atomic bool *stopping; /* what blocks gives up when it is set */
    uint32_t isid;                /* 24 bits, the same for each login of this mount to this LUN */
};

enum lun_link_state { LUN_LINK_CLOSED, LUN_LINK_CONNECTING, LUN_LINK_LOGIN, LUN_LINK_UP, LUN_LINK_FAILED };

struct lun_link {
    const struct lun_account *account;
    struct iscsi_context *context;
    enum lun_link_state state;
    unsigned queued; /* messages and pieces of data, since the last push; told by who queues them */
    bool corked;
    int error;                      /* of FAILED: -errno */
    char text[256];                 /* of FAILED: what libiscsi says */
    char redirect[LUN_PORTAL_SIZE]; /* of FAILED: the target asks to log in there */
};

/* Fills account from the datastore's url (what follows "iscsi:"), options and identity. Reads files: blocks. 0 or
 * -errno with a sentence. */
int lun_account_init(
    struct lun_account *account, const struct datastore *datastore, const char *rest, struct sentence *why);
void lun_account_wipe(struct lun_account *account);

/* Starts to connect to a numeric portal and to log in. number tells the sessions of one mount on one LUN apart: two of
 * the same number are one session to the target, which ends the older one. Never blocks. False: state is FAILED. */
bool lun_link_open(struct lun_link *link, const struct lun_account *account, const char *portal, unsigned number);

/* Ends the connection; what is in flight is called back as cancelled. Not from within a callback. */
void lun_link_close(struct lun_link *link);

int lun_link_fd(const struct lun_link *link);
/* Takes poll(2) events; callbacks run from within. False: the link has failed. */
bool lun_link_service(struct lun_link *link, unsigned events);
/* Sends what is queued and can be sent. False: the link has failed. */
bool lun_link_push(struct lun_link *link);
/* There is something to send: POLLOUT is of interest. */
bool lun_link_blocked(const struct lun_link *link);

/* Why a link could not be had, as a sentence with what to do. Returns the -errno. */
int lun_link_explain(const struct lun_link *link, struct sentence *why);
