/* Images against a server that forgets, is silent, or executes late (nfs_stage.h). */
#include <criterion/criterion.h>

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/nfs_rpc.h"
#include "base/clock.h"
#include "io/datastore.h"
#include "nfs_stage.h"

#define BLOCK 4096

static struct stage stage;
static struct reactor *reactor;
static struct datastore *datastore;
static struct image *image;
static _Atomic uint64_t notes[DATASTORE_NOTES];
static unsigned char memory[1 << 20];

static void open_datastore(unsigned generation, uint64_t quiet_ns)
{
    static const struct datastore_ops *const backends[] = {&backend_nfs, NULL};
    char url[100];
    struct sentence why = {""};
    snprintf(url, sizeof(url), "nfs://127.0.0.1:%d/export?mountport=%d", stage.port, stage.port);
    struct datastore_options options = {
        .name = "nas", .url = url, .timeout_ns = 3 * NS_PER_S, .threads = 2, .quiet_ns = quiet_ns};
    cr_assert_eq(datastore_new(&datastore, &options, backends, &why), 0);
    datastore->notes = notes;
    datastore->identity.generation = generation;
    cr_assert_eq(datastore_open(datastore, &why), 0, "%s", why.text);
    cr_assert_eq(reactor_start(&reactor, 0), 0);
    cr_assert_eq(datastore->ops->open_image(datastore, "disk", true, &image), 0);
}

static void start(uint64_t quiet_ns)
{
    stage_start(&stage);
    open_datastore(1, quiet_ns);
}

static void close_datastore(void)
{
    image_put(image);
    datastore_free(datastore);
    reactor_stop(reactor);
}

/* A worker that is killed: nothing is closed, nothing is flushed. Its memory stays, as a leak. */
static void kill_worker(void)
{
    stage_cut(&stage);
}

struct wait {
    struct io io;
    struct iovec iov[2];
    sem_t ended;
};

static void io_done(struct io *io)
{
    sem_post(&container_of(io, struct wait, io)->ended);
}

static void submit(void *argument)
{
    struct wait *wait = argument;
    image_submit(image, &wait->io);
}

static void send(struct wait *wait, enum verb verb, uint64_t start_at, uint64_t end, void *bytes)
{
    wait->io = (struct io){.verb = verb, .extent = {start_at, end}, .done = io_done};
    if (bytes) {
        /* in two pieces, so that nothing is in one by luck */
        wait->iov[0] = (struct iovec){bytes, 1};
        wait->iov[1] = (struct iovec){(char *)bytes + 1, end - start_at - 1};
        wait->io.iov = wait->iov;
        wait->io.iov_count = 2;
    }
    sem_init(&wait->ended, 0, 0);
    reactor_call(reactor, submit, wait);
}

static int result(struct wait *wait)
{
    sem_wait(&wait->ended);
    return wait->io.result;
}

static int verb(enum verb what, uint64_t start_at, uint64_t end, void *bytes)
{
    struct wait wait;
    send(&wait, what, start_at, end, bytes);
    return result(&wait);
}

static int write_block(uint64_t number, int value)
{
    static unsigned char block[BLOCK];
    memset(block, value, sizeof(block));
    return verb(VERB_WRITE, number * BLOCK, (number + 1) * BLOCK, block);
}

static int flush(void)
{
    return verb(VERB_FLUSH, 0, 0, NULL);
}

static bool holds(const unsigned char *what, uint64_t number, int value)
{
    pthread_mutex_lock(&stage.mutex);
    bool all = true;
    for (unsigned i = 0; i < BLOCK; i++)
        all = all && what[number * BLOCK + i] == value;
    pthread_mutex_unlock(&stage.mutex);
    return all;
}

static void finish(void)
{
    close_datastore();
    stage_stop(&stage);
}

static void await_writes(unsigned count)
{
    while (stage_writes(&stage) < count)
        usleep(1000);
}

