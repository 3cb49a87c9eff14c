/* owner: the record that says which mount uses a datastore, with a heartbeat. Two mounts on one datastore would each be
 * sure of its names, its free space and its sizes.
 *
 * The record is text of OWNER_RECORD bytes, lines "key value", filled up with newlines: svmfs-owner 1, state (held |
 * free), mount (hex), beat (counts up), keeper and worker (process numbers), processes (which space of process numbers),
 * boot, machine, host, mountpoint. The owner writes it anew every OWNER_BEAT_NS with the next beat. What a looker thinks
 * of another's record that is held is owner_record.h's owner_judge: it is stale at once when it is of this kernel and
 * keeper and worker are no processes any more; after two beats when it is of an earlier boot of this machine (a copy of
 * the machine would still beat); else when it has stood still for OWNER_STALE_NS of the looker's own clock (no clocks
 * are compared). A live one is refused with a sentence that names host, mountpoint and what to do (--takeover).
 *
 * What it does not do: a mount whose storage or machine stood still for longer than OWNER_STALE_NS and was put aside
 * meanwhile learns of that with its next beat, and may write until then. Against that only storage that can tell mounts
 * apart helps (a reservation). */
#pragma once

#include "io/datastore.h"

#define OWNER_RECORD      512
#define OWNER_BEAT_NS     (2 * 1000000000ull)
#define OWNER_STALE_BEATS 5
#define OWNER_STALE_NS    (OWNER_STALE_BEATS * OWNER_BEAT_NS)

struct owner;

/* Where the record lies. All calls block and come from one thread at a time: the one in owner_claim, then the
 * heartbeat's. */
struct owner_place {
    /* text: OWNER_RECORD bytes of room. Length; 0 or -ENOENT: there is none; -errno. */
    ssize_t (*read)(void *argument, char *text);
    /* NULL: read does it. For a beat, of a record that is kept more than once: that which the beat writes over. What it says
     * counts only if it is that the record is ours. */
    ssize_t (*peek)(void *argument, char *text);
    /* Durable when it returns. Length is at most OWNER_RECORD. */
    int (*write)(void *argument, const char *text, size_t length);
    /* A beat; NULL: write does it. Called right after peek or read said that the record is ours; must not replace a record that
     * came after the one that was read (a file: written in place through the descriptor that was read from, which a
     * later claim, another file, does not see). Need not be durable, others must see it. */
    int (*beat)(void *argument, const char *text, size_t length);
    /* The record says that somebody else has taken the datastore over: stop writing to it at once. From the heartbeat's
     * thread, at most once. The sentence is logged already. */
    void (*lost)(void *argument, const char *sentence);
    void *argument;
    uint64_t beat_ns; /* 0: OWNER_BEAT_NS; all who use a datastore must agree (tests) */
};

/* 0: it is ours and the heart beats. -EBUSY with the sentence. A record of the same mount (an earlier worker) is ours
 * at once. Blocks for up to OWNER_STALE_NS + OWNER_BEAT_NS; stop (may be NULL) ends the waiting early with -EINTR.
 * A datastore whose identity.mount is 0 claims nothing: 0 and *out NULL. */
int owner_claim(struct owner **out, const struct datastore *datastore, const struct owner_place *place,
    const _Atomic bool *stop, struct sentence *why);

/* Ends the heartbeat; the record is free then if it was still ours. Blocks, for OWNER_RELEASE_NS at most: false: the
 * heart hangs in a call of the place, whose argument must stay as long as the process. NULL is fine: true. */
#define OWNER_RELEASE_NS (5 * 1000000000ull)
bool owner_release(struct owner *owner);

/* For tools that look without claiming. Pure. 0 or -EINVAL. */
int owner_describe(const char *text, size_t length, char *out, size_t size);
