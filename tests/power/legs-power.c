/* legs-power: a disk that moves, both of its legs and the job's journal on media that forget any subset of what was written
 * since the last flush, sector by sector. A guest writes, zeroes and flushes; the copier copies; epochs are made; the power goes,
 * the process dies, or the target alone fails, at any moment and again and again. Then the job goes on from its journal, ends, and:
 * the source has every write that was answered before a flush that was answered, and the target is its equal, byte by byte.
 *
 * The disk, the mirror, the marks, the journal and the copier are the program's own; what a job's thread does is done here step
 * by step, between any two of which the legs' answers come in whatever order the seed chooses.
 *
 *   legs-power [--runs N] [--seed S] [--verbose] */
#include "legs.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "call.h"

struct stand stand;

/* ---- the job ---- */

static void diverged(void *job, struct extent extent, enum verb verb, int error)
{
    atomic_store(&stand.diverged, true);
}

static const struct mirror_hooks hooks = {.diverged = diverged};

static void copied(void *job)
{
    atomic_store(&stand.copied, true);
}

static void source_failed(void *job, uint64_t offset, int error)
{
}

/* The order of open_legs: what is seeded is told to a mirror that is attached. */
static void open_legs(bool go_on)
{
    atomic_store(&stand.copied, false);
    atomic_store(&stand.diverged, false);
    stand.epoch = EPOCH_NONE;
    must(mirror_new(&stand.mirror, image_get(stand.target_image), SIZE, PATIENCE, &hooks, &stand));
    must(disk_attach(stand.disk, stand.mirror));
    if (go_on)
        stand.kept += marks_seed(stand.marks, stand.mirror);
    struct copier_options options = {.disk = stand.disk,
        .mirror = stand.mirror,
        .reactor = stand.reactor,
        .window = 2,
        .guest_window = 1 + pick(2),
        .marks = stand.marks,
        .done = copied,
        .failed = source_failed};
    must(copier_start(&stand.copier, &options));
}

static void forget_epoch(void)
{
    for (unsigned i = 0; i < ASKED; i++)
        if (stand.asked[i].own)
            stand.asked[i].own = stand.asked[i].used = false;
    if (stand.epoch != EPOCH_NONE)
        marks_epoch_abandon(stand.marks);
    stand.epoch = EPOCH_NONE;
}

static void close_legs(void)
{
    mirror_forget_job(stand.mirror);
    mirror_drop(stand.mirror, (struct extent){0, 0}, VERB_FLUSH, -ECANCELED);
    copier_stop(stand.copier);
    drain();
    forget_epoch();
    disk_detach(stand.disk, stand.mirror);
    uint64_t until = clock_now() + PATIENCE;
    while (mirror_shared(stand.mirror)) { /* by the copier, whose touches may wait */
        let_go(stand.source);
        let_go(stand.target);
        turn();
        if (clock_now() > until)
            broken("the copier does not end");
    }
    mirror_put(stand.mirror);
    stand.mirror = NULL;
}

static struct asked *own_flush(void)
{
    for (unsigned i = 0; i < ASKED; i++)
        if (stand.asked[i].own)
            return &stand.asked[i];
    return NULL;
}

static void flush_both(void)
{
    struct asked *flush = ask(VERB_FLUSH, 0, 0);
    if (!flush)
        return; /* the next step tries again */
    flush->own = true;
    flush->io.flags = IO_OWN;
    send(flush);
    stand.epoch = EPOCH_FLUSHING;
}