static void let_writes_pass(bool pass)
{
    pthread_mutex_lock(&stage.mutex);
    stage.hold_writes = !pass;
    pthread_mutex_unlock(&stage.mutex);
}

TestSuite(nfs_image, .timeout = 60);

Test(nfs_image, a_flush_makes_durable)
{
    start(0);
    cr_assert_eq(write_block(3, 7), 0);
    cr_assert(holds(stage.cached, 3, 7) && holds(stage.durable, 3, 0));
    cr_assert_eq(flush(), 0);
    cr_assert(holds(stage.durable, 3, 7));
    unsigned commits = stage_commits(&stage);
    cr_assert_eq(flush(), 0);
    cr_assert_eq(stage_commits(&stage), commits, "a flush of nothing asks nothing");
    finish();
}

/* Law 10. The server restarts between the write and the flush. */
Test(nfs_image, what_the_server_lost_is_written_again)
{
    start(0);
    for (int i = 0; i < 20; i++)
        cr_assert_eq(write_block((uint64_t)i, i + 1), 0);
    stage_crash(&stage);
    cr_assert(holds(stage.cached, 5, 0));
    cr_assert_eq(flush(), 0);
    for (int i = 0; i < 20; i++)
        cr_assert(holds(stage.durable, (uint64_t)i, i + 1));
    finish();
}

Test(nfs_image, newer_bytes_stay_newer)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    cr_assert_eq(write_block(2, 2), 0);
    stage_crash(&stage);
    cr_assert_eq(write_block(1, 9), 0);
    cr_assert_eq(flush(), 0);
    cr_assert(holds(stage.durable, 1, 9) && holds(stage.durable, 2, 2));
    finish();
}

/* An answer with another verifier is enough: nobody has to flush. */
Test(nfs_image, a_restart_is_seen_to_at_once)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    stage_crash(&stage);
    cr_assert_eq(write_block(2, 2), 0);
    for (unsigned i = 0; i < 1000 && !holds(stage.durable, 1, 1); i++)
        usleep(10000);
    cr_assert(holds(stage.durable, 1, 1));
    finish();
}

Test(nfs_image, what_was_cut_off_is_not_brought_back)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    cr_assert_eq(write_block(2, 2), 0);
    cr_assert_eq(verb(VERB_RESIZE, 0, 2 * BLOCK, NULL), 0);
    stage_crash(&stage);
    cr_assert_eq(verb(VERB_RESIZE, 0, 4 * BLOCK, NULL), 0);
    cr_assert_eq(flush(), 0);
    cr_assert(holds(stage.durable, 1, 1) && holds(stage.durable, 2, 0));
    finish();
}

/* Law 6. A write that its server holds when the connection dies is sent again, with the same bytes; a newer one of the
 * same block waits until the first can land no more. */
Test(nfs_image, a_ghost_is_waited_for)
{
    struct wait first, second, other;
    static unsigned char a[BLOCK], b[BLOCK], c[BLOCK];
    memset(a, 1, BLOCK);
    memset(b, 2, BLOCK);
    memset(c, 3, BLOCK);
    start(NS_PER_S);
    let_writes_pass(false);
    send(&first, VERB_WRITE, 0, BLOCK, a);
    await_writes(1);
    let_writes_pass(true);
    stage_cut(&stage);
    cr_assert_eq(result(&first), 0);
    uint64_t answered = clock_now();
    cr_assert_eq(stage_writes(&stage), 2);
    send(&second, VERB_WRITE, 0, BLOCK, b);
    send(&other, VERB_WRITE, BLOCK, 2 * BLOCK, c);
    cr_assert_eq(result(&other), 0, "what does not overlap does not wait");
    usleep(300000);
    cr_assert_eq(stage_writes(&stage), 3, "the newer one has not been sent");
    stage_land(&stage);
    cr_assert_eq(result(&second), 0);
    cr_assert(clock_now() - answered > NS_PER_S / 2);
    cr_assert(holds(stage.cached, 0, 2));
    finish();
}

