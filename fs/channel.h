/* channel: one /dev/fuse descriptor on one reactor: reads requests into slots, hands them to request_dispatch, writes
 * the replies, keeps the slots' states, the arena of chunks and each datastore's budget (law 14). */
#pragma once

#include "fs/request.h"

/* On the reactor's thread. Takes up what a dead worker left in the slots first (law 9), then reads. 0 or -errno. */
int channel_open(struct channel **out, struct filesystem *fs, struct reactor *reactor, const struct session *session,
    unsigned index, int fd);

/* Stops reading; requests in flight go on. On the reactor's thread. */
void channel_stop(struct channel *channel);

/* Requests that are not released yet. Any thread. */
unsigned channel_active(const struct channel *channel);

/* The kernel has closed the connection: nothing comes any more. Any thread. */
bool channel_gone(const struct channel *channel);

/* After the reactor has ended or channel_active is 0. */
void channel_free(struct channel *channel);
