/* Volumes that are damaged, too small, of a later version, full, grown; and raw images that fail. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../power/power_image.h"
#include "backends/backends.h"
#include "backends/volume/inside.h"
#include "backends/volume/names.h"

#define MIB   (1ull << 20)
#define BYTES (64 * MIB)

struct stand {
    struct datastore datastore;
    struct volume_datastore own;
    struct power_image *power;
    struct reactor *reactor;
    struct superblock superblock;
    struct sentence why;
    unsigned said[3];
    char last[SENTENCE_MAX];
};

static struct stand stand;

static void say(void *argument, enum finding finding, const char *sentence)
{
    stand.said[finding]++;
    snprintf(stand.last, sizeof(stand.last), "%s", sentence);
}

static int open_volume(unsigned flags)
{
    const struct volume_findings findings = {say, NULL};
    memset(stand.said, 0, sizeof(stand.said));
    for (unsigned i = 0; i < DATASTORE_NOTES; i++) /* a mount of its own */
        atomic_store(datastore_note(&stand.datastore, i), 0);
    stand.why.text[0] = '\0';
    int error = volume_open(&stand.own.volume, power_open(stand.power), NULL, flags, &findings, &stand.why);
    if (error)
        cr_assert_neq(stand.why.text[0], '\0', "no sentence for %d", error);
    return error;
}

static void open_good(unsigned flags)
{
    int error = open_volume(flags);
    cr_assert_eq(error, 0, "%s", stand.why.text);
}

static void close_volume(void)
{
    cr_assert_eq(volume_close(stand.own.volume), 0);
}

/* On an image of up to size bytes. */
static void begin_on(uint64_t size, uint64_t formatted)
{
    strcpy(stand.datastore.name, "one");
    stand.datastore.ops = &backend_volume;
    stand.datastore.state = &stand.own;
    cr_assert_eq(pool_open(&stand.datastore.pool, "one", 2), 0);
    cr_assert_eq(reactor_start(&stand.reactor, 0), 0);
    cr_assert_eq(power_new(&stand.power, &stand.datastore, size), 0);
    power_shrink(stand.power, formatted);
    cr_assert_eq(volume_format(power_open(stand.power), &(struct volume_format_options){0}, &stand.why), 0);
    cr_assert_eq(volume_probe(power_open(stand.power), &stand.superblock, &stand.why), 1);
}

static void begin(void)
{
    begin_on(BYTES, BYTES);
}

static void end(void)
{
    power_free(stand.power);
    reactor_stop(stand.reactor);
    pool_close(stand.datastore.pool);
}

static int make(const char *name)
{
    struct stat st = {.st_mode = S_IFREG | 0600};
    return backend_volume.create(&stand.datastore, name, &st, NULL);
}

static int look(const char *name)
{
    struct stat st;
    return backend_volume.lookup(&stand.datastore, name, &st);
}

static int sync_names(void)
{
    return backend_volume.sync_directory(&stand.datastore, "");
}

struct call {
    struct io io;
    struct image *image;
    struct iovec iov;
    _Atomic bool done;
};

static void call_done(struct io *io)
{
    atomic_store(&container_of(io, struct call, io)->done, true);
}

static void call_start(void *argument)
{
    struct call *call = argument;
    image_submit(call->image, &call->io);
}

static void start(struct call *call, struct image *image, enum verb verb, uint64_t from, uint64_t to, void *memory)
{
    *call = (struct call){.io = {.verb = verb, .extent = {from, to}, .iov_count = memory ? 1 : 0, .done = call_done},
        .image = image,
        .iov = {memory, to - from}};
    call->io.iov = &call->iov;
    reactor_call(stand.reactor, call_start, call);
}

static int wait_for(struct call *call)
{
    while (!atomic_load(&call->done))
        usleep(100);
    return call->io.result;
}

static int verb(struct image *image, enum verb what, uint64_t from, uint64_t to, void *memory)
{
    struct call call;
    start(&call, image, what, from, to, memory);
    return wait_for(&call);
}

static uint64_t at_head(int copy, uint32_t offset)
{
    return stand.superblock.head[copy] * MIB + offset;
}

