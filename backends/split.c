#include "backends/split.h"

#include <errno.h>
#include <stdlib.h>

#define PIECES_MAX 16
#define PIECE_IOV  8

struct piece {
    struct aio_request request;
    struct split *split;
    struct iovec iov[PIECE_IOV];
    int iov_count;
    long wanted, result;
};

struct split {
    struct aio_request *whole;
    unsigned count, pending;
    struct piece pieces[];
};

static void split_end(struct split *split)
{
    long moved = 0;
    for (unsigned i = 0; i < split->count; i++) {
        struct piece *piece = &split->pieces[i];
        if (piece->result < 0) {
            moved = moved ? moved : piece->result;
            break;
        }
        moved += piece->result;
        if (piece->result < piece->wanted)
            break;
    }
    struct aio_request *whole = split->whole;
    free(split);
    whole->done(whole, moved);
}

static void piece_done(struct aio_request *request, long result)
{
    struct piece *piece = container_of(request, struct piece, request);
    piece->result = result;
    if (--piece->split->pending == 0)
        split_end(piece->split);
}

/* Takes the next length bytes of the iov from (*at, *offset) on; false: in too many parts. */
static bool cut(struct piece *piece, const struct iovec *iov, int iov_count, int *at, size_t *offset, size_t length)
{
    piece->wanted = (long)length;
    while (length > 0 && *at < iov_count) {
        if (piece->iov_count == PIECE_IOV)
            return false;
        size_t room = iov[*at].iov_len - *offset, size = room < length ? room : length;
        piece->iov[piece->iov_count++] = (struct iovec){(char *)iov[*at].iov_base + *offset, size};
        length -= size;
        *offset += size;
        if (*offset == iov[*at].iov_len) {
            *offset = 0;
            ++*at;
        }
    }
    return length == 0;
}

static bool send_pieces(struct split *split, struct aio *aio, struct reactor *reactor)
{
    /* One more than there are, so that pieces that end from within aio_queue do not end the whole. */
    split->pending = split->count + 1;
    for (unsigned i = 0; i < split->count; i++) {
        bool last = i + 1 == split->count;
        if (aio_queue(aio, reactor, &split->pieces[i].request, last ? AIO_AT_ONCE : 0))
            continue;
        if (i == 0)
            return false;
        piece_done(&split->pieces[i].request, -EAGAIN);
    }
    if (--split->pending == 0)
        split_end(split);
    return true;
}

bool split_queue(struct aio *aio, struct reactor *reactor, struct aio_request *whole, int fd, bool write,
    const struct iovec *iov, int iov_count, struct extent extent)
{
    unsigned count = (unsigned)((extent_length(extent) + SPLIT_PIECE - 1) / SPLIT_PIECE);
    struct split *split = count <= PIECES_MAX ? calloc(1, sizeof(*split) + count * sizeof(struct piece)) : NULL;
    if (!split)
        return false;
    split->whole = whole;
    split->count = count;
    int at = 0;
    size_t offset = 0;
    bool fits = true;
    uint64_t start = extent.start;
    for (unsigned i = 0; i < count && fits; i++) {
        struct piece *piece = &split->pieces[i];
        uint64_t end = start + SPLIT_PIECE < extent.end ? start + SPLIT_PIECE : extent.end;
        piece->split = split;
        piece->request.done = piece_done;
        fits = cut(piece, iov, iov_count, &at, &offset, end - start);
        if (write)
            io_prep_pwritev2(&piece->request.iocb, fd, piece->iov, piece->iov_count, (long long)start, RWF_NOWAIT);
        else
            io_prep_preadv2(&piece->request.iocb, fd, piece->iov, piece->iov_count, (long long)start, RWF_NOWAIT);
        start = end;
    }
    if (fits && send_pieces(split, aio, reactor))
        return true;
    free(split);
    return false;
}
