/* Growing: the volume takes what its raw image has more.
 *
 * When journal and areas are large enough for the new size, only the superblock changes. Else they are made anew in
 * the new extents: the checkpoint that counts is copied there as it is (its anchor stays), the new journal is emptied, all
 * of it is flushed, and then the superblock points there. A loss of power leaves the one or the other. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backends/volume/inside.h"
#include "base/cleanup.h"
#include "base/log.h"

#define RUN_BYTES (sizeof(struct disk_run) + sizeof(struct disk_bits))

/* Is there still room for names when every extent is a run of its own? */
static bool is_roomy(const struct volume *volume, const struct superblock *grown)
{
    uint64_t room = (uint64_t)area_pages(grown) * PAGE_PAYLOAD, runs = grown->extents * RUN_BYTES;
    runs += runs / 1024;
    uint64_t names = volume->tree.bytes * 2 + (256u << 10);
    return room >= runs && room - runs >= names;
}

static int copy_extents(struct carrier *carrier, uint32_t from, uint32_t to, uint64_t bytes)
{
    void *memory = NULL;
    int error = posix_memalign(&memory, VOLUME_BLOCK, VOLUME_EXTENT) == 0 ? 0 : -ENOMEM;
    for (uint64_t at = 0; at < bytes && !error; at += VOLUME_EXTENT) {
        uint64_t part = bytes - at < VOLUME_EXTENT ? bytes - at : VOLUME_EXTENT;
        error = carrier_read(carrier, (uint64_t)from * VOLUME_EXTENT + at, part, memory);
        if (!error)
            error = carrier_write(carrier, (uint64_t)to * VOLUME_EXTENT + at, part, memory);
    }
    free(memory);
    return error;
}

static int empty_extents(struct carrier *carrier, uint32_t start, uint32_t count)
{
    auto_free void *memory = calloc(1, VOLUME_EXTENT);
    int error = memory ? 0 : -ENOMEM;
    for (uint32_t i = 0; i < count && !error; i++)
        error = carrier_write(carrier, (uint64_t)(start + i) * VOLUME_EXTENT, VOLUME_EXTENT, memory);
    return error;
}

/* Both copies were just written by the checkpoint that volume_grow asked for. */
static int relocate(struct volume *volume, const struct superblock *grown)
{
    const struct superblock *was = &volume->superblock;
    uint32_t area = volume->committer.area;
    uint64_t bytes = (uint64_t)volume->committer.checkpoint_pages * VOLUME_BLOCK;
    int error = 0;
    for (int copy = 0; copy < 2 && !error; copy++) {
        error = empty_extents(&volume->carrier, grown->journal[copy], grown->journal_extents);
        if (!error)
            error = copy_extents(&volume->carrier, was->area[area][copy], grown->area[area][copy], bytes);
    }
    return error ? error : carrier_flush(&volume->carrier);
}

/* Journal and areas for so many extents, in the new ones. */
static int lay_out(struct volume *volume, struct superblock *grown, struct sentence *why)
{
    struct superblock wanted = {0};
    uint32_t was = volume->superblock.extents;
    if (!superblock_lay_out(&wanted, grown->size, volume->tree.bytes * 2))
        return refuse(why, -ENOSPC, "datastore %s: the volume cannot grow to this size", volume->name);
    struct superblock roomy = {0};
    if (superblock_lay_out(&roomy, grown->size, 0) && roomy.area_extents > wanted.area_extents)
        wanted = roomy;
    uint32_t journal = wanted.journal_extents > grown->journal_extents ? wanted.journal_extents
                                                                       : grown->journal_extents;
    uint64_t copy = journal + 2ull * wanted.area_extents;
    if (2 * copy >= grown->extents - was)
        return refuse(why, -ENOSPC,
            "datastore %s: to grow to this size the volume's metadata needs %" PRIu64
            " MiB of what was added; make the raw image larger first",
            volume->name, 2 * copy);
    grown->journal_extents = journal;
    grown->area_extents = wanted.area_extents;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t start = i == 0 ? was : grown->extents - (uint32_t)copy;
        grown->journal[i] = start;
        grown->area[0][i] = start + journal;
        grown->area[1][i] = start + journal + wanted.area_extents;
    }
    return 0;
}

static int count_anew(struct volume *volume)
{
    space_close(&volume->space);
    int error = settle_space(volume);
    for (size_t i = 0; i < volume->tree.buckets && !error; i++)
        for (struct volume_node *node = volume->tree.by_id[i]; node; node = node->next_by_id) {
            struct cursor cursor;
            for (struct run *run = map_from(&node->map, 0, &cursor); run; run = map_next(&node->map, &cursor))
                space_take(&volume->space, run->physical, run->count);
        }
    for (uint32_t i = 0; i < volume->releaser.pending_count && !error; i++)
        space_take(&volume->space, volume->releaser.pending[i].start, volume->releaser.pending[i].count);
    for (uint32_t i = 0; i < volume->releaser.batch_count && !error; i++)
        space_take(&volume->space, volume->releaser.batch[i].start, volume->releaser.batch[i].count);
    settle_room(volume);
    return error;
}

int volume_grow(struct volume *volume, uint32_t *extents, struct sentence *why)
{
    struct superblock grown = volume->superblock;
    uint64_t image = atomic_load(&volume->carrier.image->size) / VOLUME_EXTENT;
    *extents = 0;
    if (!(volume->flags & VOLUME_WRITABLE))
        return refuse(why, -EROFS, "datastore %s: the volume was opened for reading", volume->name);
    if (image > VOLUME_EXTENTS_MAX)
        image = VOLUME_EXTENTS_MAX;
    if (image <= grown.extents)
        return 0;
    grown.sequence++;
    grown.extents = (uint32_t)image;
    grown.size = image * VOLUME_EXTENT;
    int error = volume_sync(volume, true);
    if (!error && !is_roomy(volume, &grown)) {
        error = lay_out(volume, &grown, why);
        if (!error)
            error = relocate(volume, &grown);
    }
    if (!error)
        error = superblock_write(&volume->carrier, &grown);
    if (error)
        return why && *why->text ? error
                                 : refuse(why, error, "datastore %s: growing failed: %s; the volume is as it was",
                                       volume->name, error_text(error));
    *extents = grown.extents - volume->superblock.extents;
    pthread_mutex_lock(&volume->mutex);
    volume->superblock = grown;
    error = count_anew(volume);
    pthread_mutex_unlock(&volume->mutex);
    if (error)
        volume_fail(volume, "no memory for the grown volume");
    return error;
}
