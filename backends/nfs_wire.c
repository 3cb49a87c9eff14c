/* Out: the calls' bytes stand in one buffer, small data with them; large data is referred to. Segments say in which
 * order they go. In: answers are looked at where they were received. Of an answer to a READ that has not come as a whole
 * the rest is received into the reader's memory; while such answers are due little more than their heads is received
 * into the buffer, so that nearly nothing of them is copied.
 *
 * Failure modes. A server that speaks nonsense (a record that is too long, no answer at all) ends the connection; an
 * answer to a call that nobody made is skipped; one that is refused, or cannot be read, ends its call with an error. */
#include "backends/nfs_wire.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "backends/nfs_connection.h"

#define RPC_VERSION_2   2u
#define PROGRAM_NFS     100003u
#define NFS_VERSION_3   3u
#define FLAVOR_SYS      1u
#define LAST_FRAGMENT   0x80000000u
#define MACHINE         "svmfs"
#define HEADER_MOST     96     /* bytes of a call before its arguments */
#define COPIED          16384u /* data up to that goes through the buffer */
#define IN_FIRST        (256u << 10)
#define RECORD_MOST     (8u << 20)
#define LARGE_READ      (32u << 10)
#define HEAD            160u /* bytes of an answer to a READ before its data, or little more */
#define IOV_MOST        128
#define RECEIVES_A_TURN 8

struct segment {
    const struct nfsds_call *call; /* whose data it is, while it is the owner's */
    const uint8_t *memory;         /* NULL: in the buffer, from at on */
    uint8_t *copy;                 /* freed when it is sent */
    size_t at, length;
};

struct nfsds_wire {
    struct nfsds_wire_owner owner;
    uint8_t header[HEADER_MOST]; /* of each call; number and procedure are put in */
    size_t header_size;
    uint32_t number;
    /* out */
    uint8_t *out;
    size_t out_size, out_used;
    struct segment *segments;
    unsigned first, count, room; /* segments from first to count wait */
    /* in */
    uint8_t *in;
    size_t in_size, in_start, in_end, skip; /* skip: bytes of an answer that nobody wants */
    struct nfsds_call *reading;             /* the rest of its data comes into its memory */
    struct READ3res read;
    uint64_t read_done, read_left;
};

static uint8_t *put32(uint8_t *to, uint32_t value)
{
    value = htobe32(value);
    memcpy(to, &value, sizeof(value));
    return to + sizeof(value);
}

static uint32_t get32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof(value));
    return be32toh(value);
}

enum header { AT_LENGTH = 0, AT_NUMBER = 4, AT_PROCEDURE = 24 };

static void prepare_header(struct nfsds_wire *wire)
{
    uint8_t *at = wire->header + AT_NUMBER + 4;
    at = put32(at, 0); /* a call */
    at = put32(at, RPC_VERSION_2);
    at = put32(at, PROGRAM_NFS);
    at = put32(at, NFS_VERSION_3);
    at += 4;
    at = put32(at, FLAVOR_SYS);
    at = put32(at, 4 + 4 + (sizeof(MACHINE) - 1 + 3) / 4 * 4 + 12);
    at = put32(at, (uint32_t)time(NULL));
    at = put32(at, sizeof(MACHINE) - 1);
    memcpy(at, MACHINE, sizeof(MACHINE) - 1);
    at += (sizeof(MACHINE) - 1 + 3) / 4 * 4;
    at = put32(at, wire->owner.uid);
    at = put32(at, wire->owner.gid);
    at = put32(at, 0); /* other groups */
    at = put32(at, 0); /* no verifier */
    at = put32(at, 0);
    wire->header_size = (size_t)(at - wire->header);
}

struct nfsds_wire *nfsds_wire_new(const struct nfsds_wire_owner *owner)
{
    struct nfsds_wire *wire = calloc(1, sizeof(*wire));
    if (!wire)
        return NULL;
    wire->owner = *owner;
    wire->number = owner->number;
    wire->in = malloc(IN_FIRST);
    wire->in_size = IN_FIRST;
    prepare_header(wire);
    if (wire->in)
        return wire;
    free(wire);
    return NULL;
}

