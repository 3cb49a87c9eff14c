#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/volume/request.h"

static const uint8_t zeroes[VOLUME_BLOCK] __attribute__((aligned(4096)));

/* ---- memory ---- */

struct piece *piece_new(struct volume *volume)
{
    struct list *link = list_pop(&volume->pieces);
    struct piece *piece = link ? container_of(link, struct piece, link) : calloc(1, sizeof(*piece));
    if (!piece)
        return NULL;
    list_init(&piece->link);
    list_init(&piece->filling);
    piece->iov = piece->few;
    return piece;
}

void piece_put(struct volume *volume, struct piece *piece)
{
    if (piece->iov != piece->few)
        free(piece->iov);
    list_remove(&piece->link);
    list_remove(&piece->filling);
    list_append(&volume->pieces, &piece->link);
}

void pieces_free(struct volume *volume)
{
    struct list *link;
    while ((link = list_pop(&volume->pieces))) {
        struct piece *piece = container_of(link, struct piece, link);
        free(piece->bounce);
        free(piece);
    }
}

/* ---- the request's memory ---- */

/* Copies between memory and the io's bytes at part; memory NULL: zeroes into the io. */
static void iov_copy(const struct io *io, struct extent part, uint8_t *memory, bool out)
{
    uint64_t at = io->extent.start;
    for (int i = 0; i < io->iov_count && at < part.end; at += io->iov[i].iov_len, i++) {
        struct extent piece = extent_intersect(part, (struct extent){at, at + io->iov[i].iov_len});
        if (extent_empty(piece))
            continue;
        uint8_t *own = (uint8_t *)io->iov[i].iov_base + (piece.start - at);
        size_t length = extent_length(piece);
        if (!memory)
            memset(own, 0, length);
        else if (out)
            memcpy(memory + (piece.start - part.start), own, length);
        else
            memcpy(own, memory + (piece.start - part.start), length);
    }
}

/* The io's memory of part as an iov of the piece's. */
static int iov_slice(struct piece *piece, const struct io *io, struct extent part)
{
    uint64_t at = io->extent.start;
    int first = -1, last = 0;
    for (int i = 0; i < io->iov_count; at += io->iov[i].iov_len, i++)
        if (extent_overlaps(part, (struct extent){at, at + io->iov[i].iov_len}) && io->iov[i].iov_len > 0) {
            first = first < 0 ? i : first;
            last = i;
        }
    int count = last - first + 1;
    if (count > PIECE_IOVS && !(piece->iov = malloc((size_t)count * sizeof(struct iovec)))) {
        piece->iov = piece->few;
        return -ENOMEM;
    }
    at = io->extent.start;
    for (int i = 0; i <= last; at += io->iov[i].iov_len, i++) {
        struct extent own = extent_intersect(part, (struct extent){at, at + io->iov[i].iov_len});
        if (i >= first)
            piece->iov[i - first] = (struct iovec){
                (uint8_t *)io->iov[i].iov_base + (own.start - at), extent_length(own)};
    }
    piece->io.iov_count = count;
    return 0;
}

static bool need_bounce(struct piece *piece)
{
    return piece->bounce || posix_memalign(&piece->bounce, VOLUME_BLOCK, VOLUME_BLOCK) == 0;
}

/* ---- what becomes a piece ---- */

static void piece_done(struct io *io);

static struct piece *add(struct volume *volume, struct io *io, enum piece_kind kind, struct extent part, uint64_t place)
{
    struct piece *piece = piece_new(volume);
    if (!piece)
        return NULL;
    piece->kind = kind;
    piece->outer = io;
    piece->part = part;
    piece->place = place;
    piece->io = (struct io){.done = piece_done, .flags = IO_DIRECT, .iov = piece->iov};
    list_append(&request_of(io)->pieces, &piece->link);
    return piece;
}

static int add_direct(struct volume *volume, struct io *io, struct extent part, uint64_t place)
{
    struct piece *piece = add(volume, io, PIECE_DIRECT, part, place);
    if (!piece)
        return -ENOMEM;
    piece->io.verb = io->verb == VERB_READ ? VERB_READ : VERB_WRITE;
    piece->io.flags = io->flags & IO_DIRECT;
    piece->io.extent = (struct extent){place, place + extent_length(part)};
    if (io->verb == VERB_ZERO) { /* edges only: never more than a block */
        piece->iov[0] = (struct iovec){(void *)(uintptr_t)zeroes, extent_length(part)};
        piece->io.iov_count = 1;
        return 0;
    }
    int error = iov_slice(piece, io, part);
    piece->io.iov = piece->iov;
    return error;
}

int pieces_zero(struct volume *volume, struct io *io, struct extent part)
{
    return add(volume, io, PIECE_ZERO, part, 0) ? 0 : -ENOMEM;
}

int pieces_flush(struct volume *volume, struct io *io)
{
    struct piece *piece = add(volume, io, PIECE_DIRECT, io->extent, 0);
    if (!piece)
        return -ENOMEM;
    piece->io = (struct io){.verb = VERB_FLUSH, .flags = io->flags, .done = piece_done};
    return 0;
}

/* part is within [base, base + length) of the image, which lies at place. */
static int add_bounce(struct volume *volume, struct io *io, enum piece_kind kind, struct extent part, uint64_t base,
    uint64_t place, uint32_t length)
{
    struct piece *piece = add(volume, io, kind, part, place);
    if (!piece || !need_bounce(piece))
        return -ENOMEM;
    piece->base = base;
    piece->io.verb = VERB_READ;
    piece->io.extent = (struct extent){place, place + length};
    piece->iov[0] = (struct iovec){piece->bounce, length};
    piece->io.iov_count = 1;
    return 0;
}

