/* inside: an open volume, as its parts share it.
 *
 * One mutex is over the tree, the space and what is not durable; it is held for look-ups and changes in memory, never
 * over I/O. The committer and the releaser (commit.c, release.c) are machines that run on the carrier's reactor. */
#pragma once

#include <pthread.h>

#include "backends/volume/carrier.h"
#include "backends/volume/records.h"
#include "backends/volume/space.h"
#include "backends/volume/volume.h"

/* Who wants what is now in memory to be durable. */
struct waiter {
    struct list link;
    void (*done)(struct waiter *waiter, int result); /* on the carrier's reactor, once */
    bool durable;                                    /* else it is enough that it outlives this process */
};

/* What is being written of a checkpoint. */
struct checkpoint {
    bool active;
    bool alone; /* its commit is not in the journal: who waits for the commit waits for it */
    unsigned phase;
    struct page *pages;
    struct page *anchor_page;
    struct anchor anchor;
    uint32_t behind; /* journal pages that nobody needs once it counts */
    struct copies copies;
    struct io flush;
};

struct committer {
    /* under the volume's mutex */
    struct list waiters;
    bool posted, wanted, durable_wanted, checkpoint_wanted, timed;
    uint64_t written, durable; /* the last commit that is: on the raw image; flushed as well */
    /* the carrier's reactor's own */
    struct task task, timer_task;
    struct timer timer;
    struct list current;
    bool busy, blocked;
    unsigned phase;
    uint64_t number;
    bool sealed; /* the commit in flight is to be durable */
    struct page *pages;
    uint32_t page_count, page_sent;
    uint32_t ring_head, ring_used; /* pages */
    struct copies copies;
    struct io flush;
    struct stream next_checkpoint; /* taken together with the commit in flight */
    struct anchor next_anchor;
    bool has_next;
    struct checkpoint checkpoint;
    uint64_t generation;
    uint32_t area, checkpoint_pages; /* of the checkpoint that counts */
};

struct freed {
    uint32_t start, count;
    uint64_t commit; /* that makes it free */
};

struct releaser {
    /* under the volume's mutex */
    struct freed *pending, *batch;
    uint32_t pending_count, pending_room, batch_count;
    uint64_t extents; /* in both */
    bool busy, draining;
    unsigned epoch;
    uint64_t transfers[2]; /* reads and writes of data on their way, by epoch */
    struct list hungry;    /* requests that wait for room */
    bool suspect;          /* a write failed: it may still land */
    /* the carrier's reactor's own */
    struct task task;
    uint32_t at;
    uint64_t done; /* bytes of batch[at] that were discarded */
    struct io discard;
};

struct volume {
    struct carrier carrier;
    const struct raw_ops *ops;
    struct superblock superblock;
    unsigned flags;
    char name[DATASTORE_NAME_MAX + 1];
    struct volume_findings findings;
    pthread_mutex_t mutex;
    pthread_cond_t quiet; /* the machines came to rest */
    struct tree tree;
    struct space space;
    bool closing;
    _Atomic bool failed; /* no change is taken any more */
    struct list pieces;  /* of requests (image.c), free */
    struct committer committer;
    struct releaser releaser;
    bool superblock_damaged; /* one of its copies, or older */
    uint64_t loaded_commit, replayed;
    _Atomic uint64_t *note; /* the last commit that was written in this mount: it outlives this process */
    uint32_t journal_page;  /* where the journal ended when it was loaded */
};

/* load.c */
int load_superblock(struct volume *volume, struct sentence *why);
int load_tree(struct volume *volume, struct sentence *why);
void volume_say(struct volume *volume, enum finding finding, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* settle.c: names, sizes, space, once all records are there. */
int settle_tree(struct volume *volume, struct sentence *why);

/* commit.c. With the mutex held, but for finished and start. */
void committer_open(struct volume *volume);
void committer_close(struct volume *volume);
void commit_want(struct volume *volume, struct waiter *waiter); /* waiter NULL: durable soon */
/* Did the node change in a way that is not on the raw image yet? */
bool commit_lacks(const struct volume *volume, const struct volume_node *node);
void commit_later(struct volume *volume); /* something is dirty now */
bool commit_idle(const struct volume *volume);
/* No further change: metadata could not be written, or the volume is another's. Any thread, mutex not held. */
void volume_fail(struct volume *volume, const char *sentence);

/* release.c; with the mutex held. */
void releaser_open(struct volume *volume);
void releaser_close(struct volume *volume);
void release_extents(struct volume *volume, const struct volume_node *node, uint32_t start, uint32_t count);
void release_ready(struct volume *volume);
bool release_idle(const struct volume *volume);
unsigned transfer_enter(struct volume *volume);
void transfer_leave(struct volume *volume, unsigned epoch);

/* image.c */
void image_retry(struct list *requests); /* mutex not held */
void pieces_free(struct volume *volume);
int volume_open_image(struct datastore *datastore, const char *path, bool writable, struct image **out);

/* volume.c. volume_open in two steps: between them the owner's record is claimed. go: the image is the volume's then. */
int volume_begin(struct volume **out, struct image *raw, const struct raw_ops *ops, unsigned flags,
    const struct volume_findings *findings, struct sentence *why);
int volume_go(struct volume *volume, struct sentence *why);
/* What changed so far outlives this process when it returns. Blocks. */
int volume_keep(struct volume *volume);
/* Writes what is not durable yet and comes to rest. -ETIMEDOUT: requests are on their way, nothing may be freed. */
int volume_finish(struct volume *volume);
/* Frees; the image stays. After begin, a failed go, or finish. */
void volume_drop(struct volume *volume);

/* make.c: all copies, flushed between those of the two heads. Blocks. */
int superblock_write(struct carrier *carrier, const struct superblock *superblock);
/* settle.c: which extents are taken. */
int settle_space(struct volume *volume);
void settle_room(struct volume *volume);

/* names.c. enter takes the mutex of the datastore's volume (NULL: it is not open); leave gives it back and passes result
 * on. volume_unlink: with the mutex held. */
struct volume *volume_enter(struct datastore *datastore);
int volume_leave(struct volume *volume, int result);
int volume_unlink(struct volume *volume, const char *path, bool directory);