void nfsds_wire_free(struct nfsds_wire *wire)
{
    if (!wire)
        return;
    for (unsigned i = wire->first; i < wire->count; i++)
        free(wire->segments[i].copy);
    free(wire->segments);
    free(wire->out);
    free(wire->in);
    free(wire);
}

/* ---- out ---- */

static bool make_room(struct nfsds_wire *wire, size_t bytes)
{
    if (wire->count + 3 > wire->room) {
        unsigned room = wire->room ? wire->room * 2 : 64;
        struct segment *segments = realloc(wire->segments, room * sizeof(*segments));
        if (!segments)
            return false;
        wire->segments = segments;
        wire->room = room;
    }
    if (wire->out_used + bytes <= wire->out_size)
        return true;
    size_t size = wire->out_size ? wire->out_size * 2 : 65536;
    while (size < wire->out_used + bytes)
        size *= 2;
    uint8_t *out = realloc(wire->out, size);
    if (!out)
        return false;
    wire->out = out;
    wire->out_size = size;
    return true;
}

/* What was sent goes from the front, when that is most. */
static void close_ranks(struct nfsds_wire *wire)
{
    if (wire->first < 64 || wire->first * 2 < wire->count)
        return;
    size_t sent = wire->out_used;
    for (unsigned i = wire->first; i < wire->count; i++)
        if (!wire->segments[i].memory && wire->segments[i].at < sent)
            sent = wire->segments[i].at;
    memmove(wire->out, wire->out + sent, wire->out_used - sent);
    wire->out_used -= sent;
    wire->count -= wire->first;
    memmove(wire->segments, wire->segments + wire->first, wire->count * sizeof(*wire->segments));
    wire->first = 0;
    for (unsigned i = 0; i < wire->count; i++)
        if (!wire->segments[i].memory)
            wire->segments[i].at -= sent;
}

/* The buffer's bytes from at on are the next to go. */
static void add_bytes(struct nfsds_wire *wire, size_t at)
{
    struct segment *last = wire->count > wire->first ? &wire->segments[wire->count - 1] : NULL;
    if (last && !last->memory && last->at + last->length == at)
        last->length += wire->out_used - at;
    else
        wire->segments[wire->count++] = (struct segment){.at = at, .length = wire->out_used - at};
}

static size_t segments_of(const struct nfsds_call *call)
{
    return call->iov_count > 0 ? (size_t)call->iov_count : 1;
}

/* Calls take(memory, length) for each piece of the call's data from skip on. */
static void each_piece(const struct nfsds_call *call, uint64_t skip, uint64_t length,
    void (*take)(void *argument, uint8_t *memory, size_t length), void *argument)
{
    skip += call->skip;
    for (int i = 0; i < call->iov_count && length > 0; i++) {
        uint64_t size = call->iov[i].iov_len;
        if (skip >= size) {
            skip -= size;
            continue;
        }
        uint64_t part = size - skip < length ? size - skip : length;
        take(argument, (uint8_t *)call->iov[i].iov_base + skip, part);
        length -= part;
        skip = 0;
    }
}

static void copy_out(void *argument, uint8_t *memory, size_t length)
{
    struct nfsds_wire *wire = argument;
    memcpy(wire->out + wire->out_used, memory, length);
    wire->out_used += length;
}

struct referral {
    struct nfsds_wire *wire;
    const struct nfsds_call *call;
};

static void refer(void *argument, uint8_t *memory, size_t length)
{
    struct referral *referral = argument;
    struct nfsds_wire *wire = referral->wire;
    wire->segments[wire->count++] = (struct segment){.call = referral->call, .memory = memory, .length = length};
}

static bool add_data(struct nfsds_wire *wire, const struct nfsds_call *call, const struct WRITE3args *write)
{
    uint32_t length = write->data.data_len;
    if (length <= COPIED) {
        size_t at = wire->out_used;
        if (call->iov_count > 0)
            each_piece(call, 0, length, copy_out, wire);
        else
            copy_out(wire, (uint8_t *)write->data.data_val, length);
        memset(wire->out + wire->out_used, 0, 3);
        wire->out_used = at + (length + 3) / 4 * 4;
        add_bytes(wire, at);
        return true;
    }
    while (wire->count + segments_of(call) + 3 > wire->room) {
        struct segment *segments = realloc(wire->segments, wire->room * 2 * sizeof(*segments));
        if (!segments)
            return false;
        wire->segments = segments;
        wire->room *= 2;
    }
    struct referral referral = {wire, call};
    if (call->iov_count > 0)
        each_piece(call, 0, length, refer, &referral);
    else
        refer(&referral, (uint8_t *)write->data.data_val, length);
    if (length % 4) {
        size_t at = wire->out_used;
        memset(wire->out + at, 0, 4 - length % 4);
        wire->out_used += 4 - length % 4;
        add_bytes(wire, at);
    }
    return true;
}