/* Another verifier: the ghost died with the server's process. The quiet time would be an hour. */
Test(nfs_image, a_new_server_has_no_ghosts)
{
    struct wait first;
    static unsigned char a[BLOCK];
    memset(a, 1, BLOCK);
    start(3600 * NS_PER_S);
    cr_assert_eq(write_block(9, 9), 0);
    let_writes_pass(false);
    send(&first, VERB_WRITE, 0, BLOCK, a);
    await_writes(2);
    let_writes_pass(true);
    stage_crash(&stage);
    cr_assert_eq(result(&first), 0);
    cr_assert_eq(write_block(0, 2), 0);
    cr_assert(holds(stage.cached, 0, 2));
    finish();
}

/* The verifier that was known before is of a server that died unnoticed: the ghost is with the one that answers. */
Test(nfs_image, a_ghost_of_the_new_server_is_waited_for)
{
    struct wait first, second;
    static unsigned char a[BLOCK], b[BLOCK];
    memset(a, 1, BLOCK);
    memset(b, 2, BLOCK);
    start(NS_PER_S);
    cr_assert_eq(write_block(9, 9), 0);
    stage_crash(&stage);
    let_writes_pass(false);
    send(&first, VERB_WRITE, 0, BLOCK, a);
    await_writes(2);
    let_writes_pass(true);
    stage_cut(&stage);
    cr_assert_eq(result(&first), 0);
    send(&second, VERB_WRITE, 0, BLOCK, b);
    usleep(300000);
    cr_assert(holds(stage.cached, 0, 1));
    stage_land(&stage);
    cr_assert_eq(result(&second), 0);
    cr_assert(holds(stage.cached, 0, 2));
    finish();
}

static void fenced(void *argument)
{
    sem_post(argument);
}

/* The worker before may have ghosts that this one knows nothing of: the fence takes the quiet time from the first answer
 * on. */
Test(nfs_image, the_next_workers_fence_takes_its_time)
{
    sem_t told;
    sem_init(&told, 0, 0);
    stage_start(&stage);
    uint64_t began = clock_now();
    open_datastore(2, NS_PER_S);
    image_fence(image, fenced, &told);
    sem_wait(&told);
    cr_assert(clock_now() - began >= NS_PER_S);
    image_fence(image, fenced, &told);
    sem_wait(&told);
    finish();
}

static void be_silent(bool silent)
{
    pthread_mutex_lock(&stage.mutex);
    stage.silent = silent;
    pthread_mutex_unlock(&stage.mutex);
}

/* A server that stands still works nothing off: its time begins again. */
Test(nfs_image, the_quiet_time_of_a_server_that_stands_still_does_not_count)
{
    sem_t told;
    sem_init(&told, 0, 0);
    stage_start(&stage);
    uint64_t began = clock_now();
    open_datastore(2, NS_PER_S);
    image_fence(image, fenced, &told);
    usleep(400000);
    be_silent(true);
    usleep(500000);
    be_silent(false);
    sem_wait(&told);
    cr_assert(clock_now() - began >= 2 * NS_PER_S);
    finish();
}

Test(nfs_image, a_fence_waits_for_the_quiet_time_of_its_own_ghosts)
{
    struct wait first;
    sem_t told;
    static unsigned char a[BLOCK];
    sem_init(&told, 0, 0);
    start(NS_PER_S);
    let_writes_pass(false);
    send(&first, VERB_WRITE, 0, BLOCK, a);
    await_writes(1);
    let_writes_pass(true);
    stage_cut(&stage);
    cr_assert_eq(result(&first), 0);
    uint64_t answered = clock_now();
    image_fence(image, fenced, &told);
    sem_wait(&told);
    cr_assert(clock_now() - answered > NS_PER_S / 2);
    finish();
}

