/* Reads that the source cannot answer, and what is lost. */
#include "disk_rig.h"

TestSuite(again, .init = setup, .timeout = 30);

Test(again, a_read_that_fails_on_a_copied_region_is_answered_by_the_target)
{
    struct asked r, w;
    route_all();
    ask(&r, VERB_READ, 4096, 8192);
    end(&source, -EIO);
    cr_expect(!r.answered && target.count == 1, "the target is asked");
    ask(&w, VERB_WRITE, 0, 8192);
    cr_expect_eq(source.count, 0, "no write comes between");
    end(&target, 0);
    cr_expect(r.answered && r.released && r.io.result == 0);
    cr_expect_eq(mirror_reads(mirror), 1);
    cr_expect(source.count == 1 && target.count == 1);
    end(&source, 0);
    end(&target, 0);
    cr_expect_eq(w.io.result, 0);
    disk_detach(disk, mirror);
    cr_expect(disk_mirror_idle(disk, mirror));
}

Test(again, a_read_that_the_target_cannot_answer_has_the_sources_error)
{
    struct asked r;
    route_all();
    ask(&r, VERB_READ, 0, 4096);
    end(&source, -ENODATA);
    end(&target, -EREMOTEIO);
    cr_expect(r.answered && r.released && r.io.result == -ENODATA && drops == 0);
    cr_expect_eq(mirror_reads(mirror), 0);
}

Test(again, a_read_of_what_is_not_copied_whole_fails_as_without_a_job)
{
    struct asked r;
    mirror_set_routed(mirror, (struct extent){0, REGION_SIZE});
    ask(&r, VERB_READ, REGION_SIZE - 4096, REGION_SIZE + 4096);
    end(&source, -EIO);
    cr_expect(r.answered && r.io.result == -EIO && target.count == 0);
}

Test(again, where_a_write_failed_on_the_source_no_read_is_answered_by_the_target)
{
    struct asked w, r;
    route_all();
    ask(&w, VERB_WRITE, 0, 4096);
    end(&source, -EIO);
    end(&target, 0);
    cr_expect_eq(w.io.result, -EIO);
    ask(&r, VERB_READ, 8192, 12288);
    end(&source, -EIO);
    cr_expect(r.answered && r.io.result == -EIO && target.count == 0);
}

Test(again, a_write_on_its_way_is_not_read_from_one_leg)
{
    struct asked r, w;
    route_all();
    ask(&r, VERB_READ, 0, 4096);
    ask(&w, VERB_WRITE, 0, 4096); /* a read keeps no write from coming */
    cr_assert_eq(source.count, 2);
    end(&source, -EIO);
    cr_expect(!r.answered);
    cr_expect_eq(target.count, 1, "the write alone: the read waits for it");
    end(&target, 0);
    end(&source, -EIO);
    cr_expect(w.answered && w.io.result == -EIO);
    cr_expect(r.answered && r.io.result == -EIO && target.count == 0, "they differ there now");
}

Test(again, law_13_a_target_that_hangs_in_such_a_read_costs_its_timeout)
{
    struct asked r;
    route_all();
    ask(&r, VERB_READ, 0, 4096);
    end(&source, -EIO);
    cr_expect_eq(target.count, 1);
    wait_and_expire(60000);
    cr_expect(r.answered && r.io.result == -EIO && !r.released && drop_error == -ETIMEDOUT);
    end(&target, 0);
    cr_expect(r.released && r.io.result == -EIO);
    cr_expect(disk_mirror_idle(disk, mirror));
}

Test(again, such_a_read_that_waits_for_a_ghost_ends_in_time)
{
    struct asked r, ghost;
    route_all();
    cr_assert(mirror_commit_begin(mirror)); /* so that nothing is dropped */
    ask(&r, VERB_READ, 0, 4096);
    ask(&ghost, VERB_WRITE, 0, 4096);
    end(&source, -EIO);
    wait_and_expire(200000);
    cr_expect(r.answered && r.released && r.io.result == -EIO);
    cr_expect(ghost.answered && !ghost.released);
    end(&source, 0);
    end(&target, 0);
    cr_expect(target.count == 0 && disk_mirror_idle(disk, mirror));
}

Test(again, a_read_that_was_given_up_on_is_not_asked_again)
{
    struct asked r;
    route_all();
    ask(&r, VERB_READ, 0, 4096);
    wait_and_expire(200000);
    cr_expect(r.answered && r.io.result == -EIO);
    end(&source, -EIO);
    cr_expect(r.released && target.count == 0);
}

Test(again, a_read_that_fails_on_the_source_after_the_flip)
{
    struct asked r;
    route_all();
    ask(&r, VERB_READ, 0, 4096);
    cr_assert(mirror_commit_begin(mirror));
    disk_flip(disk, mirror);
    end(&source, -EIO);
    cr_assert_eq(target.count, 1, "the target is the truth");
    end(&target, 0);
    cr_expect(r.answered && r.io.result == 0);
}

Test(again, what_was_lost_is_no_answer_until_it_was_written)
{
    struct asked r, w;
    struct lost pages = {0}, lost;
    struct bits routed = {0};
    uint64_t runs;
    cr_assert_eq(lost_add(&pages, (struct extent){8192, 16384}), 0);
    cr_assert_eq(mirror_set_lost(mirror, (struct extent){0, REGION_SIZE}, &pages), 0);
    lost_free(&pages);
    route_all();
    ask(&r, VERB_READ, 4096, 12288);
    end(&source, -EIO);
    cr_expect(r.answered && r.io.result == -EIO && target.count == 0, "zeroes are not what was there");
    ask(&r, VERB_READ, 4096, 8192);
    end(&source, -EIO);
    cr_assert_eq(target.count, 1, "beside it the region was copied");
    end(&target, 0);
    cr_assert_eq(mirror_routed(mirror, &routed), 0);
    cr_expect(!bits_has(&routed, 0) && bits_has(&routed, 1), "no epoch may count it as copied");
    bits_free(&routed);
    ask(&w, VERB_WRITE, 8192, 16000);
    end(&source, 0);
    end(&target, 0);
    cr_assert_eq(mirror_lost(mirror, &lost), 0);
    cr_expect_eq(lost_bytes(&lost, SIZE, &runs), 4096, "the page that was written whole is known again");
    lost_free(&lost);
    ask(&w, VERB_WRITE, 12288, 16384);
    end(&target, 0);
    end(&source, -EIO);
    cr_expect(mirror_loses(mirror, (struct extent){12288, 12289}), "by one leg alone nothing is healed");
    mirror_set_routed(mirror, (struct extent){0, REGION_SIZE});
    ask(&w, VERB_ZERO, 0, REGION_SIZE);
    end(&source, 0);
    end(&target, 0);
    cr_expect(!mirror_loses(mirror, (struct extent){0, SIZE}));
    ask(&r, VERB_READ, 8192, 16384);
    end(&source, -EIO);
    end(&target, 0);
    cr_expect_eq(r.io.result, 0);
}

/* verify: the commit waits for every region of the disk as it was, and for what was dirty since. */
Test(again, a_page_that_was_written_is_suspect_no_more)
{
    struct asked w;
    cr_assert_eq(mirror_suspect(mirror, (struct extent){0, 16384}), 0);
    ask(&w, VERB_WRITE, 4096 + 512, 4096 + 1024);
    end(&source, 0);
    cr_expect(
        mirror_suspects(mirror, (struct extent){0, 4096}) && mirror_suspects(mirror, (struct extent){8192, 16384}));
    cr_expect(!mirror_suspects(mirror, (struct extent){4096, 8192}), "it may be readable now");
}