int nfsds_wire_queue(struct nfsds_wire *wire, struct nfsds_call *call)
{
    const struct WRITE3args *write = call->procedure == NFS_WRITE ? call->arguments : NULL;
    close_ranks(wire);
    size_t at = wire->out_used, most = HEADER_MOST + NFS_ARGUMENTS_MOST + COPIED + 4;
    if (!make_room(wire, most))
        return -ENOMEM;
    memcpy(wire->out + at, wire->header, wire->header_size);
    uint8_t *arguments = wire->out + at + wire->header_size;
    size_t size = nfsds_encode(call->procedure, call->arguments, arguments, NFS_ARGUMENTS_MOST);
    if (size == 0)
        return -ENAMETOOLONG;
    size_t whole = wire->header_size - 4 + size + (write ? (write->data.data_len + 3) / 4 * 4 : 0);
    call->number = wire->number++;
    put32(wire->out + at + AT_LENGTH, LAST_FRAGMENT | (uint32_t)whole);
    put32(wire->out + at + AT_NUMBER, call->number);
    put32(wire->out + at + AT_PROCEDURE, nfsds_procedure_number(call->procedure));
    unsigned count = wire->count;
    size_t before = count > wire->first ? wire->segments[count - 1].length : 0;
    wire->out_used = at + wire->header_size + size;
    add_bytes(wire, at);
    if (!write || add_data(wire, call, write))
        return 0;
    wire->count = count;
    if (count > wire->first)
        wire->segments[count - 1].length = before;
    wire->out_used = at;
    return -ENOMEM;
}

int nfsds_wire_disown(struct nfsds_wire *wire, const struct nfsds_call *call)
{
    for (unsigned i = wire->first; i < wire->count; i++) {
        struct segment *segment = &wire->segments[i];
        if (segment->call != call)
            continue;
        segment->copy = malloc(segment->length);
        if (!segment->copy)
            return -ENOMEM;
        memcpy(segment->copy, segment->memory, segment->length);
        segment->memory = segment->copy;
        segment->call = NULL;
    }
    return 0;
}

static void sent(struct nfsds_wire *wire, size_t bytes)
{
    while (bytes > 0) {
        struct segment *segment = &wire->segments[wire->first];
        size_t part = segment->length < bytes ? segment->length : bytes;
        bytes -= part;
        segment->length -= part;
        if (segment->memory)
            segment->memory += part;
        else
            segment->at += part;
        if (segment->length == 0) {
            free(segment->copy);
            wire->first++;
        }
    }
    if (wire->first == wire->count)
        wire->first = wire->count = 0, wire->out_used = 0;
}

int nfsds_wire_send(struct nfsds_wire *wire, int fd)
{
    while (wire->first < wire->count) {
        struct iovec iov[IOV_MOST];
        struct msghdr message = {.msg_iov = iov};
        size_t all = 0;
        for (unsigned i = wire->first; i < wire->count && message.msg_iovlen < IOV_MOST; i++) {
            const struct segment *segment = &wire->segments[i];
            const uint8_t *memory = segment->memory ? segment->memory : wire->out + segment->at;
            iov[message.msg_iovlen++] = (struct iovec){(void *)(uintptr_t)memory, segment->length};
            all += segment->length;
        }
        ssize_t done = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno == EAGAIN ? 1 : -errno;
        sent(wire, (size_t)done);
        if ((size_t)done < all)
            return 1;
    }
    return 0;
}

/* ---- in ---- */

static struct nfsds_call *call_numbered(const struct nfsds_wire *wire, uint32_t number)
{
    list_for_each (link, wire->owner.sent) {
        struct nfsds_call *call = container_of(link, struct nfsds_call, link);
        if (call->number == number)
            return call;
    }
    return NULL;
}

