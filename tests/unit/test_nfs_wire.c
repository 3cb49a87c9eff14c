/* The wire against a server that is a buffer at the other end of a pair of sockets. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/nfs_connection.h"
#include "backends/nfs_wire.h"

#define LAST 0x80000000u

static int ends[2]; /* ours, the server's */
static struct nfsds_wire *wire;
static struct list sent;
static struct nfsds_call *answered_call;
static int answers, answered_error;
static struct READ3resok read_result;
static struct WRITE3resok write_result;
static nfsstat3 status;

static void answered(struct nfsds_call *call, int error, void *data)
{
    list_remove(&call->link);
    answers++;
    answered_call = call;
    answered_error = error;
    if (error)
        return;
    status = *(nfsstat3 *)data;
    if (call->procedure == NFS_READ)
        read_result = ((struct READ3res *)data)->READ3res_u.resok;
    if (call->procedure == NFS_WRITE)
        write_result = ((struct WRITE3res *)data)->WRITE3res_u.resok;
}

static void setup(void)
{
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    list_init(&sent);
    struct nfsds_wire_owner owner = {.uid = 7, .gid = 8, .number = 100, .sent = &sent, .answered = answered};
    wire = nfsds_wire_new(&owner);
    cr_assert(wire);
    answers = 0;
}

static void teardown(void)
{
    nfsds_wire_free(wire);
    close(ends[0]);
    close(ends[1]);
}

TestSuite(nfs_wire, .init = setup, .fini = teardown, .timeout = 20);

static char file_handle[8] = "handle!";

static struct nfs_fh3 file(void)
{
    return (struct nfs_fh3){{sizeof(file_handle), file_handle}};
}

/* Queued and, unless the socket is full, sent. */
static int put(struct nfsds_call *call)
{
    cr_assert_eq(nfsds_wire_queue(wire, call), 0);
    list_append(&sent, &call->link);
    return nfsds_wire_send(wire, ends[0]);
}