Test(volume_damage, what_is_no_volume_is_said)
{
    begin();
    for (uint64_t at = 0; at < BYTES; at += MIB)
        power_damage(stand.power, at, 4096);
    struct power_image *empty;
    cr_assert_eq(power_new(&empty, &stand.datastore, BYTES), 0);
    power_copy(stand.power, empty);
    cr_assert_eq(open_volume(VOLUME_WRITABLE), -EINVAL);
    cr_assert_neq(strstr(stand.why.text, "svmfs-volume format"), NULL);
    cr_assert_eq(volume_probe(power_open(stand.power), NULL, NULL), 0);
    power_free(empty);
    end();
}

Test(volume_damage, one_superblock_is_enough_and_is_copied_again)
{
    static const uint32_t places[] = {HEAD_SUPERBLOCK, HEAD_TWIN};
    for (int good = 0; good < SUPERBLOCK_PLACES; good++) {
        begin();
        for (int i = 0; i < SUPERBLOCK_PLACES; i++)
            if (i != good)
                power_damage(stand.power, at_head(i / 2, places[i % 2]), 512);
        open_good(0);
        cr_assert_eq(stand.said[FINDING_COPY], 3);
        close_volume();
        open_good(VOLUME_WRITABLE);
        close_volume();
        open_good(VOLUME_CHECK);
        cr_assert_eq(stand.said[FINDING_COPY] + stand.said[FINDING_DAMAGED], 0, "%s", stand.last);
        close_volume();
        end();
    }
}

Test(volume_damage, no_superblock_is_refused)
{
    begin();
    for (int copy = 0; copy < 2; copy++) {
        power_damage(stand.power, at_head(copy, HEAD_SUPERBLOCK) + 100, 1);
        power_damage(stand.power, at_head(copy, HEAD_TWIN) + 100, 1);
    }
    cr_assert(open_volume(VOLUME_WRITABLE) < 0);
    end();
}

Test(volume_damage, a_smaller_image_is_refused_and_a_larger_one_said)
{
    begin_on(BYTES, BYTES - 8 * MIB);
    power_shrink(stand.power, BYTES - 9 * MIB);
    cr_assert_eq(open_volume(VOLUME_WRITABLE), -ENOSPC);
    power_shrink(stand.power, BYTES);
    open_good(0);
    cr_assert_eq(stand.said[FINDING_NOTE], 1);
    close_volume();
    end();
}

static void set_features(uint64_t read_only, uint64_t incompatible)
{
    struct carrier carrier = {0};
    struct superblock changed = stand.superblock;
    changed.read_only = read_only;
    changed.incompatible = incompatible;
    changed.compatible = UINT64_MAX;
    cr_assert_eq(carrier_open(&carrier, power_open(stand.power)), 0);
    cr_assert_eq(superblock_write(&carrier, &changed), 0);
    carrier_close(&carrier);
}

Test(volume_damage, unknown_features_are_kept_away_from)
{
    begin();
    set_features(0, 0);
    open_good(VOLUME_WRITABLE);
    close_volume();
    set_features(1ull << 40, 0);
    cr_assert_eq(open_volume(VOLUME_WRITABLE), -EROFS);
    open_good(0);
    close_volume();
    set_features(0, FEATURE_HOSTS);
    cr_assert_eq(open_volume(VOLUME_WRITABLE), -EOPNOTSUPP);
    cr_assert_eq(open_volume(0), -EOPNOTSUPP);
    end();
}

/* Names "a" … in a journal of two commits each, of which the second seals; returns the first's page. */
static uint32_t make_journal(unsigned count)
{
    char name[2] = "a";
    open_good(VOLUME_WRITABLE);
    uint32_t page = stand.own.volume->committer.ring_head;
    for (unsigned i = 0; i < count; i++, name[0]++) {
        cr_assert_eq(make(name), 0);
        cr_assert_eq(sync_names(), 0);
    }
    power_lose(stand.power); /* no last commit */
    volume_close(stand.own.volume);
    power_return(stand.power);
    return page;
}

static void damage_journal(uint32_t page, int copy)
{
    power_damage(stand.power, stand.superblock.journal[copy] * MIB + page * 4096ull + 1000, 1);
}