struct filling {
    const uint8_t *from;
};

static void fill(void *argument, uint8_t *memory, size_t length)
{
    struct filling *filling = argument;
    memcpy(memory, filling->from, length);
    filling->from += length;
}

static void end_reading(struct nfsds_wire *wire)
{
    struct nfsds_call *call = wire->reading;
    wire->reading = NULL;
    wire->owner.answered(call, 0, &wire->read);
}

/* An answer to a READ that comes into its reader's memory: length bytes of results, of which ready are here. The bytes
 * that are done with, -EAGAIN: too few, -EPROTO. */
static ssize_t begin_reading(
    struct nfsds_wire *wire, struct nfsds_call *call, const uint8_t *results, size_t ready, size_t length)
{
    const struct READ3args *asked = call->arguments;
    size_t before = nfsds_decode_read(results, ready, &wire->read);
    if (before == 0)
        return ready < length ? -EAGAIN : -EPROTO;
    if (wire->read.status != NFS3_OK) {
        wire->skip = length - before;
        wire->owner.answered(call, 0, &wire->read);
        return (ssize_t)before;
    }
    uint64_t size = wire->read.READ3res_u.resok.data.data_len;
    if (size > asked->count || size > length - before)
        return -EPROTO;
    wire->read.READ3res_u.resok.count = (uint32_t)size;
    uint64_t here = ready - before < size ? ready - before : size;
    struct filling filling = {results + before};
    each_piece(call, 0, here, fill, &filling);
    wire->skip = length - before - size;
    wire->reading = call;
    wire->read_done = here;
    wire->read_left = size - here;
    if (wire->read_left == 0)
        end_reading(wire);
    return (ssize_t)(before + here);
}

/* A whole answer's results. */
static void answer(struct nfsds_wire *wire, struct nfsds_call *call, const uint8_t *results, size_t length)
{
    struct nfsds_answer decoded;
    bool good = nfsds_decode(call->procedure, results, length, &decoded);
    wire->owner.answered(call, good ? 0 : -EIO, good ? &decoded.data : NULL);
    nfsds_answer_end(&decoded);
}

enum reply { AT_DIRECTION = 4, AT_STATE = 8, AT_VERIFIER = 16, AT_ACCEPTED = 20 };

/* One answer of length bytes, of which ready are here. The bytes that are done with, or -EAGAIN, -EPROTO. */
static ssize_t take_record(struct nfsds_wire *wire, const uint8_t *record, size_t ready, size_t length)
{
    if (ready < AT_ACCEPTED)
        return ready < length ? -EAGAIN : -EPROTO;
    struct nfsds_call *call = call_numbered(wire, get32(record));
    if (get32(record + AT_DIRECTION) != 1)
        return -EPROTO;
    if (!call) {
        wire->skip = length;
        return 0;
    }
    /* A server that answers before it has heard all: its owner's memory goes with the answer. */
    if (call->procedure == NFS_WRITE && wire->first < wire->count && nfsds_wire_disown(wire, call) != 0)
        return -ENOMEM;
    size_t verifier = get32(record + AT_VERIFIER), results = AT_ACCEPTED + (verifier + 3) / 4 * 4 + 4;
    bool refused = get32(record + AT_STATE) != 0;
    if (!refused && (verifier > HEAD || results > length))
        return -EPROTO;
    if (!refused && ready < results)
        return -EAGAIN;
    if (refused || get32(record + results - 4) != 0) {
        wire->skip = length;
        wire->owner.answered(call, -EIO, NULL);
        return 0;
    }
    if (call->procedure == NFS_READ && call->iov_count > 0) {
        ssize_t done = begin_reading(wire, call, record + results, ready - results, length - results);
        return done < 0 ? done : done + (ssize_t)results;
    }
    if (ready < length)
        return -EAGAIN;
    answer(wire, call, record + results, length - results);
    return (ssize_t)length;
}

