/* Channels without a kernel: a SOCK_SEQPACKET pair stands in for /dev/fuse (it keeps the borders of messages), the test
 * is the kernel, a forked process the worker, which dies where it is told to. What it leaves in the session's memory is
 * what the next one starts from. */
#include "tests/unit/slots_rig.h"

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

/* AddressSanitizer: deaths by signals are what is tested here; it shall not make exits of them. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigill=0:handle_sigfpe=0";
}

static void expect_death(pid_t pid, int number)
{
    int status = end(pid);
    cr_assert(
        WIFSIGNALED(status) && WTERMSIG(status) == number, "wait status %#x, not signal %d", (unsigned)status, number);
}

/* One request waits for ever; another kills three workers, each by the signal given, and is answered by the fourth. */
static void poison(enum deed deed, int number)
{
    pid_t pid = start(NULL);
    unsigned before = world->executed;
    send_write(1000, DEED_HOLD, 0, "innocent", 8);
    await(&world->executed, before + 1);
    send_write(1001, deed, 0, (uint8_t[64]){0}, (size_t)number);
    for (int deaths = 1; deaths <= SLOT_CRASHES_MAX; deaths++) {
        expect_death(pid, number);
        cr_assert_not(answered_within(0), "answered after %d crashes", deaths);
        pid = start(NULL);
    }
    expect_answer(1001, -EIO);
    send_write(1002, DEED_ANSWER, 0, "later", 5);
    expect_answer(1002, 0);
    settle(1);
    kill_worker(pid);
    cr_assert_eq(atomic_exchange(&world->poison, 0), 1);
    pid = start(NULL);
    settle(1); /* the innocent one is still there */
    kill_worker(pid);
    for (unsigned i = 0; i < session.head->slots; i++)
        slot_free(session_slot(&session, 0, i));
}

Test(slots, a_request_that_kills_three_workers_is_answered_with_an_error)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    for (unsigned i = 0; i < 5; i++) {
        poison(DEED_CRASH, fatal[i]);
        poison(DEED_CRASH_CALL, fatal[i]);
    }
}

Test(slots, what_kills_a_worker_from_outside_counts_for_no_request)
{
    static const int signals[] = {SIGKILL, SIGTERM, SIGSEGV, SIGABRT, SIGBUS};
    pid_t pid = start(NULL);
    send_write(1, DEED_HOLD, 0, "a", 1);
    send_write(2, DEED_BLOCK, 0, "b", 1);
    for (unsigned i = 0; i < 40; i++) {
        await(&world->executed, 2 * (i + 1));
        await(&world->calls, i + 1);
        kill(pid, signals[i % 5]);
        expect_death(pid, signals[i % 5]);
        pid = start(NULL);
    }
    cr_assert_not(answered_within(20));
    cr_assert_eq(world->poison, 0);
    world->open = true;
    expect_answer(2, -EXDEV);
    kill_worker(pid);
}

/* A worker whose own thread crashes while requests are held. */
Test(slots, a_crash_of_a_thread_that_works_for_nobody_counts_for_no_request)
{
    pid_t pid = start(NULL);
    send_write(1, DEED_HOLD, 0, "a", 1);
    for (unsigned i = 0; i < 5; i++) {
        await(&world->executed, i + 1);
        world->crash = SIGSEGV;
        expect_death(pid, SIGSEGV);
        world->crash = 0;
        pid = start(NULL);
    }
    await(&world->executed, 6);
    cr_assert_not(answered_within(20));
    kill_worker(pid);
}
