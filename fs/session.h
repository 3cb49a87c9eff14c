/* session: the memory that outlives a worker: a memfd that the keeper holds, mapped by keeper and worker (design, 6).
 *
 * Head, then handles, then per reactor a table of slots and an arena of chunks. Offsets only, no locks, no pointers; every
 * entry is published by one final 64-bit store. Only the worker's reactor thread i writes table i (handles: any reactor, by
 * compare-and-swap). A slot's life (law 9):
 *
 *   FREE      in.unique is 0
 *   READING   in.unique is 0 and the window's chunks are noted, then readv(2). The kernel's copy stores in.unique: from then
 *             on the request is in the slot, whoever looks. (Killed inside readv: the pages are populated and locked, so
 *             the copy ends.)
 *   READ      the reactor has looked at it; chunks that the request did not need went back
 *   DONE      result and the reply's bytes stand in the slot; stored before the reply is written to /dev/fuse
 *   ANSWERED  the reply was written; a ghost may still refer to the payload
 *
 * The next worker: READING with unique, READ: executed, as a retry once it had been begun; DONE: answered again (the kernel
 * says ENOENT if it had its answer); ANSWERED: freed. READ, READDIR, GETATTR and other requests that change nothing never
 * become DONE with a payload: they are executed again. attempts counts executions, crashes those that the worker died
 * of: with SLOT_CRASHES_MAX of them the request is answered with an error and never executed again. */
#pragma once

#include <limits.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "config.h"
#include "io/reactor.h"

#define SESSION_MAGIC 0x31736673666d7673ull /* "svmfsfs1" */
#ifndef SESSION_VERSION                     /* a test's program has another */
#define SESSION_VERSION 4
#endif

#define FUSE_PAGE      4096u
#define CHUNK_SIZE     65536u
#define MAX_WRITE      (1u << 20)
#define SLOT_CHUNKS    16u /* MAX_WRITE / CHUNK_SIZE; the payload page comes on top */
#define SLOT_HEADER    80u /* fuse_in_header + fuse_write_in: the payload of a WRITE starts on a page */
#define SLOT_REPLY_MAX 512u
#define SLOT_SIZE      (2 * FUSE_PAGE)

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_READ, SLOT_DONE, SLOT_ANSWERED };

/* Page one; the request's first SLOT_HEADER bytes end it, page two is the first FUSE_PAGE bytes of what follows. */
struct slot {
    _Atomic uint64_t state; /* enum slot_state; the final store */
    uint32_t attempts;
    uint32_t length; /* bytes read in all; from in.len after a death */
    int32_t error;   /* DONE: negative errno or 0 */
    uint32_t reply_length;
    uint32_t chunk_count;
    uint32_t chunks[SLOT_CHUNKS]; /* indexes into the reactor's arena */
    uint64_t note;                /* an operation's own (the handle that OPEN or CREATE took, plus 1) */
    _Atomic uint32_t crashes;     /* of workers, by a fatal signal in a thread that worked on this request */
    uint8_t reply[SLOT_REPLY_MAX];
};

_Static_assert(sizeof(struct slot) <= FUSE_PAGE - SLOT_HEADER, "a slot's record and header share a page");

/* An open file or directory; its index is fh. nodeid 0: free. */
struct session_handle {
    _Atomic uint64_t nodeid;
    uint32_t flags; /* of open(2) */
    uint32_t spare;
};

struct session_head {
    uint64_t magic;
    uint32_t version, head_size, slot_size, handle_size;
    uint32_t features;
    uint32_t reactors, slots, chunks; /* slots and chunks per reactor */
    uint32_t handles;
    uint64_t handles_offset, slots_offset, chunks_offset, size;
    struct fuse_init_in init_in;
    struct fuse_init_out init_out;
    uint64_t device; /* of the mount */
    char mountpoint[PATH_MAX];
    _Atomic uint64_t generation; /* workers started */
    _Atomic uint64_t stopping;   /* the keeper wants a clean end */
    _Atomic uint64_t heartbeat;  /* the worker's, clock_now(); stands still when a reactor does */
    _Atomic uint64_t takeover;   /* owners of datastores that are others are put aside by the mount's first */
    _Atomic uint64_t served;     /* a worker has served since the mount: the datastores were scanned */
    _Atomic uint64_t handle_hint, handle_top;  /* where a free handle may be; none was ever used from top on */
    _Atomic uint32_t slots_used[REACTORS_MAX]; /* no slot was ever used from there on: who looks at all slots stops here
                                                  (a look at a page that was never used would make one) */
    _Atomic uint64_t notes[CONFIG_DATASTORES_MAX][DATASTORE_NOTES]; /* what backends keep from worker to worker */
};

struct session {
    int fd;
    uint8_t *base;
    struct session_head *head;
};

/* Keeper: makes the memfd. Worker: maps what it was given; -EPROTO with magic, version or sizes that it cannot take. */
int session_create(struct session *session, unsigned reactors, uint64_t buffers_per_reactor);
int session_map(struct session *session, int fd);
/* The next keeper: the same, and what a worker may be doing to it just now is left alone. */
int session_map_keeper(struct session *session, int fd);
/* Can this program take the table? 0, or -EPROTO with a sentence. */
int session_accepts(int fd, struct sentence *why);
/* Worker, before it maps: the table is its own as long as it lives, even when its keeper does not. 0; -EBUSY. */
int session_own(int fd);
/* Keeper: the process that owns the table, 0: none. */
pid_t session_owner(int fd);
void session_unmap(struct session *session);
/* Keeper: forgets all but the head's page, so that locking the keeper's memory does not lock the buffers. */
void session_keep_head(struct session *session);

struct slot *session_slot(const struct session *session, unsigned reactor, unsigned index);
uint8_t *session_chunk(const struct session *session, unsigned reactor, unsigned index);
static inline struct fuse_in_header *slot_in(struct slot *slot)
{
    return (struct fuse_in_header *)((uint8_t *)slot + FUSE_PAGE - SLOT_HEADER);
}
static inline uint8_t *slot_payload(struct slot *slot)
{
    return (uint8_t *)slot + FUSE_PAGE;
}

/* Populates and locks pages before a read may use them. 0 or -errno. */
int session_populate(const struct session *session, void *start, size_t length);

/* Handles. -ENFILE when full. */
int64_t session_handle_open(const struct session *session, uint64_t nodeid, uint32_t flags);
void session_handle_close(const struct session *session, uint64_t fh);
struct session_handle *session_handle_get(const struct session *session, uint64_t fh);
/* How many handles the node has: counted over the table at a worker's start, kept in memory after. */
bool session_handle_any(const struct session *session, uint64_t nodeid);