Test(volume_damage, the_journal_is_read_from_either_copy)
{
    begin();
    uint32_t page = make_journal(4);
    damage_journal(page, 0);
    damage_journal(page + 1, 1);
    damage_journal(page + 3, 0);
    open_good(VOLUME_CHECK);
    cr_assert(look("a") == 0 && look("b") == 0 && look("c") == 0 && look("d") == 0);
    cr_assert_eq(stand.said[FINDING_COPY], 2);
    cr_assert_eq(stand.said[FINDING_DAMAGED], 0);
    close_volume();
    end();
}

Test(volume_damage, a_hole_in_the_journal_is_not_passed_over)
{
    begin();
    uint32_t page = make_journal(4);
    damage_journal(page + 2, 0);
    damage_journal(page + 2, 1);
    cr_assert_eq(open_volume(VOLUME_WRITABLE), -EUCLEAN);
    open_good(VOLUME_CHECK);
    cr_assert_geq(stand.said[FINDING_DAMAGED], 1);
    cr_assert(look("a") == 0 && look("b") == -ENOENT);
    volume_close(stand.own.volume);
    end();
}

Test(volume_damage, a_torn_last_commit_never_was)
{
    begin();
    uint32_t page = make_journal(3);
    damage_journal(page + 5, 0);
    damage_journal(page + 5, 1);
    open_good(VOLUME_WRITABLE);
    cr_assert(look("b") == 0 && look("c") == -ENOENT);
    close_volume();
    end();
}

Test(volume_damage, anchor_and_checkpoint_are_read_from_either_copy)
{
    for (int copy = 0; copy < 2; copy++) {
        begin();
        open_good(VOLUME_WRITABLE);
        cr_assert_eq(make("kept"), 0);
        cr_assert_eq(volume_sync(stand.own.volume, true), 0);
        uint32_t area = stand.own.volume->committer.area;
        close_volume();
        power_damage(stand.power, at_head(copy, HEAD_ANCHOR(area)), 512);
        power_damage(stand.power, stand.superblock.area[area][1 - copy] * MIB, 512);
        open_good(VOLUME_CHECK);
        cr_assert_eq(look("kept"), 0);
        cr_assert_eq(stand.said[FINDING_COPY], 2);
        close_volume();
        open_good(VOLUME_WRITABLE); /* both are written anew */
        close_volume();
        open_good(VOLUME_CHECK);
        cr_assert_eq(stand.said[FINDING_COPY], 0);
        close_volume();
        power_damage(stand.power, stand.superblock.area[area][0] * MIB, 512);
        power_damage(stand.power, stand.superblock.area[area ^ 1][0] * MIB, 512);
        power_damage(stand.power, stand.superblock.area[area][1] * MIB, 512);
        power_damage(stand.power, stand.superblock.area[area ^ 1][1] * MIB, 512);
        cr_assert_eq(open_volume(VOLUME_WRITABLE), -EUCLEAN);
        end();
    }
}

Test(volume_damage, what_cannot_be_written_is_not_acknowledged)
{
    struct image *image;
    void *memory = calloc(1, 4096);
    begin();
    open_good(VOLUME_WRITABLE);
    cr_assert_eq(make("f"), 0);
    cr_assert_eq(backend_volume.open_image(&stand.datastore, "f", true, &image), 0);
    cr_assert_eq(verb(image, VERB_WRITE, 0, 4096, memory), 0);
    power_lose(stand.power);
    cr_assert_eq(verb(image, VERB_FLUSH, 0, 0, NULL), -EIO);
    cr_assert_eq(make("g"), -EIO, "a change after metadata could not be written");
    cr_assert_eq(verb(image, VERB_WRITE, 0, 4096, memory), -EIO);
    cr_assert_eq(verb(image, VERB_RESIZE, 0, 8192, NULL), -EIO);
    cr_assert_eq(look("f"), 0);
    image_close(image);
    cr_assert(volume_close(stand.own.volume) < 0);
    free(memory);
    end();
}

