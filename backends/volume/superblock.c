/* The superblock: its bytes, and where the metadata of a volume lies. Pure. */
#include <errno.h>
#include <string.h>

#include "backends/volume/format.h"

#define EXTENTS_PER_JOURNAL 4096u
#define JOURNAL_MAX         16u
#define NODE_BYTES_MIN      (512ull << 10)
#define NODE_BYTES_MAX      (64ull << 20)
#define EXTENT_BYTES        48u /* of the longest run's entry */

void superblock_encode(const struct superblock *superblock, struct page *page)
{
    struct disk_superblock disk = {.version = put32(VOLUME_VERSION),
        .block = put32(VOLUME_BLOCK),
        .extent = put32(VOLUME_EXTENT),
        .compatible = put64(superblock->compatible),
        .read_only = put64(superblock->read_only),
        .incompatible = put64(superblock->incompatible),
        .size = put64(superblock->size),
        .extents = put32(superblock->extents),
        .journal_extents = put32(superblock->journal_extents),
        .area_extents = put32(superblock->area_extents),
        .created = put64((uint64_t)superblock->created)};
    memcpy(disk.uuid, superblock->uuid, sizeof(disk.uuid));
    memcpy(disk.label, superblock->label, sizeof(disk.label) - 1);
    memcpy(disk.program, superblock->program, sizeof(disk.program) - 1);
    for (int copy = 0; copy < 2; copy++) {
        disk.head[copy] = put32(superblock->head[copy]);
        disk.journal[copy] = put32(superblock->journal[copy]);
        for (int area = 0; area < 2; area++)
            disk.area[area][copy] = put32(superblock->area[area][copy]);
    }
    memcpy(page->payload, &disk, sizeof(disk));
    page_seal(page, NULL,
        &(struct page_info){.type = PAGE_SUPERBLOCK, .used = sizeof(disk), .pages = 1, .number = superblock->sequence});
}

struct place {
    uint32_t start, count;
};

#define PLACES 8

static void places(const struct superblock *superblock, struct place out[PLACES])
{
    for (int copy = 0; copy < 2; copy++) {
        out[copy] = (struct place){superblock->head[copy], 1};
        out[2 + copy] = (struct place){superblock->journal[copy], superblock->journal_extents};
        out[4 + copy] = (struct place){superblock->area[0][copy], superblock->area_extents};
        out[6 + copy] = (struct place){superblock->area[1][copy], superblock->area_extents};
    }
}

/* All parts are inside and none overlaps another. */
static bool is_sound(const struct superblock *superblock)
{
    struct place place[PLACES];
    if (superblock->extents < VOLUME_EXTENTS_MIN || superblock->extents > VOLUME_EXTENTS_MAX ||
        superblock->size / VOLUME_EXTENT != superblock->extents || superblock->journal_extents == 0 ||
        superblock->area_extents == 0 || superblock->head[0] != 0)
        return false;
    places(superblock, place);
    for (int i = 0; i < PLACES; i++) {
        if (place[i].count > superblock->extents || place[i].start > superblock->extents - place[i].count)
            return false;
        for (int j = 0; j < i; j++)
            if (place[i].start < place[j].start + place[j].count && place[j].start < place[i].start + place[i].count)
                return false;
    }
    return true;
}

int superblock_decode(const struct page *page, struct superblock *out)
{
    struct page_info info;
    struct disk_superblock disk;
    if (!page_open(page, NULL, PAGE_SUPERBLOCK, &info))
        return -EINVAL;
    memcpy(&disk, page->payload, sizeof(disk));
    if (get32(disk.version) > VOLUME_VERSION || get32(disk.block) != VOLUME_BLOCK ||
        get32(disk.extent) != VOLUME_EXTENT)
        return -EOPNOTSUPP;
    *out = (struct superblock){.sequence = info.number,
        .version = get32(disk.version),
        .compatible = get64(disk.compatible),
        .read_only = get64(disk.read_only),
        .incompatible = get64(disk.incompatible),
        .size = get64(disk.size),
        .extents = get32(disk.extents),
        .journal_extents = get32(disk.journal_extents),
        .area_extents = get32(disk.area_extents),
        .created = (int64_t)get64(disk.created)};
    memcpy(out->uuid, disk.uuid, sizeof(disk.uuid));
    memcpy(out->label, disk.label, sizeof(disk.label) - 1);
    memcpy(out->program, disk.program, sizeof(disk.program) - 1);
    for (int copy = 0; copy < 2; copy++) {
        out->head[copy] = get32(disk.head[copy]);
        out->journal[copy] = get32(disk.journal[copy]);
        for (int area = 0; area < 2; area++)
            out->area[area][copy] = get32(disk.area[area][copy]);
    }
    /* a later version's superblock may have grown; its features say whether we may go on */
    return info.used >= sizeof(disk) && is_sound(out) ? 0 : -EUCLEAN;
}

static uint64_t clamp(uint64_t value, uint64_t least, uint64_t most)
{
    return value < least ? least : value > most ? most : value;
}

bool superblock_lay_out(struct superblock *superblock, uint64_t size, uint64_t node_bytes)
{
    uint64_t extents = size / VOLUME_EXTENT;
    if (extents > VOLUME_EXTENTS_MAX)
        extents = VOLUME_EXTENTS_MAX;
    if (node_bytes == 0)
        node_bytes = clamp(size / 4096, NODE_BYTES_MIN, NODE_BYTES_MAX);
    uint64_t bytes = extents * EXTENT_BYTES + node_bytes;
    uint64_t area = (bytes + bytes / 64 + VOLUME_EXTENT - 1) / VOLUME_EXTENT;
    uint64_t journal = clamp(extents / EXTENTS_PER_JOURNAL, 1, JOURNAL_MAX);
    uint64_t copy = 1 + journal + 2 * area;
    if (extents < VOLUME_EXTENTS_MIN || 2 * copy >= extents)
        return false;
    superblock->size = extents * VOLUME_EXTENT;
    superblock->extents = (uint32_t)extents;
    superblock->journal_extents = (uint32_t)journal;
    superblock->area_extents = (uint32_t)area;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t start = i == 0 ? 1 : (uint32_t)(extents - copy);
        superblock->head[i] = i == 0 ? 0 : (uint32_t)extents - 1;
        superblock->journal[i] = start;
        superblock->area[0][i] = start + (uint32_t)journal;
        superblock->area[1][i] = start + (uint32_t)(journal + area);
    }
    return true;
}

bool superblock_covers(const struct superblock *superblock, uint32_t extent)
{
    struct place place[PLACES];
    places(superblock, place);
    for (int i = 0; i < PLACES; i++)
        if (extent >= place[i].start && extent - place[i].start < place[i].count)
            return true;
    return false;
}

uint32_t journal_pages(const struct superblock *superblock)
{
    return superblock->journal_extents * VOLUME_BLOCKS;
}

uint32_t area_pages(const struct superblock *superblock)
{
    uint64_t pages = (uint64_t)superblock->area_extents * VOLUME_BLOCKS;
    return pages > UINT32_MAX ? UINT32_MAX : (uint32_t)pages;
}
