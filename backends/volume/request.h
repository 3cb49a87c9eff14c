/* request: an io on an image of a volume, and the pieces that it becomes on the raw image.
 *
 * plan (under the mutex: where do the bytes lie?) → pieces, side by side, on the reactor that submitted → ended (under
 * the mutex: bits, size) → answered. A request that must wait is parked, and planned anew later. */
#pragma once

#include "backends/fence.h"
#include "backends/volume/node.h"

struct volume_image {
    struct image image;
    struct volume *volume;
    struct volume_node *node;
    bool writable;
    struct fence fence;
};

/* In io.scratch. */
struct __attribute__((may_alias)) request {
    union {
        struct task task;     /* to be planned anew */
        struct waiter waiter; /* FLUSH */
    };
    struct list pieces;
    int result;
    uint32_t left; /* pieces that have not ended */
    uint8_t fence_epoch, transfer_epoch;
    bool fresh;   /* blocks of it were unwritten */
    bool growing; /* it ends behind the size */
};

_Static_assert(sizeof(struct request) <= sizeof(((struct io *)NULL)->scratch), "io.scratch is too small");

#define PIECE_IOVS 8

enum piece_kind {
    PIECE_DIRECT, /* the request's own memory */
    PIECE_ZERO,   /* READ of what was never written: no I/O */
    PIECE_BOUNCE, /* READ of a part of a raw block */
    PIECE_MODIFY, /* WRITE of a part of a raw block: read, changed, written */
    PIECE_FILL,   /* WRITE of a part of a block that was never written: the rest becomes zero */
    PIECE_TAIL,   /* zeroes behind the end of the file; of no request */
};

struct piece {
    struct list link;    /* in request->pieces or volume->pieces */
    struct list filling; /* PIECE_FILL: in node->filling */
    struct io io;
    struct io *outer;
    enum piece_kind kind;
    struct extent part;   /* bytes of the image that it is for */
    uint64_t base, place; /* where the bounce memory begins: in the image, on the raw image */
    struct iovec few[PIECE_IOVS], *iov;
    void *bounce; /* VOLUME_BLOCK bytes; stays with the piece */
    /* PIECE_TAIL */
    struct volume_image *image;
    unsigned transfer_epoch;
};

static inline struct request *request_of(struct io *io)
{
    return (struct request *)io->scratch;
}

static inline struct volume_image *volume_image_of(const struct io *io)
{
    return container_of(io->image, struct volume_image, image);
}

/* piece.c. Mutex held, but for pieces_send. */
struct piece *piece_new(struct volume *volume);
void piece_put(struct volume *volume, struct piece *piece);
/* What the request wants of [part) lies on the raw image at place. ZERO writes zeroes. 0 or -ENOMEM. */
int pieces_data(struct volume *volume, struct io *io, struct extent part, uint64_t place);
int pieces_flush(struct volume *volume, struct io *io);
int pieces_fill(struct volume *volume, struct io *io, struct extent part, uint64_t place);
/* A READ's bytes at [part) are zero. 0 or -ENOMEM. */
int pieces_zero(struct volume *volume, struct io *io, struct extent part);
/* Sends all; request_ended when the last has ended. There is one at least. */
void pieces_send(struct io *io);
/* Zeroes from size to the end of its block, then request_tail. 0 or -ENOMEM. */
int tail_send(struct volume_image *image, uint64_t size, uint64_t place);

/* image.c */
void request_ended(struct io *io);
void request_tail(struct volume_image *image, int result, struct piece *piece);