/* One step of epoch.c's way. */
static void epoch_step(void)
{
    struct asked *flush;
    switch (stand.epoch) {
    case EPOCH_NONE:
        if (!atomic_load(&stand.diverged) && marks_epoch_begin(stand.marks, stand.mirror, pick(8) == 0) == 0)
            stand.epoch = EPOCH_SETTLING;
        return;
    case EPOCH_SETTLING:
        if (pick(100) == 0 || atomic_load(&stand.diverged))
            forget_epoch();
        else if (marks_epoch_settled(stand.marks, 0))
            flush_both();
        return;
    case EPOCH_FLUSHING:
        flush = own_flush();
        if (!atomic_load(&flush->released))
            return;
        bool well = flush->io.result == 0 && mirror_phase(stand.mirror) == MIRROR_ATTACHED;
        flush->own = flush->used = false;
        stand.epoch = EPOCH_NONE;
        if (!well)
            marks_epoch_abandon(stand.marks);
        else if (marks_epoch_end(stand.marks, stand.mirror, PATIENCE) == 0)
            stand.epochs++;
        return;
    }
}

/* ---- death ---- */

static void hold(void)
{
    unsigned share = pick(3) ? pick(160) : 0;
    power_hold_changes(stand.source, share);
    power_hold_changes(stand.target, pick(2) ? share : pick(256));
}

static void arm(void)
{
    bool death = pick(5) == 0;
    power_arm(stand.source, 0, death ? POWER_STOP : pick(257), stand.random + 1);
    power_arm(stand.target, 0, death ? POWER_STOP : pick(257), stand.random + 2);
    power_files_arm(stand.power, 0, death ? POWER_FILES_STOP : pick(257), stand.random + 3);
    stand.deaths += death;
    hold();
}

static void lose_all(void)
{
    for (unsigned i = 0, first = pick(3); i < 3; i++)
        switch ((first + i) % 3) {
        case 0:
            power_lose(stand.source);
            break;
        case 1:
            power_lose(stand.target);
            break;
        case 2:
            power_files_lose(stand.power);
            break;
        }
}

static void end_disk(void)
{
    disk_set_log(stand.disk, NULL);
    disk_put(stand.disk);
    stand.disk = NULL;
    struct disk_log *log = disk_log_get(marks_log(stand.marks));
    marks_end(stand.marks);
    for (uint64_t until = clock_now() + PATIENCE; atomic_load(&log->references) > 1;) { /* the thread that writes */
        if (clock_now() > until)
            broken("the journal's thread does not end");
        usleep(50);
    }
    disk_log_put(log);
}

/* Nothing that waits goes on to a leg: they are dead. */
static void die(void)
{
    tell("step: all lose their power\n");
    lose_all();
    marks_void(stand.marks);
    close_legs();
    end_disk();
    power_return(stand.source);
    power_return(stand.target);
    power_files_return(stand.power);
    stand.losses++;
}

static void begin_anew(void)
{
    power_free(stand.target);
    must(power_new(&stand.target, &stand.store, SIZE));
    stand.target_image = power_open(stand.target);
    must(marks_new(&stand.marks, stand.files, JOB, PARTIAL));
    stand.anew++;
}

static void take_up(void)
{
    check_source();
    must(disk_new(&stand.disk, JOB, image_get(stand.source_image)));
    int error = marks_load(&stand.marks, stand.files, JOB, PARTIAL);
    if (error == -ENOENT)
        begin_anew();
    else
        must(error);
    disk_set_log(stand.disk, marks_log(stand.marks));
    arm();
    for (unsigned i = pick(3) ? 0 : pick(12); i > 0; i--) /* before the job has opened its target */
        guest_changes();
    open_legs(error == 0);
}

/* The target fails, and may have forgotten; the same image is used again. */
static void target_fails(void)
{
    tell("step: the target fails\n");
    power_lose(stand.target);
    for (unsigned i = pick(6); i > 0; i--)
        guest_changes();
    close_legs();
    power_return(stand.target);
    for (unsigned i = pick(6); i > 0; i--)
        guest_changes();
    stand.drops++;
    if (!marks_durable(stand.marks)) {
        drain();
        disk_set_log(stand.disk, NULL);
        marks_void(stand.marks);
        marks_end(stand.marks);
        must(journal_remove(stand.files, JOB));
        begin_anew();
        disk_set_log(stand.disk, marks_log(stand.marks));
        power_arm(stand.target, 0, pick(257), stand.random);
        open_legs(false);
    } else {
        power_arm(stand.target, 0, pick(257), stand.random);
        open_legs(true);
    }
    hold();
}

