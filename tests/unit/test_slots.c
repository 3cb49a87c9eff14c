/* Channels without a kernel: a SOCK_SEQPACKET pair stands in for /dev/fuse (it keeps the borders of messages), the test
 * is the kernel, a forked process the worker, which dies where it is told to. What it leaves in the session's memory is
 * what the next one starts from. */
#include <criterion/criterion.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/event.h"
#include "fs/channel.h"
#include "fs/filesystem.h"
#include "fs/slots.h"
#include "fs/verbs.h"

#define WAIT_MS    10000
#define EXECUTIONS 4096
#define DATASTORES 2
#define DISK_BYTES (4u << 20)

/* What the worker is to do with a request: a WRITE's or READ's fh says it. */
enum deed {
    DEED_ANSWER,
    DEED_HOLD,   /* never answered */
    DEED_LINGER, /* answered, but the slot is held */
    DEED_HANG,   /* accounted to datastore 0, never answered */
    DEED_OTHER,  /* accounted to datastore 1, answered */
    DEED_BLOCK,  /* a call on a pool that waits for world->open */
    DEED_ENOSYS,
};

/* Shared by the test and its workers. */
struct world {
    _Atomic unsigned executed, calls, afters;
    struct execution {
        uint64_t unique;
        bool retry;
    } log[EXECUTIONS];
    _Atomic bool open;
    uint8_t disk[DISK_BYTES];
};

static struct world *world;
static struct session session;
static int kernel, device; /* the two ends */
static struct datastore datastores[DATASTORES];
static struct filesystem filesystem;

/* Stand-ins for the other rooms. */
struct datastore *catalog_datastore(struct catalog *catalog, unsigned index)
{
    return &datastores[index];
}

unsigned catalog_datastore_count(struct catalog *catalog)
{
    return DATASTORES;
}

void disk_expire(struct reactor *reactor)
{
}

bool verb_may_be_enosys(uint32_t opcode)
{
    return opcode == FUSE_COPY_FILE_RANGE;
}

static void reply_read(struct request *request)
{
    const struct fuse_read_in *in = request->body;
    if (!request_buffer(request, in->size, reply_read))
        return;
    size_t done = 0;
    for (int i = 0; i < request->data_count; i++) {
        memcpy(request->data[i].iov_base, world->disk + in->offset + done, request->data[i].iov_len);
        done += request->data[i].iov_len;
    }
    if (in->fh != DEED_HOLD)
        request_reply_iov(request, request->data, request->data_count, in->size);
}

static void write_disk(struct request *request)
{
    const struct fuse_write_in *in = request->body;
    size_t done = 0;
    for (int i = 0; i < request->data_count; i++) {
        memcpy(world->disk + in->offset + done, request->data[i].iov_base, request->data[i].iov_len);
        done += request->data[i].iov_len;
    }
    struct fuse_write_out out = {.size = (uint32_t)done};
    request_reply_bytes(request, &out, sizeof(out));
}

static int blocked(struct request *request)
{
    world->calls++;
    while (!world->open)
        usleep(1000);
    return -EXDEV;
}

static void unblocked(struct request *request, int error)
{
    world->afters++;
    request_reply(request, error);
}

static void do_deed(struct request *request, enum deed deed)
{
    switch (deed) {
    case DEED_ANSWER:
        write_disk(request);
        break;
    case DEED_HOLD:
        request_hold(request);
        break;
    case DEED_LINGER:
        request_hold(request);
        write_disk(request);
        break;
    case DEED_HANG:
        if (!request_account(request, 0))
            request_reply(request, -EIO);
        break;
    case DEED_OTHER:
        if (request_account(request, 1))
            write_disk(request);
        else
            request_reply(request, -EBUSY);
        break;
    case DEED_BLOCK:
        request_block(request, &datastores[0], blocked, unblocked);
        break;
    case DEED_ENOSYS:
        request_reply(request, -ENOSYS);
        break;
    }
}

