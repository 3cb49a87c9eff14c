#include <criterion/criterion.h>
#include <errno.h>
#include <unistd.h>

#include "fs/ghosts.h"

static void put(struct session *session, unsigned index, uint64_t state, int error, uint32_t opcode, uint64_t node)
{
    struct slot *slot = session_slot(session, 0, index);
    struct fuse_in_header *in = slot_in(slot);
    struct fuse_write_in *write = (void *)(in + 1);
    *in = (struct fuse_in_header){.opcode = opcode, .unique = 100 + index, .nodeid = node};
    *write = (struct fuse_write_in){.offset = 4096, .size = 512};
    slot->error = error;
    slot->state = state;
}

Test(ghosts, unanswered_writes_of_a_dead_worker_are_found)
{
    struct session session;
    struct ghosts *ghosts = NULL;
    cr_assert_eq(session_create(&session, 1, 1 << 20), 0);
    put(&session, 0, SLOT_READ, 0, FUSE_WRITE, 20);
    put(&session, 1, SLOT_READING, 0, FUSE_WRITE, 21);
    put(&session, 2, SLOT_DONE, 0, FUSE_WRITE, 22);
    put(&session, 3, SLOT_ANSWERED, 0, FUSE_WRITE, 23);
    put(&session, 4, SLOT_ANSWERED, -EIO, FUSE_WRITE, 24);
    put(&session, 5, SLOT_READ, 0, FUSE_READ, 25);
    put(&session, 6, SLOT_FREE, 0, FUSE_WRITE, 26);
    put(&session, 7, SLOT_READING, 0, FUSE_WRITE, 27);
    slot_in(session_slot(&session, 0, 7))->unique = 0;
    session.head->slots_used[0] = 8;
    cr_assert_eq(ghosts_find(&ghosts, &session), 0);
    const bool expected[] = {true, true, false, false, true, false, false, false};
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(ghosts_any(ghosts, 20 + i), expected[i], "slot %u", i);
    ghosts_free(ghosts);
    session_unmap(&session);
    close(session.fd);
}

Test(ghosts, extents)
{
    struct {
        struct fuse_in_header in;
        union {
            struct fuse_write_in write;
            struct fuse_fallocate_in fallocate;
            struct fuse_setattr_in setattr;
        };
    } r = {.in.opcode = FUSE_WRITE, .write = {.offset = 10, .size = 20}};
    struct extent e = ghosts_extent(&r.in, &r.write);
    cr_assert(e.start == 10 && e.end == 30);
    r.write.offset = UINT64_MAX;
    cr_assert(extent_empty(ghosts_extent(&r.in, &r.write)));
    r.in.opcode = FUSE_FALLOCATE;
    r.fallocate = (struct fuse_fallocate_in){.offset = 5, .length = UINT64_MAX};
    e = ghosts_extent(&r.in, &r.write);
    cr_assert(e.start == 5 && e.end == INT64_MAX);
    r.in.opcode = FUSE_SETATTR;
    r.setattr = (struct fuse_setattr_in){.valid = FATTR_MODE, .size = 7};
    cr_assert(extent_empty(ghosts_extent(&r.in, &r.write)));
    r.setattr.valid = FATTR_SIZE;
    e = ghosts_extent(&r.in, &r.write);
    cr_assert(e.start == 7 && e.end == INT64_MAX, "a cut may still take away what is behind it");
}
