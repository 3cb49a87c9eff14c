/* owner: the record that says which mount uses a datastore, with a heartbeat. Two mounts on one datastore would each be
 * sure of its names, its free space and its sizes.
 *
 * The record is text of at most OWNER_RECORD bytes, lines "key value": svmfs-owner 1, host, machine, boot, mount (hex),
 * keeper (pid), mountpoint, beat (counts up), state (held | free). The owner writes it anew every OWNER_BEAT_NS with
 * the next beat. Who finds another's record that is held looks on: if it is of this machine and this boot and its
 * keeper is no process any more, or of this machine and an older boot, it is stale at once; else it is stale when its
 * beat has stood still for OWNER_STALE_NS of the looker's own clock (no clocks are compared). A live one is refused with
 * a sentence that names host, mountpoint and what to do (--takeover). */
#pragma once

#include "io/datastore.h"

#define OWNER_RECORD   512
#define OWNER_BEAT_NS  (2 * 1000000000ull)
#define OWNER_STALE_NS (5 * OWNER_BEAT_NS)

struct owner;

/* Where the record lies. Both block and are called from one thread at a time: the one in owner_claim, then the
 * heartbeat's. */
struct owner_place {
    /* text: OWNER_RECORD bytes of room. Length; 0 or -ENOENT: there is none; -errno. */
    ssize_t (*read)(void *argument, char *text);
    /* Durable when it returns. Length is at most OWNER_RECORD. */
    int (*write)(void *argument, const char *text, size_t length);
    /* The record says that somebody else has taken the datastore over: stop writing to it at once. From the heartbeat's
     * thread. */
    void (*lost)(void *argument, const char *sentence);
    void *argument;
};

/* 0: it is ours and the heart beats. -EBUSY with the sentence. A record of the same mount (an earlier worker) is ours
 * at once. Blocks for up to OWNER_STALE_NS + OWNER_BEAT_NS; stop (may be NULL) ends the waiting early with -EINTR.
 * A datastore whose identity.mount is 0 claims nothing: 0 and *out NULL. */
int owner_claim(struct owner **out, const struct datastore *datastore, const struct owner_place *place,
    const _Atomic bool *stop, struct sentence *why);

/* Ends the heartbeat; writes the record as free if it is still ours. Blocks. NULL is fine. */
void owner_release(struct owner *owner);

/* For tools that look without claiming. Pure. 0 or -EINVAL. */
int owner_describe(const char *text, size_t length, char *out, size_t size);