static uint32_t number_at(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static uint8_t *add(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        *to++ = (uint8_t)(value >> (24 - 8 * i));
    return to;
}

/* What came at the server's end; it is that much. */
static void take(uint8_t *to, size_t size)
{
    for (size_t at = 0; at < size;) {
        cr_assert(nfsds_wire_send(wire, ends[0]) >= 0);
        ssize_t got = read(ends[1], to + at, size - at);
        cr_assert(got > 0);
        at += (size_t)got;
    }
}

/* An accepted answer up to its results. */
static uint8_t *head(uint8_t *to, uint32_t number)
{
    uint32_t words[] = {number, 1, 0, 0, 0, 0};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        to = add(to, words[i]);
    return to;
}

static uint8_t *read_answer(uint8_t *to, uint32_t number, const char *data, uint32_t length, bool attributes)
{
    to = add(head(to, number), NFS3_OK);
    to = add(to, attributes);
    if (attributes) {
        memset(to, 0x55, 84);
        to += 84;
    }
    to = add(add(add(to, length), 1), length);
    memcpy(to, data, length);
    memset(to + length, 0, 3);
    return to + (length + 3) / 4 * 4;
}

/* The server sends a record, in fragments of at most that size, and so many bytes at a time; we take it. */
static void answer(const uint8_t *record, size_t length, size_t fragment, size_t step)
{
    uint8_t *out = malloc(length + 4 * (length / fragment + 1)), *end = out;
    for (size_t at = 0; at < length; at += fragment) {
        size_t part = length - at < fragment ? length - at : fragment;
        end = add(end, (uint32_t)part | (at + part == length ? LAST : 0));
        memcpy(end, record + at, part);
        end += part;
    }
    for (const uint8_t *at = out; at < end;) {
        size_t part = (size_t)(end - at) < step ? (size_t)(end - at) : step;
        ssize_t wrote = send(ends[1], at, part, MSG_DONTWAIT);
        at += wrote > 0 ? wrote : 0;
        cr_assert_eq(nfsds_wire_receive(wire, ends[0]), 0);
    }
    free(out);
}

static void patterned(char *memory, size_t size)
{
    for (size_t i = 0; i < size; i++)
        memory[i] = (char)(i * 7 + i / 251);
}

struct reader {
    struct nfsds_call call;
    struct READ3args arguments;
    struct iovec iov[2];
    char *memory;
};

static struct reader *reader(uint32_t size)
{
    struct reader *reader = calloc(1, sizeof(*reader));
    reader->memory = malloc(size + 8);
    memset(reader->memory, 0, size + 8);
    reader->arguments = (struct READ3args){file(), 4096, size};
    reader->iov[0] = (struct iovec){reader->memory, 5};
    reader->iov[1] = (struct iovec){reader->memory + 5, size};
    reader->call = (struct nfsds_call){
        .procedure = NFS_READ, .arguments = &reader->arguments, .iov = reader->iov, .iov_count = 2, .skip = 3};
    return reader;
}

static void one_read(uint32_t size, size_t fragment, size_t step, bool attributes)
{
    struct reader *asks = reader(size);
    char *data = malloc(size);
    uint8_t *record = malloc(size + 256);
    patterned(data, size);
    int before = answers;
    cr_assert_eq(put(&asks->call), 0);
    uint8_t *end = read_answer(record, asks->call.number, data, size, attributes);
    answer(record, (size_t)(end - record), fragment, step);
    cr_assert_eq(answers, before + 1);
    cr_assert_eq(answered_error, 0);
    cr_assert_eq(read_result.count, size);
    cr_assert_eq(memcmp(asks->memory + 3, data, size), 0);
    cr_assert_eq(asks->memory[2], 0);
    cr_assert_eq(asks->memory[3 + size], 0);
    free(record);
    free(data);
    free(asks->memory);
    free(asks);
}

Test(nfs_wire, reads_come_in_any_pieces)
{
    const uint32_t sizes[] = {1, 2, 511, 4096, 40001, 300000};
    const size_t steps[] = {1, 3, 161, 5000, 1000000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (size_t j = sizes[i] > 5000; j < sizeof(steps) / sizeof(steps[0]); j++) {
            one_read(sizes[i], 1 << 24, steps[j], j % 2);
            one_read(sizes[i], sizes[i] / 3 + 1, steps[j], j % 2);
        }
}

Test(nfs_wire, answers_find_their_calls)
{
    struct reader *first = reader(4096), *second = reader(60000);
    char *data = malloc(60000);
    uint8_t *record = malloc(130000);
    patterned(data, 60000);
    cr_assert_eq(put(&first->call), 0);
    cr_assert_eq(put(&second->call), 0);
    cr_assert_neq(first->call.number, second->call.number);
    uint8_t *end = add(read_answer(record + 4, 77777, data, 60000, true), 0); /* nobody's, and longer than it says */
    add(record, LAST | (uint32_t)(end - record - 4));
    cr_assert_eq(write(ends[1], record, (size_t)(end - record)), end - record);
    cr_assert_eq(nfsds_wire_receive(wire, ends[0]), 0);
    cr_assert_eq(answers, 0);
    end = read_answer(record, second->call.number, data, 60000, true);
    answer(record, (size_t)(end - record), 1 << 24, 100000);
    cr_assert_eq(answered_call, &second->call);
    cr_assert_eq(memcmp(second->memory + 3, data, 60000), 0);
    end = read_answer(record, first->call.number, data + 9, 4096, true);
    answer(record, (size_t)(end - record), 1 << 24, 100000);
    cr_assert_eq(answered_call, &first->call);
    cr_assert_eq(memcmp(first->memory + 3, data + 9, 4096), 0);
    free(record);
    free(data);
}

Test(nfs_wire, a_refused_call_is_an_error_of_its_own)
{
    struct reader *first = reader(4096), *second = reader(4096);
    uint8_t record[64];
    put(&first->call);
    put(&second->call);
    uint8_t *end = add(add(add(add(add(record, first->call.number), 1), 1), 1), 5); /* denied: the credentials */
    answer(record, (size_t)(end - record), 1000, 1000);
    cr_assert_eq(answered_call, &first->call);
    cr_assert_eq(answered_error, -EIO);
    end = head(record, second->call.number);
    add(end - 4, 3); /* no such procedure */
    answer(record, (size_t)(end - record), 1000, 1000);
    cr_assert_eq(answered_call, &second->call);
    cr_assert_eq(answered_error, -EIO);
}

Test(nfs_wire, a_read_that_failed)
{
    struct reader *asks = reader(100000);
    uint8_t record[64];
    put(&asks->call);
    uint8_t *end = add(add(head(record, asks->call.number), NFS3ERR_STALE), 0);
    answer(record, (size_t)(end - record), 1000, 1);
    cr_assert_eq(answered_error, 0);
    cr_assert_eq(status, NFS3ERR_STALE);
}

static int receive_of(const uint8_t *bytes, size_t size)
{
    cr_assert_eq(write(ends[1], bytes, size), (ssize_t)size);
    return nfsds_wire_receive(wire, ends[0]);
}

Test(nfs_wire, more_data_than_was_asked_for)
{
    struct reader *asks = reader(100);
    char data[200] = {1};
    uint8_t record[512];
    put(&asks->call);
    uint8_t *end = read_answer(record + 4, asks->call.number, data, 200, true);
    add(record, LAST | (uint32_t)(end - record - 4));
    cr_assert_eq(receive_of(record, (size_t)(end - record)), -EPROTO);
    cr_assert_eq(asks->memory[0], 0);
}

Test(nfs_wire, no_answer_at_all)
{
    uint8_t record[] = "HTTP/1.1 400 Bad Request\r\n";
    cr_assert_eq(receive_of(record, sizeof(record)), -EPROTO);
}

Test(nfs_wire, a_question_is_no_answer)
{
    uint8_t record[28] = {0x80, 0, 0, 24, 0, 0, 0, 100};
    cr_assert_eq(receive_of(record, sizeof(record)), -EPROTO);
}

Test(nfs_wire, the_end)
{
    shutdown(ends[1], SHUT_WR);
    cr_assert_eq(nfsds_wire_receive(wire, ends[0]), -ECONNRESET);
}

struct writer {
    struct nfsds_call call;
    struct WRITE3args arguments;
    struct iovec iov[3];
    char *memory;
};

static struct writer *writer(uint32_t size, uint64_t skip)
{
    struct writer *writer = calloc(1, sizeof(*writer));
    writer->memory = malloc(size + 100);
    patterned(writer->memory, size + 100);
    writer->arguments = (struct WRITE3args){file(), 12345, size, UNSTABLE, {size, NULL}};
    writer->iov[0] = (struct iovec){writer->memory, 10};
    writer->iov[1] = (struct iovec){writer->memory + 10, 20};
    writer->iov[2] = (struct iovec){writer->memory + 30, size + 70};
    writer->call = (struct nfsds_call){
        .procedure = NFS_WRITE, .arguments = &writer->arguments, .iov = writer->iov, .iov_count = 3, .skip = skip};
    return writer;
}

/* Header of 17 words: marker, number, 0, 2, program, version, procedure, flavor, length, stamp, name, uid, gid, …  */
#define HEADER    (4 * 18)
#define ARGUMENTS (4 + 8 + 8 + 4 + 4 + 4)

static void check_write(const uint8_t *message, const struct writer *expected)
{
    uint32_t size = expected->arguments.count, padded = (size + 3) / 4 * 4;
    cr_assert_eq(number_at(message), LAST | (HEADER - 4 + ARGUMENTS + padded));
    cr_assert_eq(number_at(message + 4), expected->call.number);
    cr_assert_eq(number_at(message + 8), 0);
    cr_assert_eq(number_at(message + 12), 2);
    cr_assert_eq(number_at(message + 16), 100003);
    cr_assert_eq(number_at(message + 20), 3);
    cr_assert_eq(number_at(message + 24), 7);
    cr_assert_eq(number_at(message + 52), 7); /* uid */
    cr_assert_eq(number_at(message + 56), 8);
    const uint8_t *arguments = message + HEADER;
    cr_assert_eq(number_at(arguments), sizeof(file_handle));
    cr_assert_eq(memcmp(arguments + 4, file_handle, sizeof(file_handle)), 0);
    cr_assert_eq(number_at(arguments + 16), 12345);
    cr_assert_eq(number_at(arguments + 20), size);
    cr_assert_eq(number_at(arguments + 24), UNSTABLE);
    cr_assert_eq(number_at(arguments + 28), size);
    cr_assert_eq(memcmp(message + HEADER + ARGUMENTS, expected->memory + expected->call.skip, size), 0);
    for (uint32_t i = size; i < padded; i++)
        cr_assert_eq(message[HEADER + ARGUMENTS + i], 0);
}

Test(nfs_wire, writes_leave_as_they_are)
{
    const uint32_t sizes[] = {1, 3, 512, 4096, 16384, 16385, 70001};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (uint64_t skip = 0; skip < 40; skip += 13) {
            size_t size = HEADER + ARGUMENTS + (sizes[i] + 3) / 4 * 4;
            struct writer *writes = writer(sizes[i], skip);
            uint8_t *message = malloc(size);
            put(&writes->call);
            take(message, size);
            check_write(message, writes);
            list_remove(&writes->call.link);
            free(message);
            free(writes->memory);
            free(writes);
        }
}

/* More than the socket takes: in order, whole, and close_ranks does not mix anything up. */
Test(nfs_wire, many_writes_while_the_socket_is_full)
{
    enum { COUNT = 600 };
    struct writer *writes[COUNT];
    uint8_t *message = malloc(200000);
    unsigned taken = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        writes[i] = writer(i % 7 == 0 ? 50001 + i : 1 + i * 13 % 6000, i % 30);
        put(&writes[i]->call);
        for (; i >= 200 && taken < i / 2; taken++) {
            take(message, HEADER + ARGUMENTS + (writes[taken]->arguments.count + 3) / 4 * 4);
            check_write(message, writes[taken]);
        }
    }
    for (; taken < COUNT; taken++) {
        take(message, HEADER + ARGUMENTS + (writes[taken]->arguments.count + 3) / 4 * 4);
        check_write(message, writes[taken]);
    }
    cr_assert_eq(nfsds_wire_send(wire, ends[0]), 0);
    free(message);
}

/* A call that was given up: its memory may go before it is sent. */
Test(nfs_wire, disowned_data_is_sent_all_the_same)
{
    struct writer *fills = writer(1 << 20, 0), *given_up = writer(90000, 11), *kept = writer(90000, 11);
    uint8_t *message = malloc(2 << 20);
    cr_assert_eq(put(&fills->call), 1);
    put(&given_up->call);
    cr_assert_eq(nfsds_wire_disown(wire, &given_up->call), 0);
    memset(given_up->memory, 0xee, 90000);
    take(message, HEADER + ARGUMENTS + (1 << 20));
    check_write(message, fills);
    take(message, HEADER + ARGUMENTS + 90000);
    kept->call.number = given_up->call.number;
    check_write(message, kept);
    free(message);
}

/* What is left of the write goes out as it was, whatever its owner does with the memory after the answer. */
Test(nfs_wire, an_answer_before_the_end_of_the_question)
{
    struct writer *writes = writer(1 << 20, 5), *kept = writer(1 << 20, 5);
    uint8_t record[64], *message = malloc(2 << 20);
    cr_assert_eq(put(&writes->call), 1);
    uint8_t *end = add(add(add(head(record, writes->call.number), NFS3ERR_NOSPC), 0), 0);
    answer(record, (size_t)(end - record), 1000, 1000);
    cr_assert_eq(answers, 1);
    cr_assert_eq(status, NFS3ERR_NOSPC);
    memset(writes->memory, 0xee, 1 << 20);
    take(message, HEADER + ARGUMENTS + (1 << 20));
    kept->call.number = writes->call.number;
    check_write(message, kept);
    free(message);
}

Test(nfs_wire, a_writes_answer)
{
    struct writer *writes = writer(4096, 0);
    uint8_t record[512];
    put(&writes->call);
    uint8_t *end = add(add(head(record, writes->call.number), NFS3_OK), 1);
    memset(end, 1, 24);
    end = add(end + 24, 1);
    memset(end, 2, 84);
    end = add(add(end + 84, 4096), FILE_SYNC);
    memcpy(end, "verifier", 8);
    answer(record, (size_t)(end + 8 - record), 1000, 1);
    cr_assert_eq(write_result.count, 4096);
    cr_assert_eq(write_result.committed, FILE_SYNC);
    cr_assert_eq(memcmp(write_result.verf, "verifier", 8), 0);
    put(&writes->call);
    answer(record, 40, 1000, 1); /* of the call before: nobody's */
    cr_assert_eq(answers, 1);
    head(record, writes->call.number);
    answer(record, 40, 1000, 1); /* it ends too soon */
    cr_assert_eq(answers, 2);
    cr_assert_eq(answered_error, -EIO);
}
