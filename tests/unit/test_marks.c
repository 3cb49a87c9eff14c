/* Laws 2, 3 and 4 as a journal sees them: what must be on it, synced, before a request is sent to any leg, and what an epoch
 * may say. */
#include "disk_rig.h"

#include <stdatomic.h>

#include "../power/power_files.h"
#include "base/clock.h"
#include "migrate/journal.h"
#include "migrate/marks.h"

#define JOB 7

static struct power_files *power;
static struct journal_files *files;
static struct journal_files_ops slow;
static const struct journal_files_ops *quick;
static struct marks *marks;
static atomic_bool held; /* a sync waits */

/* Waits until the test lets it go. */
static int slow_sync(struct journal_file *file)
{
    while (atomic_load(&held))
        usleep(100);
    return quick->sync(file);
}

static void begin(void)
{
    setup();
    power = power_files_new();
    files = power_files_of(power);
    quick = files->ops;
    slow = *quick;
    slow.sync = slow_sync;
    files->ops = &slow;
    cr_assert_eq(marks_new(&marks, files, JOB, "partial"), 0);
    disk_set_log(disk, marks_log(marks));
}

static void end_marks(void)
{
    disk_set_log(disk, NULL);
    marks_end(marks);
}

/* What the journal says. That it is synced when a request goes on is seen by holding the sync. */
static struct journal_state written(void)
{
    struct journal_state state = {.regions = 0};
    int error = journal_read(files, JOB, &state);
    cr_assert(error == 0 || error == -ENOENT, "%d", error);
    return state;
}

static void agree(unsigned first, unsigned end)
{
    mirror_set_routed(mirror, (struct extent){first * REGION_SIZE, end * REGION_SIZE});
}

static void epoch(void)
{
    cr_assert_eq(marks_epoch_begin(marks, mirror, false), 0);
    cr_assert(marks_epoch_settled(marks, NS_PER_S));
    cr_assert_eq(marks_epoch_end(marks, mirror, 5 * NS_PER_S), 0);
}

/* The reactor's part of what another thread set going. */
static bool arrives(const int *count, int wanted)
{
    for (unsigned i = 0; i < 5000 && *count < wanted; i++) {
        usleep(1000);
        reactor_call(reactor, nothing, NULL);
    }
    return *count >= wanted;
}

static void settle_all(struct puppet *puppet)
{
    while (puppet->count)
        end(puppet, 0);
}

/* From now on all that this small disk has is touched: what a write waits for is its mark. */
static void first_write(unsigned region)
{
    struct asked w;
    ask(&w, VERB_WRITE, region * REGION_SIZE, region * REGION_SIZE + 4096);
    cr_assert(arrives(&source.count, 1));
    settle_all(&source);
    cr_assert(w.released);
}

Test(marks, law_2_a_copied_region_is_marked_durably_before_it_is_written, .init = begin)
{
    struct asked elsewhere, w;
    epoch();
    agree(0, 2);
    epoch();
    first_write(3);
    ask(&elsewhere, VERB_WRITE, 3 * REGION_SIZE, 3 * REGION_SIZE + 4096);
    cr_expect_eq(source.count, 1, "a region that does not count as copied needs no mark");
    settle_all(&source);
    atomic_store(&held, true);
    ask(&w, VERB_WRITE, 4096, 8192);
    usleep(50000);
    reactor_call(reactor, nothing, NULL);
    cr_expect(source.count == 0 && target.count == 0, "its mark is not durable yet");
    atomic_store(&held, false);
    cr_assert(arrives(&source.count, 1));
    cr_expect_eq(target.count, 1);
    settle_all(&source);
    settle_all(&target);
    cr_expect(w.answered && w.io.result == 0);
    end_marks();
    struct journal_state state = written();
    cr_expect(bits_has(&state.copied, 0) && bits_has(&state.marked, 0));
    journal_state_free(&state);
}

/* Also where the mirror sends it to the source alone: else it is lost at the commit. */
Test(marks, law_2_without_a_mirror_too, .init = begin)
{
    struct asked w;
    epoch();
    agree(0, 2);
    epoch();
    disk_detach(disk, mirror);
    first_write(3);
    atomic_store(&held, true);
    ask(&w, VERB_ZERO, REGION_SIZE, REGION_SIZE + 4096);
    usleep(50000);
    reactor_call(reactor, nothing, NULL);
    cr_expect_eq(source.count, 0);
    atomic_store(&held, false);
    cr_assert(arrives(&source.count, 1));
    settle_all(&source);
    end_marks();
    struct journal_state state = written();
    cr_expect(bits_has(&state.marked, 1));
    journal_state_free(&state);
}