void request_dispatch(struct request *request)
{
    unsigned at = world->executed++;
    if (at < EXECUTIONS)
        world->log[at] = (struct execution){request->in->unique, request->retry};
    switch (request->in->opcode) {
    case FUSE_WRITE:
        do_deed(request, (enum deed)((const struct fuse_write_in *)request->body)->fh);
        break;
    case FUSE_READ:
        reply_read(request);
        break;
    case FUSE_SETXATTR: /* answers with the first and the last byte of the body */
        request_reply_bytes(request,
            (uint8_t[]){
                ((const uint8_t *)request->body)[0], ((const uint8_t *)request->body)[request->body_length - 1]},
            2);
        break;
    case FUSE_FORGET:
        request_no_reply(request);
        break;
    default:
        request_reply_enosys(request);
    }
}

static void open_it(void *argument)
{
    int error = channel_open(
        &filesystem.channels[0], &filesystem, filesystem.reactors[0], &filesystem.session, 0, device);
    if (error)
        _exit(90);
}

/* Never returns: the worker lives until it is killed, dies of an event, or the kernel's end is closed. */
static void work(const char *die_at)
{
    close(kernel);
    if (die_at)
        setenv("SVMFS_DIE_AT", die_at, 1);
    event_arm();
    for (unsigned i = 0; i < DATASTORES; i++)
        if (pool_open(&datastores[i].pool, "pool", 1) < 0)
            _exit(91);
    filesystem.catalog = (struct catalog *)world;
    filesystem.reactor_count = 1;
    if (session_map(&filesystem.session, session.fd) < 0 || reactor_start(&filesystem.reactors[0], 0) < 0)
        _exit(92);
    reactor_call(filesystem.reactors[0], open_it, NULL);
    while (!channel_gone(filesystem.channels[0]))
        usleep(1000);
    /* What still runs keeps its slot; otherwise none may be left. */
    for (int i = 0; i < 200 && channel_active(filesystem.channels[0]); i++)
        usleep(1000);
    unsigned active = channel_active(filesystem.channels[0]);
    reactor_stop(filesystem.reactors[0]);
    channel_free(filesystem.channels[0]);
    _exit((int)active);
}

static void setup(void)
{
    int pair[2], size = 8 << 20;
    world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(world, MAP_FAILED);
    cr_assert_eq(session_create(&session, 1, 0), 0);
    session.head->slots_used[0] = 64; /* as if a worker had been there */
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    kernel = pair[0];
    device = pair[1];
    setsockopt(kernel, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    setsockopt(device, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    ioctl(device, FIONBIO, &(int){1}); /* fcntl.h and io/lock.h both name LOCK_MODE_READ */
    for (unsigned i = 0; i < DATASTORES; i++)
        datastores[i] = (struct datastore){.index = i, .timeout_ns = 3 * NS_PER_S, .name = "store"};
}

static pid_t start(const char *die_at)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0)
        work(die_at);
    return pid;
}

static int end(pid_t pid)
{
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return status;
}

static void kill_worker(pid_t pid)
{
    kill(pid, SIGKILL);
    end(pid);
}

/* The kernel closes the connection; exit status: requests that are still active. */
static void finish(pid_t pid, int active)
{
    close(kernel);
    int status = end(pid);
    cr_assert(WIFEXITED(status), "the worker died: %#x", (unsigned)status);
    cr_assert_eq(WEXITSTATUS(status), active, "%d requests are active, not %d", WEXITSTATUS(status), active);
}

static void await(_Atomic unsigned *count, unsigned least)
{
    for (int i = 0; i < WAIT_MS && *count < least; i++)
        usleep(1000);
    cr_assert_geq(*count, least);
}

static void send_request(
    uint64_t unique, uint32_t opcode, const void *body, size_t body_length, const void *data, size_t length)
{
    struct fuse_in_header in = {
        .len = (uint32_t)(sizeof(in) + body_length + length), .opcode = opcode, .unique = unique, .nodeid = 1};
    struct iovec iov[] = {{&in, sizeof(in)}, {(void *)body, body_length}, {(void *)data, length}};
    cr_assert_eq(writev(kernel, iov, 3), (ssize_t)in.len);
}