/* Writes of parts of one block that was never written, side by side. */
Test(volume_damage, parts_of_a_new_block_do_not_hurt_each_other)
{
    enum { PARTS = 8, SIZE = 4096 / PARTS }; /* less than a raw block: the region lock keeps those apart */
    struct image *image;
    struct call calls[PARTS];
    unsigned char *memory = malloc(4096), *got = malloc(4096);
    begin();
    open_good(VOLUME_WRITABLE);
    cr_assert_eq(make("f"), 0);
    cr_assert_eq(backend_volume.open_image(&stand.datastore, "f", true, &image), 0);
    for (uint64_t block = 0; block < 50; block++) {
        for (unsigned i = 0; i < 4096; i++)
            memory[i] = (unsigned char)(block + i / SIZE + 1);
        for (unsigned i = 0; i < PARTS; i++)
            start(&calls[i], image, VERB_WRITE, block * 4096 + i * SIZE, block * 4096 + (i + 1) * SIZE,
                memory + i * SIZE);
        for (unsigned i = 0; i < PARTS; i++)
            cr_assert_eq(wait_for(&calls[i]), 0);
        cr_assert_eq(verb(image, VERB_READ, block * 4096, (block + 1) * 4096, got), 0);
        cr_assert_eq(memcmp(got, memory, 4096), 0, "block %u", (unsigned)block);
    }
    image_close(image);
    close_volume();
    free(memory);
    free(got);
    end();
}

static void fill(const char *name, uint64_t mib, int value)
{
    struct image *image;
    void *memory = malloc(MIB);
    memset(memory, value, MIB);
    cr_assert_eq(backend_volume.open_image(&stand.datastore, name, true, &image), 0);
    for (uint64_t i = 0; i < mib; i++)
        cr_assert_eq(verb(image, VERB_WRITE, i * MIB, (i + 1) * MIB, memory), 0);
    cr_assert_eq(verb(image, VERB_FLUSH, 0, 0, NULL), 0);
    image_close(image);
    free(memory);
}

static void check_filled(const char *name, uint64_t mib, int value)
{
    struct image *image;
    unsigned char *memory = malloc(MIB);
    cr_assert_eq(backend_volume.open_image(&stand.datastore, name, false, &image), 0);
    for (uint64_t i = 0; i < mib; i++) {
        cr_assert_eq(verb(image, VERB_READ, i * MIB, (i + 1) * MIB, memory), 0);
        for (size_t at = 0; at < MIB; at += 511)
            cr_assert_eq(memory[at], value);
    }
    image_close(image);
    free(memory);
}

static void wait_for_release(void)
{
    struct volume *volume = stand.own.volume;
    pthread_mutex_lock(&volume->mutex);
    while (!(commit_idle(volume) && release_idle(volume)))
        pthread_cond_wait(&volume->quiet, &volume->mutex);
    pthread_mutex_unlock(&volume->mutex);
}

/* A read that hangs on its way knows an extent that is freed meanwhile: nobody gets it before the read has ended. */
Test(volume_damage, a_read_keeps_its_extent)
{
    struct image *image;
    struct call call;
    unsigned char *memory = malloc(MIB);
    begin();
    open_good(VOLUME_WRITABLE);
    cr_assert_eq(make("a"), 0);
    fill("a", 1, 7);
    uint32_t before = stand.own.volume->space.free;
    cr_assert_eq(backend_volume.open_image(&stand.datastore, "a", true, &image), 0);
    power_hold_reads(stand.power, true);
    start(&call, image, VERB_READ, 0, MIB, memory);
    usleep(20000);
    cr_assert_eq(verb(image, VERB_ZERO, 0, MIB, NULL), 0); /* keeps the place */
    struct call punch;
    start(&punch, image, VERB_RESIZE, 0, 0, NULL);
    cr_assert_eq(wait_for(&punch), 0);
    cr_assert_eq(verb(image, VERB_FLUSH, 0, 0, NULL), 0);
    usleep(50000);
    cr_assert_eq(stand.own.volume->space.free, before, "given away under a read");
    cr_assert_not(atomic_load(&call.done));
    power_hold_reads(stand.power, false);
    cr_assert_eq(wait_for(&call), 0);
    for (size_t i = 0; i < MIB; i++)
        cr_assert_eq(memory[i], 7);
    wait_for_release();
    cr_assert_eq(stand.own.volume->space.free, before + 1);
    image_close(image);
    close_volume();
    free(memory);
    end();
}