/* The payloads of a dead worker died with it: what its server then lost fails the first flush, and only that. */
Test(nfs_image, what_a_dead_worker_lost_is_told_once)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    kill_worker();
    stage_crash(&stage);
    open_datastore(2, NS_PER_MS);
    cr_assert_eq(flush(), -EIO);
    cr_assert_eq(flush(), 0);
    cr_assert_eq(write_block(1, 2), 0);
    cr_assert_eq(flush(), 0);
    cr_assert(holds(stage.durable, 1, 2));
}

/* Not a loss that a flush of svmfs's own found, which nobody waited for. */
Test(nfs_image, a_loss_waits_for_somebody_to_be_told)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    kill_worker();
    stage_crash(&stage);
    open_datastore(2, NS_PER_MS);
    while (stage_commits(&stage) == 0)
        usleep(1000);
    image_put(image);
    datastore_free(datastore);
    reactor_stop(reactor);
    open_datastore(3, NS_PER_MS);
    cr_assert_eq(flush(), -EIO);
    cr_assert_eq(flush(), 0);
}

/* Not only when the guest flushes: the server's own death may come before. */
Test(nfs_image, what_a_dead_worker_left_is_committed_at_once)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    kill_worker();
    open_datastore(2, NS_PER_MS);
    while (stage_commits(&stage) == 0)
        usleep(1000);
    stage_crash(&stage);
    cr_assert_eq(write_block(2, 2), 0);
    cr_assert_eq(flush(), 0);
    cr_assert(holds(stage.durable, 1, 1));
    cr_assert(holds(stage.durable, 2, 2));
}

Test(nfs_image, what_a_dead_worker_left_is_committed)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    kill_worker();
    open_datastore(2, NS_PER_MS);
    cr_assert_eq(flush(), 0);
    cr_assert(holds(stage.durable, 1, 1));
    unsigned commits = stage_commits(&stage);
    cr_assert_eq(flush(), 0);
    cr_assert_eq(stage_commits(&stage), commits);
}

/* What was flushed before the worker died is not the next one's worry. */
Test(nfs_image, what_a_dead_worker_flushed_is_safe)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    cr_assert_eq(flush(), 0);
    kill_worker();
    stage_crash(&stage);
    open_datastore(2, NS_PER_MS);
    cr_assert_eq(flush(), 0);
    cr_assert(holds(stage.durable, 1, 1));
}

/* Server and worker die, in that order, with a flush between: the next worker's first flush is not to fail. */
Test(nfs_image, a_verifier_that_was_caught_up_with_is_the_one_that_counts)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    stage_crash(&stage);
    cr_assert_eq(write_block(2, 2), 0);
    cr_assert_eq(flush(), 0);
    cr_assert_eq(write_block(3, 3), 0);
    kill_worker();
    open_datastore(2, NS_PER_MS);
    cr_assert_eq(flush(), 0);
    cr_assert(holds(stage.durable, 3, 3));
}

Test(nfs_image, asked_again_when_told_to_come_later)
{
    start(0);
    pthread_mutex_lock(&stage.mutex);
    stage.jukebox = 3;
    pthread_mutex_unlock(&stage.mutex);
    cr_assert_eq(write_block(1, 1), 0);
    pthread_mutex_lock(&stage.mutex);
    stage.jukebox = 2;
    pthread_mutex_unlock(&stage.mutex);
    cr_assert_eq(flush(), 0);
    pthread_mutex_lock(&stage.mutex);
    stage.jukebox = 2;
    pthread_mutex_unlock(&stage.mutex);
    cr_assert_eq(verb(VERB_RESIZE, 0, BLOCK, NULL), 0);
    finish();
}