static void send_write(uint64_t unique, enum deed deed, uint64_t offset, const void *data, size_t length)
{
    struct fuse_write_in in = {.fh = deed, .offset = offset, .size = (uint32_t)length};
    send_request(unique, FUSE_WRITE, &in, sizeof(in), data, length);
}

static void send_read(uint64_t unique, enum deed deed, uint64_t offset, uint32_t size)
{
    struct fuse_read_in in = {.fh = deed, .offset = offset, .size = size};
    send_request(unique, FUSE_READ, &in, sizeof(in), NULL, 0);
}

static bool answered_within(int ms)
{
    struct pollfd look = {.fd = kernel, .events = POLLIN};
    return poll(&look, 1, ms) == 1 && (look.revents & POLLIN);
}

/* The next reply's unique; its error and length in out. */
static struct fuse_out_header receive(void *data, size_t room)
{
    struct fuse_out_header out;
    struct iovec iov[] = {{&out, sizeof(out)}, {data, room}};
    cr_assert(answered_within(WAIT_MS), "no answer");
    ssize_t length = readv(kernel, iov, 2);
    cr_assert_geq(length, (ssize_t)sizeof(out));
    cr_assert_eq(out.len, length);
    return out;
}

static void expect_answer(uint64_t unique, int error)
{
    struct fuse_out_header out = receive((uint8_t[SLOT_REPLY_MAX]){0}, SLOT_REPLY_MAX);
    cr_assert_eq(out.unique, unique, "the answer is for %llu", (unsigned long long)out.unique);
    cr_assert_eq(out.error, error, "error %d", out.error);
}

static uint8_t *pattern(size_t length, unsigned seed)
{
    uint8_t *data = malloc(length);
    for (size_t i = 0; i < length; i++)
        data[i] = (uint8_t)((i * 31 + seed * 7 + (i >> 8)) & 0xff);
    return data;
}

static unsigned slots_not_free(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < session.head->slots; i++) {
        struct slot *slot = session_slot(&session, 0, i);
        count += atomic_load(&slot->state) != SLOT_FREE && slot_in(slot)->unique != 0;
    }
    return count;
}

/* The worker is done with all but count requests: killed now, it answers none of them twice. */
static void settle(unsigned count)
{
    for (int i = 0; i < WAIT_MS && slots_not_free() > count; i++)
        usleep(1000);
    cr_assert_eq(slots_not_free(), count);
}

TestSuite(slots, .init = setup, .timeout = 60);

Test(slots, requests_of_every_length_arrive_whole)
{
    static const size_t lengths[] = {1, 4095, 4096, 4097, 4096 + 65536, 4096 + 65537, 100000, 1 << 20};
    pid_t pid = start(NULL);
    for (unsigned round = 0; round < 20; round++)
        for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
            uint8_t *data = pattern(lengths[i], round + i), *back = malloc(lengths[i]);
            send_write(1 + round, DEED_ANSWER, 512, data, lengths[i]);
            expect_answer(1 + round, 0);
            send_read(2 + round, DEED_ANSWER, 512, (uint32_t)lengths[i]);
            cr_assert_eq(receive(back, lengths[i]).len, sizeof(struct fuse_out_header) + lengths[i]);
            cr_assert_arr_eq(data, back, lengths[i]);
            free(data);
            free(back);
        }
    finish(pid, 0);
    cr_assert_eq(slots_not_free(), 0);
}

Test(slots, a_body_in_chunks_is_one_stretch)
{
    pid_t pid = start(NULL);
    for (unsigned i = 0; i < 100; i++) {
        uint8_t *body = pattern(65000, i), ends[2];
        send_request(i + 1, FUSE_SETXATTR, body, 65000, NULL, 0);
        cr_assert_eq(receive(ends, 2).error, 0);
        cr_assert_eq(ends[0], body[0]);
        cr_assert_eq(ends[1], body[64999]);
        free(body);
    }
    finish(pid, 0);
}

