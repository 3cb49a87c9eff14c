/* The copier on puppet images. */
#include "disk_rig.h"

#include "migrate/copier.h"

TestSuite(copier, .init = setup, .timeout = 30);

static struct copier *copier;
static unsigned copied, failures;

static void all_copied(void *job)
{
    copied++;
}

static void has_failed(void *job, uint64_t offset, int error)
{
    failures++;
}

static void start(void)
{
    struct copier_options options = {.disk = disk,
        .mirror = mirror,
        .reactor = reactor,
        .window = 1,
        .guest_window = 1,
        .done = all_copied,
        .failed = has_failed};
    cr_assert_eq(copier_start(&copier, &options), 0);
}

/* Ends the puppet's io of that verb; a map says that all is data. */
static void end_verb(struct puppet *puppet, enum verb verb, int result)
{
    for (int i = 1; i < puppet->count && puppet->in_flight[0]->verb != verb; i++) {
        struct io *io = puppet->in_flight[i];
        puppet->in_flight[i] = puppet->in_flight[0];
        puppet->in_flight[0] = io;
    }
    cr_assert(puppet->count > 0 && puppet->in_flight[0]->verb == verb, "there is no %s", verb_name(verb));
    puppet->in_flight[0]->map_data = true;
    end(puppet, result);
}

static void drop(void *argument)
{
    mirror_drop(mirror, (struct extent){0, 4096}, VERB_WRITE, -EIO);
}

Test(copier, law_5_a_region_waits_for_the_write_that_is_on_its_way)
{
    struct asked w;
    mirror_set_routed(mirror, (struct extent){0, REGION_SIZE});
    ask(&w, VERB_WRITE, REGION_SIZE - 4096, REGION_SIZE + 4096);
    cr_assert(source.count == 1 && target.count == 1);
    start();
    end_verb(&source, VERB_MAP, 0);
    cr_expect_eq(source.count, 1, "the write is on its way");
    end_verb(&source, VERB_WRITE, 0);
    cr_expect_eq(source.count, 0, "to the target, too");
    end(&target, 0);
    end_verb(&source, VERB_READ, 0);
    cr_expect(w.answered);
    copier_stop(copier);
}

/* The write's lock goes with the drop, while the write itself is still on its way to the target. */
Test(copier, law_5_nothing_is_written_to_a_target_that_was_dropped)
{
    struct asked w;
    mirror_set_routed(mirror, (struct extent){0, REGION_SIZE});
    ask(&w, VERB_WRITE, REGION_SIZE - 4096, REGION_SIZE + 4096);
    start();
    end_verb(&source, VERB_MAP, 0);
    reactor_call(reactor, drop, NULL);
    end_verb(&source, VERB_WRITE, 0);
    cr_expect(w.answered && !w.released);
    cr_expect_eq(source.count, 0, "nothing is read for a target that was dropped");
    cr_expect_eq(target.count, 1);
    end(&target, 0);
    cr_expect(w.released);
    cr_expect(copied == 0 && failures == 0);
    copier_stop(copier);
}