int pieces_data(struct volume *volume, struct io *io, struct extent part, uint64_t place)
{
    uint32_t block = volume->carrier.block;
    enum piece_kind kind = io->verb == VERB_READ ? PIECE_BOUNCE : PIECE_MODIFY;
    int error = 0;
    if (part.start % block != 0) {
        uint64_t base = part.start & ~(uint64_t)(block - 1), end = base + block < part.end ? base + block : part.end;
        error = add_bounce(
            volume, io, kind, (struct extent){part.start, end}, base, place - (part.start - base), block);
        place += end - part.start;
        part.start = end;
    }
    if (!error && part.start < part.end && part.end % block != 0) {
        uint64_t base = part.end & ~(uint64_t)(block - 1);
        error = add_bounce(volume, io, kind, (struct extent){base, part.end}, base, place + (base - part.start), block);
        part.end = base;
    }
    if (!error && part.start < part.end)
        error = add_direct(volume, io, part, place);
    return error;
}

static void overlay(struct piece *piece)
{
    uint8_t *memory = (uint8_t *)piece->bounce + (piece->part.start - piece->base);
    if (piece->outer->verb == VERB_ZERO)
        memset(memory, 0, extent_length(piece->part));
    else
        iov_copy(piece->outer, piece->part, memory, true);
}

int pieces_fill(struct volume *volume, struct io *io, struct extent part, uint64_t place)
{
    uint64_t base = part.start & ~(uint64_t)(VOLUME_BLOCK - 1);
    int error = add_bounce(volume, io, PIECE_FILL, part, base, place - (part.start - base), VOLUME_BLOCK);
    if (error)
        return error;
    struct piece *piece = container_of(request_of(io)->pieces.previous, struct piece, link);
    piece->io.verb = VERB_WRITE;
    memset(piece->bounce, 0, VOLUME_BLOCK);
    overlay(piece);
    list_append(&volume_image_of(io)->node->filling, &piece->filling);
    return 0;
}

/* ---- on the reactor ---- */

static void submit(struct piece *piece, struct volume *volume)
{
    image_submit(volume->carrier.image, &piece->io);
}

static void write_back(struct piece *piece, struct volume *volume)
{
    piece->io.verb = VERB_WRITE;
    submit(piece, volume);
}

static void piece_done(struct io *inner)
{
    struct piece *piece = container_of(inner, struct piece, io);
    struct io *io = piece->outer;
    struct request *request = request_of(io);
    struct volume *volume = volume_image_of(io)->volume;
    if (inner->result == 0 && piece->kind == PIECE_MODIFY && inner->verb == VERB_READ) {
        overlay(piece);
        write_back(piece, volume);
        return;
    }
    if (inner->result == 0 && piece->kind == PIECE_BOUNCE)
        iov_copy(io, piece->part, (uint8_t *)piece->bounce + (piece->part.start - piece->base), false);
    if (inner->result < 0) {
        if (!request->result)
            request->result = inner->result;
        if (inner->verb == VERB_WRITE) {
            pthread_mutex_lock(&volume->mutex);
            volume->releaser.suspect = true;
            pthread_mutex_unlock(&volume->mutex);
        }
    }
    if (--request->left == 0)
        request_ended(io);
}

void pieces_send(struct io *io)
{
    struct request *request = request_of(io);
    struct volume *volume = volume_image_of(io)->volume;
    list_for_each (link, &request->pieces)
        request->left += container_of(link, struct piece, link)->kind != PIECE_ZERO;
    uint32_t sent = request->left;
    list_for_each_safe (link, &request->pieces) {
        struct piece *piece = container_of(link, struct piece, link);
        if (piece->kind == PIECE_ZERO)
            iov_copy(io, piece->part, NULL, false);
        else
            submit(piece, volume);
    }
    if (sent == 0)
        request_ended(io);
}

static void tail_done(struct io *inner)
{
    struct piece *piece = container_of(inner, struct piece, io);
    struct volume *volume = piece->image->volume;
    if (inner->result == 0 && inner->verb == VERB_READ) {
        memset((uint8_t *)piece->bounce + (piece->part.start - piece->base), 0, extent_length(piece->part));
        write_back(piece, volume);
        return;
    }
    request_tail(piece->image, inner->result, piece);
}

int tail_send(struct volume_image *image, uint64_t size, uint64_t place)
{
    struct piece *piece = piece_new(image->volume);
    if (!piece || !need_bounce(piece)) {
        if (piece)
            piece_put(image->volume, piece);
        return -ENOMEM;
    }
    uint64_t base = size & ~(uint64_t)(VOLUME_BLOCK - 1);
    piece->kind = PIECE_TAIL;
    piece->outer = NULL;
    piece->image = image;
    piece->base = base;
    piece->part = (struct extent){size, base + VOLUME_BLOCK};
    piece->iov[0] = (struct iovec){piece->bounce, VOLUME_BLOCK};
    piece->io = (struct io){.verb = VERB_READ,
        .flags = IO_DIRECT,
        .extent = {place, place + VOLUME_BLOCK},
        .iov = piece->iov,
        .iov_count = 1,
        .done = tail_done};
    piece->transfer_epoch = transfer_enter(image->volume);
    image_submit(image->volume->carrier.image, &piece->io);
    return 0;
}