Test(slots, what_was_done_is_answered_again_and_never_executed_again)
{
    static const char *const moments[] = {"slot-done:1", "slot-answered:1"};
    for (unsigned i = 0; i < 2; i++) {
        unsigned before = world->executed;
        pid_t pid = start(moments[i]);
        send_write(70 + i, DEED_ANSWER, 0, "old", 3);
        cr_assert_eq(WEXITSTATUS(end(pid)), 99);
        if (i == 1)
            expect_answer(71, 0); /* the first worker's */
        memcpy(world->disk, "new", 3);
        pid = start(NULL);
        expect_answer(70 + i, 0);
        send_write(90 + i, DEED_ANSWER, 100, "x", 1);
        expect_answer(90 + i, 0);
        cr_assert_eq(world->executed, before + 2);
        cr_assert_arr_eq(world->disk, "new", 3);
        settle(0);
        kill_worker(pid);
    }
}

Test(slots, an_error_is_recorded_as_a_result)
{
    pid_t pid = start("slot-done:1");
    send_request(5, FUSE_COPY_FILE_RANGE, NULL, 0, NULL, 0);
    cr_assert_eq(WEXITSTATUS(end(pid)), 99);
    pid = start(NULL);
    expect_answer(5, -ENOSYS);
    finish(pid, 0);
    cr_assert_eq(world->executed, 1);
}

Test(slots, what_was_read_and_never_begun_is_no_retry)
{
    pid_t pid = start("slot-read:1");
    uint8_t *data = pattern(200000, 3);
    send_write(5, DEED_ANSWER, 0, data, 200000);
    cr_assert_eq(WEXITSTATUS(end(pid)), 99);
    cr_assert_eq(world->executed, 0);
    pid = start(NULL);
    expect_answer(5, 0);
    finish(pid, 0);
    cr_assert_eq(world->executed, 1);
    cr_assert_not(world->log[0].retry);
    cr_assert_arr_eq(world->disk, data, 200000);
    free(data);
}

Test(slots, killed_inside_of_readv_the_request_is_in_the_slot)
{
    struct slot *slot = session_slot(&session, 0, 40);
    uint32_t window[SLOT_CHUNKS];
    for (unsigned i = 0; i < SLOT_CHUNKS; i++)
        window[i] = 63 - 2 * i;
    slot_reading(slot, window);
    uint8_t *data = pattern(FUSE_PAGE + 70000, 9);
    memcpy(slot_payload(slot), data, FUSE_PAGE);
    memcpy(session_chunk(&session, 0, 63), data + FUSE_PAGE, CHUNK_SIZE);
    memcpy(session_chunk(&session, 0, 61), data + FUSE_PAGE + CHUNK_SIZE, 70000 - CHUNK_SIZE);
    struct fuse_write_in in = {.size = FUSE_PAGE + 70000};
    memcpy((uint8_t *)slot_in(slot) + sizeof(struct fuse_in_header), &in, sizeof(in));
    *slot_in(slot) = (struct fuse_in_header){
        .len = SLOT_HEADER + FUSE_PAGE + 70000, .opcode = FUSE_WRITE, .unique = 77};
    pid_t pid = start(NULL);
    expect_answer(77, 0);
    for (uint64_t i = 0; i < 100; i++) { /* every chunk is to be had, once */
        send_write(100 + i, DEED_ANSWER, 2 << 20, data, FUSE_PAGE + 70000);
        expect_answer(100 + i, 0);
    }
    finish(pid, 0);
    cr_assert_arr_eq(world->disk, data, FUSE_PAGE + 70000);
    cr_assert_not(world->log[0].retry);
    free(data);
}

Test(slots, a_slot_being_read_without_a_request_is_free)
{
    struct slot *slot = session_slot(&session, 0, 3);
    slot_reading(slot, (uint32_t[SLOT_CHUNKS]){0});
    pid_t pid = start(NULL);
    send_write(1, DEED_ANSWER, 0, "a", 1);
    expect_answer(1, 0);
    finish(pid, 0);
    cr_assert_eq(world->executed, 1);
}

