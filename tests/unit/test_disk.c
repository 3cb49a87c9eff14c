/* The laws of the data path, on puppet images. */
#include "disk_rig.h"

TestSuite(disk, .init = setup, .timeout = 30);

Test(disk, a_write_to_a_region_not_copied_goes_to_the_truth_alone)
{
    struct asked w;
    ask(&w, VERB_WRITE, 0, 4096);
    cr_expect(source.count == 1 && target.count == 0);
    end(&source, 0);
    cr_expect(w.answered && w.released && w.io.result == 0);
}

Test(disk, law_8_a_mirrored_write_is_acknowledged_by_both)
{
    struct asked w;
    route_all();
    ask(&w, VERB_WRITE, 0, 4096);
    cr_expect(source.count == 1 && target.count == 1);
    end(&source, 0);
    cr_expect(!w.answered);
    end(&target, 0);
    cr_expect(w.answered && w.io.result == 0);
    cr_expect_eq(mirror_written(mirror), 4096);
}

Test(disk, law_5_overlapping_writes_reach_both_legs_in_one_order)
{
    struct asked first, second;
    route_all();
    ask(&first, VERB_WRITE, 0, 4096);
    ask(&second, VERB_WRITE, 512, 1024);
    cr_expect(source.count == 1 && target.count == 1, "the second waits for both legs of the first");
    end(&source, 0);
    cr_expect_eq(source.count, 0, "the target has not had the first one yet");
    end(&target, 0);
    cr_expect(source.count == 1 && target.count == 1);
    end(&source, 0);
    end(&target, 0);
    cr_expect(first.released && second.released);
}

Test(disk, law_13_a_failing_target_does_not_hurt_the_guest)
{
    struct asked w, next;
    route_all();
    ask(&w, VERB_WRITE, 0, 4096);
    end(&target, -ENOSPC);
    end(&source, 0);
    cr_expect(w.answered && w.io.result == 0);
    cr_expect(drops == 1 && drop_error == -ENOSPC);
    ask(&next, VERB_WRITE, 0, 4096);
    cr_expect(source.count == 1 && target.count == 0, "a dropped target is sent nothing");
    end(&source, 0);
    cr_expect_eq(next.io.result, 0);
}

Test(disk, law_13_and_7_a_hung_target_costs_its_timeout_and_keeps_the_payload)
{
    struct asked w, next;
    route_all();
    ask(&w, VERB_WRITE, 0, 4096);
    end(&source, 0);
    wait_and_expire(20000);
    cr_expect(!w.answered);
    wait_and_expire(60000);
    cr_expect(w.answered && w.io.result == 0 && drop_error == -ETIMEDOUT);
    cr_expect(!w.released, "the target may still read the payload");
    ask(&next, VERB_WRITE, 0, 4096);
    cr_expect_eq(source.count, 1, "the disk goes on");
    end(&source, 0);
    end(&target, 0);
    cr_expect(w.released);
}

Test(disk, law_6_a_ghost_keeps_its_lock)
{
    struct asked ghost, next, elsewhere;
    ask(&ghost, VERB_WRITE, 0, 4096);
    wait_and_expire(200000);
    cr_expect(ghost.answered && ghost.io.result == -EIO && !ghost.released);
    ask(&next, VERB_WRITE, 0, 512);
    ask(&elsewhere, VERB_WRITE, 8192, 12288);
    cr_expect_eq(source.count, 2, "a write over the ghost would race with it; another one must not wait");
    end(&source, 0);
    cr_expect(ghost.released);
    cr_expect_eq(source.count, 2, "the ghost has landed");
}

Test(disk, what_was_given_up_on_is_not_seen_to_land_later)
{
    struct asked ghost, r, elsewhere;
    disk_detach(disk, mirror); /* reads of a disk that does not move take no lock otherwise */
    ask(&ghost, VERB_WRITE, 0, 4096);
    wait_and_expire(200000);
    ask(&r, VERB_READ, 0, 4096);
    ask(&elsewhere, VERB_READ, 8192, 12288);
    cr_expect_eq(source.count, 2, "a read of the ghost's bytes waits; another one does not");
    end(&source, 0);
    cr_expect(ghost.released);
    end(&source, 0);
    end(&source, 0);
    cr_expect(r.answered && r.io.result == 0 && elsewhere.answered);
    ask(&ghost, VERB_WRITE, 0, 4096);
    ask(&r, VERB_READ, 0, 4096);
    cr_expect_eq(source.count, 2, "no ghost, no lock");
}