Test(marks, law_3_an_epoch_says_what_was_routed_when_it_began, .init = begin)
{
    epoch();
    agree(0, 1);
    cr_assert_eq(marks_epoch_begin(marks, mirror, false), 0);
    agree(1, 2); /* not flushed by this epoch, perhaps */
    cr_assert(marks_epoch_settled(marks, NS_PER_S));
    cr_assert_eq(marks_epoch_end(marks, mirror, 5 * NS_PER_S), 0);
    end_marks();
    struct journal_state state = written();
    cr_expect(bits_has(&state.copied, 0));
    cr_expect(!bits_has(&state.copied, 1), "it agreed after the begin only");
    journal_state_free(&state);
}

Test(marks, law_3_what_became_dirty_meanwhile_is_not_copied, .init = begin)
{
    epoch();
    agree(0, 2);
    cr_assert_eq(marks_epoch_begin(marks, mirror, false), 0);
    mirror_set_dirty(mirror, (struct extent){0, 4096});
    cr_assert(marks_epoch_settled(marks, NS_PER_S));
    cr_assert_eq(marks_epoch_end(marks, mirror, 5 * NS_PER_S), 0);
    end_marks();
    struct journal_state state = written();
    cr_expect(!bits_has(&state.copied, 0) && bits_has(&state.copied, 1));
    journal_state_free(&state);
}

Test(marks, law_3_an_epoch_waits_for_what_was_sent_before_it, .init = begin)
{
    struct asked w;
    epoch();
    agree(0, 2);
    ask(&w, VERB_WRITE, 0, 4096);
    cr_assert_eq(marks_epoch_begin(marks, mirror, false), 0);
    cr_expect(!marks_epoch_settled(marks, 20 * NS_PER_MS), "a flush would not make it durable");
    settle_all(&source);
    settle_all(&target);
    cr_expect(marks_epoch_settled(marks, 5 * NS_PER_S));
    marks_epoch_abandon(marks);
    end_marks();
}

/* A region that is written between the epoch's begin and its record: the record must not end the mark. */
Test(marks, law_3_a_mark_of_this_epoch_stays, .init = begin)
{
    struct asked w;
    epoch();
    agree(0, 2);
    epoch();
    cr_assert_eq(marks_epoch_begin(marks, mirror, false), 0);
    ask(&w, VERB_WRITE, 0, 4096);
    cr_assert(arrives(&source.count, 1));
    cr_assert(marks_epoch_settled(marks, NS_PER_S));
    cr_assert_eq(marks_epoch_end(marks, mirror, 5 * NS_PER_S), 0);
    struct journal_state state = written();
    cr_expect(bits_has(&state.marked, 0), "it is still on its way");
    journal_state_free(&state);
    settle_all(&source);
    settle_all(&target);
}

Test(marks, law_3_what_is_marked_is_copied_again, .init = begin)
{
    struct asked w;
    struct marks *next;
    struct mirror *fresh;
    epoch();
    agree(0, 3);
    epoch();
    ask(&w, VERB_WRITE, REGION_SIZE, REGION_SIZE + 4096);
    cr_assert(arrives(&source.count, 1));
    settle_all(&source);
    settle_all(&target);
    end_marks();
    cr_assert_eq(marks_load(&next, files, JOB, "partial"), 0);
    cr_assert_eq(mirror_new(&fresh, NULL, SIZE, NS_PER_S, &hooks, &drops), 0);
    cr_expect_eq(marks_seed(next, fresh), 2);
    cr_expect_eq(mirror_next_unrouted(fresh, 0), 1);
    cr_expect_eq(mirror_next_unrouted(fresh, 2), 3);
    mirror_put(fresh);
    marks_end(next);
    cr_expect_eq(marks_load(&next, files, JOB, "another partial"), -ENOENT, "it speaks of another image");
}

static atomic_int touched;

static void touch_logged(struct log_request *request)
{
    atomic_store(&touched, 1);
}

/* A hole is believed after a death only where the journal says that nobody wrote. */
Test(marks, law_4_a_touch_is_durable_before_the_target_is_written, .init = begin)
{
    struct log_request request = {.extent = {3 * REGION_SIZE, 3 * REGION_SIZE + 4096}, .logged = touch_logged};
    struct marks *next;
    struct mirror *fresh;
    epoch();
    atomic_store(&held, true);
    cr_assert(!marks_touch(marks, &request));
    usleep(50000);
    cr_expect_eq(atomic_load(&touched), 0);
    atomic_store(&held, false);
    for (unsigned i = 0; i < 5000 && !atomic_load(&touched); i++)
        usleep(1000);
    cr_assert_eq(atomic_load(&touched), 1);
    end_marks();
    struct journal_state state = written();
    cr_expect(bits_has(&state.touched, 0));
    journal_state_free(&state);
    cr_assert_eq(marks_load(&next, files, JOB, "partial"), 0);
    cr_assert_eq(mirror_new(&fresh, NULL, SIZE, NS_PER_S, &hooks, &drops), 0);
    marks_seed(next, fresh);
    cr_expect(mirror_touched(fresh, (struct extent){3 * REGION_SIZE, 4 * REGION_SIZE}));
    mirror_put(fresh);
    marks_end(next);
}

