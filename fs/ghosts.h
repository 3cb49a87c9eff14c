/* ghosts: writes that a dead worker may have sent and that may still land (law 6), found in the session's slots at a
 * worker's start, before its channels read anything new. */
#pragma once

#include "fs/session.h"
#include "io/disk.h"

struct ghosts;

int ghosts_find(struct ghosts **out, const struct session *session);
void ghosts_free(struct ghosts *ghosts);

/* Any thread. */
bool ghosts_any(struct ghosts *ghosts, uint64_t id);
/* The node's ghosts become locks of its new disk, before its first request. On a reactor's thread. */
void ghosts_give(struct ghosts *ghosts, uint64_t id, struct disk *disk);

/* What a request in a slot may still change of its node's bytes; empty: nothing. Pure. */
struct extent ghosts_extent(const struct fuse_in_header *in, const void *body);
