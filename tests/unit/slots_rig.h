/* What test_slots.c stands on: a channel in a worker of its own, with a socket in the place of /dev/fuse, that the test
 * kills. */
#pragma once

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
#include "fs/crash.h"
#include "fs/filesystem.h"
#include "fs/poison.h"
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
    DEED_CRASH,      /* dies of the signal that is the write's length */
    DEED_CRASH_CALL, /* the same in a call on a pool */
};

/* Shared by the test and its workers. */
struct world {
    _Atomic unsigned executed, calls, afters, poison;
    struct execution {
        uint64_t unique;
        bool retry;
    } log[EXECUTIONS];
    _Atomic bool open;
    _Atomic int crash; /* the worker's main thread raises it */
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

void poison_tell(struct filesystem *fs, struct slot *slot)
{
    world->poison++;
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

static int crash_signal(struct request *request)
{
    return (int)((const struct fuse_write_in *)request->body)->size;
}

static int crash_call(struct request *request)
{
    raise(crash_signal(request));
    return 0;
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
    case DEED_CRASH:
        raise(crash_signal(request));
        break;
    case DEED_CRASH_CALL:
        request_block(request, &datastores[0], crash_call, unblocked);
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
    crash_arm();
    for (unsigned i = 0; i < DATASTORES; i++)
        if (pool_open(&datastores[i].pool, "pool", 1) < 0)
            _exit(91);
    filesystem.catalog = (struct catalog *)world;
    filesystem.reactor_count = 1;
    if (session_map(&filesystem.session, session.fd) < 0 || reactor_start(&filesystem.reactors[0], 0) < 0)
        _exit(92);
    reactor_call(filesystem.reactors[0], open_it, NULL);
    while (!channel_gone(filesystem.channels[0])) {
        usleep(1000);
        if (world->crash)
            raise(world->crash);
    }
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
    int pair[2], size = 64 << 20; /* all answers of a test: the true kernel takes each */
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
