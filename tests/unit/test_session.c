/* The session's memory: layout, refusal of what is not ours, handles. */
#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fs/session.h"

#define BUFFERS (8u << 20)

static struct session make(unsigned reactors)
{
    struct session session;
    cr_assert_eq(session_create(&session, reactors, BUFFERS), 0);
    return session;
}

Test(session, pieces_do_not_overlap_and_are_aligned)
{
    struct session session = make(3);
    const struct session_head *head = session.head;
    uint8_t *end = session.base + head->handles_offset + (uint64_t)head->handles * head->handle_size;
    cr_assert(session.base + sizeof(*head) <= session.base + head->handles_offset);
    for (unsigned r = 0; r < 3; r++)
        for (unsigned i = 0; i < head->slots; i++) {
            uint8_t *slot = (uint8_t *)session_slot(&session, r, i);
            cr_assert(slot >= end && ((uintptr_t)slot & (FUSE_PAGE - 1)) == 0);
            end = slot + SLOT_SIZE;
        }
    for (unsigned r = 0; r < 3; r++)
        for (unsigned i = 0; i < head->chunks; i++) {
            uint8_t *chunk = session_chunk(&session, r, i);
            cr_assert(chunk >= end && ((uintptr_t)chunk & (FUSE_PAGE - 1)) == 0);
            end = chunk + CHUNK_SIZE;
        }
    cr_assert_eq((uint64_t)(end - session.base), head->size);
}

Test(session, write_payload_stands_on_a_page)
{
    struct session session = make(1);
    struct slot *slot = session_slot(&session, 0, 5);
    uint8_t *payload = (uint8_t *)slot_in(slot) + sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in);
    cr_assert_eq(payload, slot_payload(slot));
    cr_assert_eq((uintptr_t)payload % FUSE_PAGE, 0);
    cr_assert((uint8_t *)(slot + 1) <= (uint8_t *)slot_in(slot), "the record ends before the header");
}

Test(session, the_next_worker_sees_what_the_last_one_wrote)
{
    struct session session = make(2), next;
    strcpy((char *)session_chunk(&session, 1, 7), "payload");
    atomic_store(&session_slot(&session, 1, 3)->state, SLOT_DONE);
    cr_assert_eq(session_map(&next, session.fd), 0);
    cr_assert_neq(next.base, session.base);
    cr_assert_str_eq((char *)session_chunk(&next, 1, 7), "payload");
    cr_assert_eq(atomic_load(&session_slot(&next, 1, 3)->state), SLOT_DONE);
}

static int map_after(void (*spoil)(struct session_head *head))
{
    struct session session = make(1), next;
    spoil(session.head);
    return session_map(&next, session.fd);
}

static void other_magic(struct session_head *head)
{
    head->magic++;
}
static void other_version(struct session_head *head)
{
    head->version++;
}
static void unknown_feature(struct session_head *head)
{
    head->features = 1;
}
static void other_slot_size(struct session_head *head)
{
    head->slot_size *= 2;
}
static void other_handle_size(struct session_head *head)
{
    head->handle_size += 8;
}
static void more_slots(struct session_head *head)
{
    head->slots += 1;
}
static void no_reactors(struct session_head *head)
{
    head->reactors = 0;
}
static void other_offset(struct session_head *head)
{
    head->chunks_offset -= FUSE_PAGE;
}

Test(session, what_cannot_be_taken_is_refused)
{
    void (*spoilers[])(struct session_head *) = {other_magic, other_version, unknown_feature, other_slot_size,
        other_handle_size, more_slots, no_reactors, other_offset};
    for (size_t i = 0; i < sizeof(spoilers) / sizeof(spoilers[0]); i++)
        cr_expect_eq(map_after(spoilers[i]), -EPROTO, "spoiler %zu", i);
}

Test(session, a_shorter_file_is_refused)
{
    struct session session = make(1), next;
    cr_assert_eq(ftruncate(session.fd, (off_t)session.head->size - FUSE_PAGE), 0);
    cr_assert_eq(session_map(&next, session.fd), -EPROTO);
    cr_assert_eq(ftruncate(session.fd, 8), 0);
    cr_assert_eq(session_map(&next, session.fd), -EPROTO);
}