Test(disk, a_request_that_waits_for_a_ghost_ends_in_time_too)
{
    struct asked ghost, waiting;
    ask(&ghost, VERB_WRITE, 0, 4096);
    ask(&waiting, VERB_WRITE, 0, 4096);
    wait_and_expire(200000);
    cr_expect(ghost.answered && waiting.answered && waiting.io.result == -EIO && waiting.released);
    end(&source, 0);
    cr_expect_eq(source.count, 0, "what was given up while it waited is never sent");
}

Test(disk, law_6_ghosts_of_a_dead_worker_are_fenced_first)
{
    struct asked w;
    disk_detach(disk, mirror);
    disk_add_ghost(disk, (struct extent){0, 4096});
    ask(&w, VERB_WRITE, 0, 4096);
    cr_expect_eq(source.count, 0);
    fenced_call(fenced_argument);
    reactor_call(reactor, nothing, NULL);
    cr_expect_eq(source.count, 1);
    end(&source, 0);
}

Test(disk, law_1_while_the_commit_is_unknown_only_both_legs_count)
{
    struct asked failed, kept;
    route_all();
    cr_assert(mirror_commit_begin(mirror));
    ask(&failed, VERB_WRITE, 0, 4096);
    ask(&kept, VERB_WRITE, 4096, 8192);
    end(&source, 0);
    end(&target, -EIO);
    cr_expect(!failed.answered && drops == 0, "neither answer is right yet, and the target must not be dropped");
    end(&source, -EIO);
    end(&target, 0);
    cr_expect(!kept.answered);
    disk_flip(disk, mirror);
    reactor_call(reactor, unpark, NULL);
    cr_expect(failed.answered && failed.io.result == -EIO, "the target is the truth");
    cr_expect(kept.answered && kept.io.result == 0);
}

Test(disk, law_1_a_commit_that_did_not_happen_leaves_the_source_the_truth)
{
    struct asked failed;
    route_all();
    cr_assert(mirror_commit_begin(mirror));
    ask(&failed, VERB_WRITE, 0, 4096);
    end(&source, 0);
    end(&target, -EIO);
    wait_and_expire(60000);
    cr_expect(!failed.answered, "no target-timeout while the commit is unknown");
    mirror_commit_failed(mirror);
    reactor_call(reactor, unpark, NULL);
    cr_expect(failed.answered && failed.io.result == 0 && drops == 1);
}

Test(disk, a_commit_waits_for_every_region)
{
    cr_expect(!mirror_commit_begin(mirror));
    route_all();
    cr_expect(mirror_commit_begin(mirror));
}

Test(disk, a_read_after_the_flip_waits_for_a_write_that_was_sent_to_both)
{
    struct asked w, r;
    route_all();
    cr_assert(mirror_commit_begin(mirror));
    ask(&w, VERB_WRITE, 0, 4096);
    end(&source, 0);
    disk_flip(disk, mirror);
    ask(&r, VERB_READ, 0, 4096);
    cr_expect_eq(target.count, 1, "else it could see the old bytes after a read from the source saw the new ones");
    cr_expect(!disk_mirror_idle(disk, mirror));
    end(&target, 0);
    cr_expect(w.answered);
    cr_expect_eq(target.count, 1);
    end(&target, 0);
    cr_expect(r.answered && r.io.result == 0);
    cr_expect(disk_mirror_idle(disk, mirror));
}