/* A record in several fragments becomes one. False: the next one's length is not here yet. */
static bool join_fragments(struct nfsds_wire *wire)
{
    for (;;) {
        uint8_t *at = wire->in + wire->in_start;
        uint32_t marker = get32(at);
        size_t here = wire->in_end - wire->in_start, length = marker & ~LAST_FRAGMENT;
        if (marker & LAST_FRAGMENT || length > RECORD_MOST)
            return true;
        if (here < 4 + length + 4)
            return false;
        uint32_t next = get32(at + 4 + length);
        put32(at, (next & LAST_FRAGMENT) | (uint32_t)(length + (next & ~LAST_FRAGMENT)));
        memmove(at + 4 + length, at + 4 + length + 4, here - length - 8);
        wire->in_end -= 4;
    }
}

static bool grow_in(struct nfsds_wire *wire, size_t size)
{
    memmove(wire->in, wire->in + wire->in_start, wire->in_end - wire->in_start);
    wire->in_end -= wire->in_start;
    wire->in_start = 0;
    if (size <= wire->in_size)
        return true;
    uint8_t *in = realloc(wire->in, size);
    if (!in)
        return false;
    wire->in = in;
    wire->in_size = size;
    return true;
}

static int look_through(struct nfsds_wire *wire)
{
    while (!wire->reading) {
        size_t here = wire->in_end - wire->in_start, skipped = wire->skip < here ? wire->skip : here;
        wire->in_start += skipped;
        wire->skip -= skipped;
        here -= skipped;
        if (wire->skip > 0 || here < 4)
            break;
        bool whole = join_fragments(wire);
        here = wire->in_end - wire->in_start;
        size_t length = get32(wire->in + wire->in_start) & ~LAST_FRAGMENT;
        if (length > RECORD_MOST)
            return -EPROTO;
        size_t ready = here - 4 < length ? here - 4 : length;
        ssize_t done = whole ? take_record(wire, wire->in + wire->in_start + 4, ready, length) : -EAGAIN;
        if (done == -EAGAIN)
            return grow_in(wire, length + 8 + HEAD) ? 0 : -ENOMEM;
        if (done < 0)
            return (int)done;
        wire->in_start += 4 + (size_t)done;
    }
    if (wire->in_start == wire->in_end)
        wire->in_start = wire->in_end = 0;
    return 0;
}

struct vector {
    struct iovec iov[IOV_MOST];
    int count;
    size_t all;
};

static void add_vector(void *argument, uint8_t *memory, size_t length)
{
    struct vector *vector = argument;
    if (vector->count == IOV_MOST - 1)
        return;
    vector->iov[vector->count++] = (struct iovec){memory, length};
    vector->all += length;
}

static bool expects_large(const struct nfsds_wire *wire)
{
    const struct nfsds_call *call = container_of(wire->owner.sent->next, struct nfsds_call, link);
    return !list_empty(wire->owner.sent) && call->procedure == NFS_READ && call->iov_count > 0 &&
           ((const struct READ3args *)call->arguments)->count >= LARGE_READ;
}

int nfsds_wire_receive(struct nfsds_wire *wire, int fd)
{
    for (int i = 0; i < RECEIVES_A_TURN; i++) {
        struct vector vector = {.count = 0};
        if (wire->reading)
            each_piece(wire->reading, wire->read_done, wire->read_left, add_vector, &vector);
        size_t direct = vector.all;
        if (direct == (wire->reading ? wire->read_left : 0)) {
            if (wire->in_size - wire->in_end < HEAD && !grow_in(wire, wire->in_size))
                return -ENOMEM;
            size_t room = wire->in_size - wire->in_end;
            bool little = wire->skip == 0 && wire->in_start == wire->in_end && expects_large(wire);
            add_vector(&vector, wire->in + wire->in_end, little && room > HEAD ? HEAD : room);
        }
        struct msghdr message = {.msg_iov = vector.iov, .msg_iovlen = (size_t)vector.count};
        ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? -ECONNRESET : errno == EAGAIN ? 0 : -errno;
        size_t into = (size_t)got < direct ? (size_t)got : direct;
        wire->read_done += into;
        wire->read_left -= into;
        wire->in_end += (size_t)got - into;
        if (wire->reading && wire->read_left == 0)
            end_reading(wire);
        int error = look_through(wire);
        if (error)
            return error;
        if ((size_t)got < vector.all)
            return 0;
    }
    return 0;
}