Test(session, populate_keeps_what_is_there)
{
    struct session session = make(1);
    uint8_t *chunk = session_chunk(&session, 0, 0);
    chunk[5] = 42;
    cr_assert_eq(session_populate(&session, chunk, 4 * CHUNK_SIZE), 0);
    cr_assert_eq(chunk[5], 42);
    unsigned char resident[4 * CHUNK_SIZE / FUSE_PAGE];
    cr_assert_eq(mincore(chunk, sizeof(resident) * FUSE_PAGE, resident), 0);
    for (size_t i = 0; i < sizeof(resident); i++)
        cr_expect(resident[i] & 1, "page %zu", i);
}

Test(session, handles_are_found_until_closed)
{
    struct session session = make(1);
    int64_t a = session_handle_open(&session, 17, 2), b = session_handle_open(&session, 17, 0);
    int64_t c = session_handle_open(&session, 18, 1);
    cr_assert(a >= 0 && b >= 0 && c >= 0 && a != b && b != c && a != c);
    cr_expect_eq(session_handle_get(&session, (uint64_t)a)->flags, 2);
    cr_expect_eq(session_handle_get(&session, (uint64_t)c)->nodeid, 18);
    session_handle_close(&session, (uint64_t)a);
    cr_expect_null(session_handle_get(&session, (uint64_t)a));
    cr_expect(session_handle_any(&session, 17));
    session_handle_close(&session, (uint64_t)b);
    cr_expect_not(session_handle_any(&session, 17));
    cr_expect(session_handle_any(&session, 18));
    cr_expect_null(session_handle_get(&session, session.head->handles));
    cr_expect_null(session_handle_get(&session, UINT64_MAX));
}

Test(session, a_full_table_says_so_and_goes_on_when_one_is_closed)
{
    struct session session = make(1);
    for (uint32_t i = 0; i < session.head->handles; i++)
        cr_assert(session_handle_open(&session, 1, 0) >= 0);
    cr_assert_eq(session_handle_open(&session, 1, 0), -ENFILE);
    session_handle_close(&session, 4711);
    cr_assert_eq(session_handle_open(&session, 2, 0), 4711);
}

Test(session, a_claim_that_a_dead_worker_left_is_dropped)
{
    struct session session = make(1), next;
    int64_t fh = session_handle_open(&session, 9, 0);
    atomic_store(&session_handle_get(&session, (uint64_t)fh)->nodeid, UINT64_MAX);
    cr_assert_eq(session_map(&next, session.fd), 0);
    cr_assert_eq(session_handle_open(&next, 10, 0), fh + 1);
    cr_assert_null(session_handle_get(&next, (uint64_t)fh));
    session_handle_close(&next, (uint64_t)fh + 1);
    session_handle_close(&next, (uint64_t)fh);
    cr_assert_eq(session_handle_open(&next, 10, 0), fh, "it can be had again");
}

#define RACERS 4
#define ROUNDS 2000

struct racer {
    struct session *session;
    uint64_t id;
    int wrong;
};

static void *race(void *argument)
{
    struct racer *racer = argument;
    for (int i = 0; i < ROUNDS; i++) {
        int64_t fh = session_handle_open(racer->session, racer->id, (uint32_t)racer->id);
        struct session_handle *handle = fh < 0 ? NULL : session_handle_get(racer->session, (uint64_t)fh);
        racer->wrong += !handle || handle->nodeid != racer->id || handle->flags != racer->id;
        if (fh >= 0)
            session_handle_close(racer->session, (uint64_t)fh);
    }
    return NULL;
}

Test(session, two_never_get_the_same_handle)
{
    struct session session = make(1);
    struct racer racers[RACERS];
    pthread_t threads[RACERS];
    for (unsigned i = 0; i < RACERS; i++) {
        racers[i] = (struct racer){&session, i + 1, 0};
        cr_assert_eq(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (unsigned i = 0; i < RACERS; i++) {
        pthread_join(threads[i], NULL);
        cr_expect_eq(racers[i].wrong, 0);
    }
}