Test(slots, what_was_begun_is_a_retry_with_its_payload)
{
    uint8_t *data[20];
    pid_t pid = start(NULL);
    for (unsigned i = 0; i < 20; i++) {
        data[i] = pattern(50000 + i * 777, i);
        send_write(10 + i, DEED_HOLD, i * 100000, data[i], 50000 + i * 777);
    }
    send_read(50, DEED_HOLD, 0, 200000);
    await(&world->executed, 21);
    kill_worker(pid);
    cr_assert_eq(slots_not_free(), 21);
    for (unsigned i = 0; i < 20; i++) { /* this time they may go on */
        for (unsigned j = 0; j < session.head->slots; j++) {
            struct slot *slot = session_slot(&session, 0, j);
            struct fuse_write_in *in = (void *)(slot_in(slot) + 1);
            if (slot_in(slot)->unique == 10 + i)
                in->fh = DEED_ANSWER;
        }
    }
    pid = start(NULL);
    for (unsigned i = 0; i < 20; i++)
        cr_assert_eq(receive((uint8_t[16]){0}, 16).error, 0);
    await(&world->executed, 42);
    for (unsigned i = 21; i < 42; i++)
        cr_assert(world->log[i].retry);
    for (unsigned i = 0; i < 20; i++) {
        cr_assert_arr_eq(world->disk + i * 100000, data[i], 50000 + i * 777);
        free(data[i]);
    }
    finish(pid, 1); /* the read that is never answered */
}

/* Law 9: a write is answered, its slot is still held (a ghost may refer to it); another slot's write overwrites it; the
 * worker dies. The next one must not bring the old bytes back. */
Test(slots, an_answered_write_does_not_come_back_over_a_newer_one)
{
    pid_t pid = start(NULL);
    send_write(1, DEED_LINGER, 4096, "old bytes", 9);
    expect_answer(1, 0);
    send_write(2, DEED_ANSWER, 4096, "new bytes", 9);
    expect_answer(2, 0);
    settle(1);
    kill_worker(pid);
    pid = start(NULL);
    send_read(3, DEED_ANSWER, 4096, 9);
    char back[9];
    cr_assert_eq(receive(back, sizeof(back)).unique, 3);
    cr_assert_arr_eq(back, "new bytes", 9);
    finish(pid, 0);
    cr_assert_eq(world->executed, 3);
    cr_assert_eq(slots_not_free(), 0);
}

Test(slots, forget_needs_no_answer)
{
    pid_t pid = start(NULL);
    for (uint64_t i = 1; i <= 1000; i++)
        send_request(i, FUSE_FORGET, &(struct fuse_forget_in){1}, sizeof(struct fuse_forget_in), NULL, 0);
    await(&world->executed, 1000);
    cr_assert_not(answered_within(20));
    finish(pid, 0);
}

Test(slots, law_12_no_stray_enosys)
{
    pid_t pid = start(NULL);
    send_write(1, DEED_ENOSYS, 0, "a", 1);
    expect_answer(1, -EOPNOTSUPP);
    send_request(2, FUSE_COPY_FILE_RANGE, NULL, 0, NULL, 0);
    expect_answer(2, -ENOSYS);
    finish(pid, 0);
}

Test(slots, a_length_that_lies_is_refused)
{
    pid_t pid = start(NULL);
    struct fuse_write_in in = {.size = 5000};
    send_request(1, FUSE_WRITE, &in, sizeof(in), "abc", 3);
    expect_answer(1, -EIO);
    struct fuse_in_header header = {.len = 4000, .opcode = FUSE_READ, .unique = 2};
    cr_assert_eq(write(kernel, &header, sizeof(header)), (ssize_t)sizeof(header));
    cr_assert_eq(write(kernel, "x", 1), 1);
    send_write(3, DEED_ANSWER, 0, "a", 1);
    expect_answer(3, 0);
    finish(pid, 0);
    cr_assert_eq(world->executed, 1);
}