Test(disk, after_the_flip_a_hung_source_is_not_waited_for)
{
    struct asked w, next;
    route_all();
    cr_assert(mirror_commit_begin(mirror));
    ask(&w, VERB_WRITE, 0, 4096);
    disk_flip(disk, mirror);
    end(&target, 0);
    cr_expect(w.answered && w.io.result == 0 && !w.released);
    ask(&next, VERB_WRITE, 0, 4096);
    cr_expect(target.count == 1 && source.count == 1);
    end(&target, 0);
    end(&source, 0);
    cr_expect(next.released && w.released);
}

Test(disk, a_source_that_fails_leaves_the_region_to_be_copied_again)
{
    struct asked w;
    route_all();
    cr_expect_eq(mirror_unrouted(mirror), 0);
    ask(&w, VERB_WRITE, REGION_SIZE, REGION_SIZE + 4096);
    end(&source, -EIO);
    end(&target, 0);
    cr_expect(w.answered && w.io.result == -EIO && drops == 0);
    cr_expect_eq(mirror_next_unrouted(mirror, 0), 1);
}

Test(disk, a_resize_goes_to_the_truth_first)
{
    struct asked r, w;
    ask(&r, VERB_RESIZE, 0, SIZE / 2);
    cr_expect(source.count == 1 && target.count == 0);
    ask(&w, VERB_WRITE, SIZE - 4096, SIZE);
    cr_expect_eq(source.count, 1, "a write past the new end waits");
    end(&source, 0);
    cr_expect_eq(target.count, 1);
    end(&target, 0);
    cr_expect(r.answered && r.io.result == 0);
    cr_expect_eq(disk_size(disk), SIZE / 2);
}

Test(disk, a_resize_that_the_truth_refuses_never_reaches_the_target)
{
    struct asked r;
    ask(&r, VERB_RESIZE, 0, SIZE * 2);
    end(&source, -ENOSPC);
    cr_expect(r.answered && r.io.result == -ENOSPC);
    cr_expect(target.count == 0 && drops == 0);
}

Test(disk, what_grows_past_the_end_is_mirrored_at_once)
{
    struct asked w;
    ask(&w, VERB_WRITE, SIZE + REGION_SIZE, SIZE + REGION_SIZE + 4096);
    cr_expect(source.count == 1 && target.count == 1);
    cr_expect_eq(mirror_regions(mirror), SIZE / REGION_SIZE + 2);
    cr_expect_eq(mirror_unrouted(mirror), SIZE / REGION_SIZE, "what lies between is empty on both legs");
    end(&source, 0);
    end(&target, 0);
    cr_expect(w.answered);
}

Test(disk, law_4_what_was_written_through_the_mirror_is_no_hole)
{
    struct asked w;
    struct extent first = {0, REGION_SIZE}, second = {REGION_SIZE, 2 * REGION_SIZE};
    mirror_set_routed(mirror, first);
    ask(&w, VERB_WRITE, REGION_SIZE - 4096, REGION_SIZE + 4096);
    cr_expect_eq(target.count, 1);
    cr_expect(mirror_touched(mirror, first) && mirror_touched(mirror, second));
    end(&source, 0);
    end(&target, 0);
}

Test(disk, no_commit_before_all_is_compared)
{
    struct extent second = {REGION_SIZE, 2 * REGION_SIZE};
    mirror_set_routed(mirror, (struct extent){0, SIZE});
    cr_assert_eq(mirror_compare_begin(mirror), 0);
    cr_expect_eq(mirror_uncompared(mirror), 4);
    cr_expect_not(mirror_commit_begin(mirror));
    mirror_set_compared(mirror, (struct extent){0, SIZE});
    cr_expect_eq(mirror_next_uncompared(mirror, 0), mirror_regions(mirror));
    mirror_set_dirty(mirror, second);
    mirror_set_routed(mirror, second);
    cr_expect_eq(mirror_next_uncompared(mirror, 0), 1);
    cr_expect_not(mirror_commit_begin(mirror), "copied again is not compared again");
    mirror_route(mirror, VERB_WRITE, (struct extent){SIZE, SIZE + 1});
    mirror_set_compared(mirror, second);
    cr_expect_eq(mirror_uncompared(mirror), 0, "what grows later is written to both legs alone");
    cr_expect(mirror_commit_begin(mirror));
}