Test(nfs_image, exact_errors)
{
    static const struct {
        int status, error;
    } all[] = {{NFS3ERR_NOSPC, -ENOSPC}, {NFS3ERR_DQUOT, -EDQUOT}, {NFS3ERR_STALE, -ESTALE}, {NFS3ERR_ACCES, -EACCES},
        {NFS3ERR_ROFS, -EROFS}, {NFS3ERR_IO, -EIO}, {NFS3ERR_FBIG, -EFBIG}};
    start(0);
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        pthread_mutex_lock(&stage.mutex);
        stage.status = all[i].status;
        pthread_mutex_unlock(&stage.mutex);
        cr_assert_eq(write_block(1, 1), all[i].error);
    }
    cr_assert_eq(write_block(1, 1), 0);
    finish();
}

/* Nothing is heard: the connection is given up, and the next one gets the same call. Names do not wait for ever. */
Test(nfs_image, silence)
{
    struct wait first;
    struct stat st;
    static unsigned char a[BLOCK];
    memset(a, 4, BLOCK);
    start(NS_PER_MS);
    pthread_mutex_lock(&stage.mutex);
    stage.silent = true;
    unsigned connections = stage.connections;
    pthread_mutex_unlock(&stage.mutex);
    send(&first, VERB_WRITE, 0, BLOCK, a);
    cr_assert_eq(datastore->ops->lookup(datastore, "disk", &st), -ETIMEDOUT);
    pthread_mutex_lock(&stage.mutex);
    stage.silent = false;
    cr_assert_gt(stage.connections, connections + 1);
    pthread_mutex_unlock(&stage.mutex);
    cr_assert_eq(result(&first), 0);
    cr_assert_eq(datastore->ops->lookup(datastore, "disk", &st), 0);
    cr_assert(holds(stage.cached, 0, 4));
    finish();
}

Test(nfs_image, short_answers_and_small_transfers)
{
    stage_start(&stage);
    stage.transfer = 64 << 10;
    stage.most = 10000;
    open_datastore(1, 0);
    for (unsigned i = 0; i < sizeof(memory); i++)
        memory[i] = (unsigned char)(i * 7 + i / 251);
    cr_assert_eq(verb(VERB_WRITE, 12345, 12345 + 700001, memory), 0);
    cr_assert(memcmp(stage.cached + 12345, memory, 700001) == 0);
    memset(memory, 0, sizeof(memory));
    cr_assert_eq(verb(VERB_READ, 12345, 12345 + 800000, memory), 0);
    for (unsigned i = 0; i < 800000; i++)
        cr_assert_eq(memory[i], i < 700001 ? (unsigned char)(i * 7 + i / 251) : 0);
    cr_assert_eq(flush(), 0);
    cr_assert(memcmp(stage.durable + 12345, stage.cached + 12345, 700001) == 0);
    finish();
}

/* The copies are bounded: a COMMIT comes by itself, and the writes go on. */
Test(nfs_image, the_budget_is_kept_by_commits)
{
    start(0);
    memset(memory, 5, sizeof(memory));
    for (uint64_t i = 0; i < 79; i++)
        cr_assert_eq(verb(VERB_WRITE, i << 20, (i + 1) << 20, memory), 0);
    cr_assert_geq(stage_commits(&stage), 1);
    stage_crash(&stage);
    cr_assert_eq(flush(), 0);
    for (uint64_t i = 0; i < 79; i++)
        cr_assert(holds(stage.durable, i << 8, 5));
    finish();
}

/* A server that makes every write durable at once needs no copies, and older copies must not come back over it. */
Test(nfs_image, stable_answers)
{
    start(0);
    cr_assert_eq(write_block(1, 1), 0);
    pthread_mutex_lock(&stage.mutex);
    stage.stable = FILE_SYNC;
    pthread_mutex_unlock(&stage.mutex);
    cr_assert_eq(write_block(1, 2), 0);
    stage_crash(&stage);
    cr_assert_eq(flush(), 0);
    cr_assert(holds(stage.durable, 1, 2));
    finish();
}