Test(slots, garbage_in_the_table_is_left_alone)
{
    for (unsigned i = 0; i < 20; i++) {
        struct slot *slot = session_slot(&session, 0, i);
        *slot_in(slot) = (struct fuse_in_header){.len = i * 100003, .opcode = FUSE_WRITE, .unique = i + 1};
        slot->chunk_count = i;
        memset(slot->chunks, 0xff, sizeof(slot->chunks));
        slot->reply_length = 100000;
        atomic_store(&slot->state, i % 2 ? SLOT_DONE : i % 4 ? 99 : SLOT_READ);
    }
    pid_t pid = start(NULL);
    send_write(30, DEED_ANSWER, 0, "a", 1);
    expect_answer(30, 0);
    finish(pid, 0);
    cr_assert_eq(world->executed, 1);
}

Test(slots, a_timeout_answers_once_and_the_slot_stays_held)
{
    datastores[0].timeout_ns = 300 * NS_PER_MS;
    pid_t pid = start(NULL);
    send_write(1, DEED_HANG, 0, "a", 1);
    cr_assert_not(answered_within(200));
    expect_answer(1, -EIO);
    cr_assert_not(answered_within(400));
    cr_assert_eq(slots_not_free(), 1);
    finish(pid, 1);
}

Test(slots, a_call_that_had_not_begun_in_time_is_never_made)
{
    datastores[0].timeout_ns = 300 * NS_PER_MS;
    pid_t pid = start(NULL);
    for (uint64_t i = 1; i <= 3; i++)
        send_write(i, DEED_BLOCK, 0, "a", 1);
    for (uint64_t i = 1; i <= 3; i++)
        cr_assert_eq(receive(NULL, 0).error, -EIO);
    cr_assert_eq(world->calls, 1);
    world->open = true;
    await(&world->afters, 3);
    cr_assert_eq(world->calls, 1);
    cr_assert_not(answered_within(50));
    finish(pid, 0);
}

Test(slots, a_call_answers_with_its_result)
{
    world->open = true;
    pid_t pid = start(NULL);
    send_write(1, DEED_BLOCK, 0, "a", 1);
    expect_answer(1, -EXDEV);
    finish(pid, 0);
}

/* Reads of 1 MiB, more than there are chunks for; those that wait get theirs when the others give back. */
Test(slots, those_that_wait_for_memory_get_it)
{
    uint8_t *data = pattern(1 << 20, 5), *back = malloc(1 << 20);
    memcpy(world->disk, data, 1 << 20);
    pid_t pid = start(NULL);
    for (uint64_t i = 1; i <= 40; i++)
        send_read(i, DEED_ANSWER, 0, 1 << 20);
    for (uint64_t i = 1; i <= 40; i++) {
        cr_assert_eq(receive(back, 1 << 20).error, 0);
        cr_assert_arr_eq(back, data, 1 << 20);
    }
    finish(pid, 0);
    free(data);
    free(back);
}

/* Law 14: a datastore that hangs under a flood: the other one is served, the flood's excess ends at once, the rest in
 * time. */
Test(slots, a_flood_on_a_datastore_that_hangs_leaves_the_other_one_served)
{
    unsigned flood = session.head->slots * 2, refused = 0, others = 0;
    struct timespec pause = {.tv_nsec = 20 * (long)NS_PER_MS};
    datastores[0].timeout_ns = 4 * NS_PER_S;
    pid_t pid = start(NULL);
    uint64_t begun = clock_now();
    for (unsigned i = 0; i < flood; i++)
        send_write(1000 + i, DEED_HANG, 0, "a", 1);
    nanosleep(&pause, NULL);
    for (unsigned i = 0; i < 100; i++)
        send_write(1 + i, DEED_OTHER, 0, "b", 1);
    while (others < 100 || refused < flood) {
        struct fuse_out_header out = receive((uint8_t[16]){0}, 16);
        cr_assert_eq(out.error, out.unique < 1000 ? 0 : -EIO);
        if (out.unique >= 1000)
            refused++;
        else if (++others == 100)
            cr_assert_lt(clock_now() - begun, datastores[0].timeout_ns, "the others waited for the one that hangs");
    }
    kill_worker(pid);
}

Test(slots, the_end_of_the_connection_is_noticed)
{
    pid_t pid = start(NULL);
    finish(pid, 0);
}