/* Room that was given back comes, also to who already waits for it. */
Test(volume_damage, a_full_volume_waits_for_what_is_being_freed)
{
    struct image *image;
    void *memory = calloc(1, MIB);
    begin();
    open_good(VOLUME_WRITABLE);
    uint32_t free_extents = stand.own.volume->space.free;
    cr_assert_eq(make("a"), 0);
    cr_assert_eq(make("b"), 0);
    fill("a", free_extents, 1);
    cr_assert_eq(backend_volume.open_image(&stand.datastore, "b", true, &image), 0);
    cr_assert_eq(verb(image, VERB_WRITE, 0, 4096, memory), -ENOSPC);
    cr_assert_eq(verb(image, VERB_ALLOCATE, 0, 4096, NULL), -ENOSPC);
    struct statvfs space;
    cr_assert_eq(backend_volume.statfs(&stand.datastore, &space), 0);
    cr_assert_eq(space.f_bavail, 0);
    cr_assert_eq(backend_volume.remove(&stand.datastore, "a", false), 0);
    for (uint32_t i = 0; i < free_extents; i++)
        cr_assert_eq(verb(image, VERB_WRITE, i * MIB, (i + 1) * MIB, memory), 0);
    cr_assert_eq(verb(image, VERB_WRITE, free_extents * MIB, (free_extents + 1) * MIB, memory), -ENOSPC);
    image_close(image);
    close_volume();
    free(memory);
    end();
}

/* By how much, so that the metadata stays where it is, or is laid out anew. */
static void grow_by(uint64_t from, uint64_t to, bool moved)
{
    uint32_t extents;
    begin_on(to, from);
    open_good(VOLUME_WRITABLE);
    cr_assert_eq(make("before"), 0);
    fill("before", 5, 7);
    cr_assert_eq(volume_grow(stand.own.volume, &extents, &stand.why), 0);
    cr_assert_eq(extents, 0, "there is nothing to take");
    close_volume();
    power_shrink(stand.power, to);
    open_good(VOLUME_WRITABLE);
    cr_assert_eq(volume_grow(stand.own.volume, &extents, &stand.why), 0, "%s", stand.why.text);
    cr_assert_eq(extents, (to - from) / MIB);
    cr_assert_eq(stand.own.volume->superblock.area[0][0] != stand.superblock.area[0][0], moved);
    cr_assert_eq(make("after"), 0);
    fill("after", 20, 9);
    close_volume();
    open_good(VOLUME_CHECK);
    cr_assert_eq(stand.said[FINDING_COPY] + stand.said[FINDING_DAMAGED], 0, "%s", stand.last);
    check_filled("before", 5, 7);
    check_filled("after", 20, 9);
    close_volume();
    end();
}

Test(volume_damage, grows_in_place)
{
    grow_by(32 * MIB, 96 * MIB, false);
}

Test(volume_damage, grows_with_new_places)
{
    grow_by(64 * MIB, 18ull << 30, true);
}

/* The power goes at each write of a growing volume. */
Test(volume_damage, growing_is_one_step)
{
    enum { FROM = 64, TO = 18 << 10 };
    for (uint64_t lose = 1; lose < 400; lose += lose < 16 ? 1 : 29) {
        uint32_t extents;
        begin_on(TO * MIB, FROM * MIB);
        open_good(VOLUME_WRITABLE);
        cr_assert_eq(make("before"), 0);
        close_volume();
        power_shrink(stand.power, TO * MIB);
        open_good(VOLUME_WRITABLE);
        power_arm(stand.power, lose, (unsigned)lose * 37 % 257, lose);
        int error = volume_grow(stand.own.volume, &extents, &stand.why);
        power_lose(stand.power);
        volume_close(stand.own.volume);
        power_return(stand.power);
        open_good(VOLUME_CHECK);
        cr_assert_eq(stand.said[FINDING_DAMAGED], 0, "%s", stand.last);
        cr_assert_eq(look("before"), 0);
        uint32_t is = stand.own.volume->superblock.extents;
        cr_assert(is == TO || (is == FROM && error < 0), "%u extents after write %u", is, (unsigned)lose);
        close_volume();
        open_good(VOLUME_WRITABLE);
        close_volume();
        end();
    }
}
