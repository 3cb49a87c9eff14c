/* transfer: one verb on one extent of a LUN, as the commands that the target's limits allow, several in flight. */
#pragma once

#include "backends/iscsi_image.h"

struct lun_transfer {
    struct lun_session *session;
    void (*done)(struct lun_transfer *transfer); /* on the session's reactor; result is set */
    const struct iovec *iov;
    struct extent extent;
    uint64_t next;  /* from there on nothing was sent yet */
    uint64_t stamp; /* of the cache when it began */
    int result;
    uint16_t iov_count, pieces;
    uint16_t owed; /* of its pieces: see the cache; until done was called */
    uint8_t verb;
    bool unmap, urgent, writes_zeroes;
    bool unkept; /* there was no memory for what a command of it changed (law 10) */
    bool data;   /* MAP's answer; the extent's end is set too */
};

/* Prepared by the caller: session, done, verb, extent, iov, unmap, urgent. extent lies within the LUN and is a multiple
 * of its block. */
void lun_transfer_start(struct lun_transfer *transfer);

/* On the session that has the duty: writes again what bears no newer stamp than the lost one, then opens the gate. */
void lun_replay_begin(struct lun_session *session);