/* ---- a run ---- */

static void step(void)
{
    uint32_t kind = pick(100);
    if (kind < 20)
        guest_changes();
    else if (kind < 25)
        send(ask(VERB_FLUSH, 0, 0));
    else if (kind < 45)
        let_go(stand.source);
    else if (kind < 65)
        let_go(stand.target);
    else if (kind < 96)
        epoch_step();
    else if (kind < 97)
        hold();
    else
        turn();
    if (atomic_load(&stand.copied) && pick(2) && mirror_unrouted(stand.mirror))
        copier_kick(stand.copier);
}

static void work(unsigned steps)
{
    while (steps-- > 0)
        step();
}

/* It is copied to its end, flushed, and looked at. */
static void complete(void)
{
    uint64_t until = clock_now() + PATIENCE;
    drain();
    forget_epoch();
    while (!atomic_load(&stand.copied) || mirror_unrouted(stand.mirror)) {
        if (atomic_load(&stand.diverged))
            broken("the target failed by itself");
        if (atomic_exchange(&stand.copied, false))
            copier_kick(stand.copier);
        let_go(stand.source);
        let_go(stand.target);
        if (clock_now() > until)
            broken("the copy does not end");
    }
    for (unsigned i = 0; i < 8; i++)
        guest_changes();
    drain();
    must(call_verb(stand.reactor, stand.source_image, VERB_FLUSH, 0, 0, 0, NULL));
    must(call_verb(stand.reactor, stand.target_image, VERB_FLUSH, 0, 0, 0, NULL));
    check_legs();
    marks_void(stand.marks);
    close_legs();
    end_disk();
}

static void run(uint64_t seed)
{
    stand.seed = stand.random = seed;
    stand.number = 10000;
    stand.power = power_files_new();
    stand.files = power_files_of(stand.power);
    must(power_new(&stand.source, &stand.store, SIZE));
    must(power_new(&stand.target, &stand.store, SIZE));
    stand.source_image = power_open(stand.source);
    stand.target_image = power_open(stand.target);
    fill();
    take_up();
    for (unsigned round = 1 + pick(4); round > 0; round--) {
        work(pick(STEPS));
        if (pick(3) == 0)
            target_fails();
        else {
            die();
            take_up();
        }
    }
    work(pick(STEPS));
    complete();
    power_free(stand.source);
    power_free(stand.target);
    power_files_free(stand.power);
}

int main(int count, char **arguments)
{
    static const struct option options[] = {{"runs", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'}, {"verbose", no_argument, NULL, 'v'}, {0}};
    uint64_t runs = 300, seed = 1;
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        if (option == 'r')
            runs = strtoull(optarg, NULL, 10);
        else if (option == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (option == 'v')
            stand.verbose = true;
        else
            return 2;
    }
    strcpy(stand.store.name, "power");
    stand.store.timeout_ns = 2 * PATIENCE;
    must(pool_open(&stand.store.pool, "power", 2));
    must(reactor_start(&stand.reactor, 0));
    for (unsigned i = 0; i < ASKED; i++)
        if (posix_memalign((void **)&stand.asked[i].memory, 4096, SLOTS * POWER_SECTOR))
            return 1;
    for (uint64_t i = 0; i < runs; i++)
        run(seed + i);
    reactor_stop(stand.reactor);
    pool_close(stand.store.pool);
    for (unsigned i = 0; i < ASKED; i++)
        free(stand.asked[i].memory);
    printf("%llu runs passed, seed %llu: %lu losses of all (%lu deaths of the process alone), %lu of the target alone, "
           "%lu changes, "
           "%lu epochs, %lu regions kept, begun anew %lu times\n",
        (unsigned long long)runs, (unsigned long long)seed, stand.losses, stand.deaths, stand.drops, stand.writes,
        stand.epochs, stand.kept, stand.anew);
    return 0;
}