/* Whoever goes on seeds a mirror that is attached: a write that waits for its mark then is sent to both legs after it. */
Test(marks, law_2_what_waits_while_a_mirror_is_seeded_goes_to_both_legs, .init = begin)
{
    struct asked w;
    struct mirror *fresh;
    epoch();
    agree(0, 3);
    epoch();
    first_write(3);
    disk_detach(disk, mirror);
    puppet_init(&target);
    cr_assert_eq(mirror_new(&fresh, &target.image, SIZE, NS_PER_S, &hooks, &drops), 0);
    cr_assert_eq(disk_attach(disk, fresh), 0);
    atomic_store(&held, true);
    ask(&w, VERB_WRITE, REGION_SIZE, REGION_SIZE + 4096);
    cr_expect_eq(marks_seed(marks, fresh), 3, "it has not reached any leg");
    atomic_store(&held, false);
    cr_assert(arrives(&source.count, 1));
    cr_expect_eq(target.count, 1);
    settle_all(&source);
    settle_all(&target);
    end_marks();
}

/* The disk has turned while a request waited for its mark: its new log has to wait for it, too. */
Test(marks, law_3_a_request_is_known_to_the_log_under_which_it_is_sent, .init = begin)
{
    struct asked w;
    struct marks *old = marks;
    epoch();
    agree(0, 2);
    epoch();
    first_write(3);
    atomic_store(&held, true);
    ask(&w, VERB_WRITE, 0, 4096);
    cr_assert_eq(source.count, 0);
    cr_assert_eq(marks_new(&marks, files, JOB + 1, "kept"), 0);
    disk_set_log(disk, marks_log(marks));
    marks_void(old);
    cr_assert(arrives(&source.count, 1));
    atomic_store(&held, false);
    cr_assert_eq(marks_epoch_begin(marks, mirror, false), 0);
    cr_expect(!marks_epoch_settled(marks, 20 * NS_PER_MS), "it is on its way");
    settle_all(&source);
    settle_all(&target);
    cr_expect(w.released);
    cr_expect(marks_epoch_settled(marks, 5 * NS_PER_S));
    marks_epoch_abandon(marks);
    marks_end(old);
    end_marks();
}

/* The journal fails: what waits is let go when the partial is void, and not before. */
Test(marks, a_failed_journal_lets_go_when_the_partial_is_void, .init = begin)
{
    struct asked w;
    epoch();
    agree(0, 2);
    epoch();
    first_write(3);
    power_files_lose(power);
    ask(&w, VERB_WRITE, 0, 4096);
    usleep(50000);
    reactor_call(reactor, nothing, NULL);
    cr_expect(source.count == 0 && target.count == 0);
    cr_expect(marks_failed(marks, NS_PER_S));
    cr_expect(!marks_durable(marks));
    cr_expect_lt(marks_epoch_begin(marks, mirror, false), 0);
    marks_void(marks);
    cr_assert(arrives(&source.count, 1));
    settle_all(&source);
    settle_all(&target);
    cr_expect(w.answered && w.io.result == 0);
    end_marks();
}

/* A mark that is asked for by one who writes on and on is set ahead; later epochs end those that nobody used. */
Test(marks, marks_are_set_ahead_and_end, .init = begin)
{
    epoch();
    agree(0, 4);
    epoch();
    for (unsigned region = 1; region < 3; region++) {
        struct asked w;
        ask(&w, VERB_WRITE, region * REGION_SIZE, region * REGION_SIZE + 4096);
        cr_assert(arrives(&target.count, 1));
        settle_all(&source);
        settle_all(&target);
        cr_assert(w.released);
    }
    struct journal_state state = written();
    cr_expect(bits_has(&state.marked, 2) && bits_has(&state.marked, 3), "the next one, too");
    journal_state_free(&state);
    epoch();
    epoch();
    state = written();
    cr_expect_eq(bits_count(&state.marked, 64), 0);
    cr_expect_eq(bits_count(&state.copied, 64), 4);
    journal_state_free(&state);
    end_marks();
}

/* A job ends while its copier's touch still waits for a journal that hangs: the copier is told, so that it can end, too. */
Test(marks, the_end_lets_go_of_the_copier, .init = begin)
{
    struct log_request request = {.extent = {0, 4096}, .logged = touch_logged};
    epoch();
    atomic_store(&touched, 0);
    atomic_store(&held, true);
    cr_assert(!marks_touch(marks, &request));
    end_marks();
    cr_expect_eq(atomic_load(&touched), 1);
    atomic_store(&held, false);
}
