/* The bytes of a volume: pages, superblocks, anchors. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "backends/volume/format.h"

static const uint8_t uuid[VOLUME_UUID] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

Test(volume_format, checksum_is_crc32c)
{
    uint8_t bytes[32];
    cr_assert_eq(crc32c(0, "123456789", 9), 0xe3069283u);
    memset(bytes, 0, 32); /* the four of RFC 3720 B.4 */
    cr_assert_eq(crc32c(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 255, 32);
    cr_assert_eq(crc32c(0, bytes, 32), 0x62a8ab43u);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)i;
    cr_assert_eq(crc32c(0, bytes, 32), 0x46dd794eu);
    for (int i = 0; i < 32; i++)
        bytes[i] = (uint8_t)(31 - i);
    cr_assert_eq(crc32c(0, bytes, 32), 0x113fdb5cu);
    cr_assert_eq(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
}

Test(volume_format, any_changed_byte_of_a_page_is_seen)
{
    static struct page page;
    struct page_info info = {.type = PAGE_JOURNAL, .used = 100, .index = 1, .pages = 3, .number = 77}, got;
    memset(page.payload, 7, sizeof(page.payload));
    page_seal(&page, uuid, &info);
    cr_assert(page_open(&page, uuid, PAGE_JOURNAL, &got));
    cr_assert(got.used == 100 && got.index == 1 && got.pages == 3 && got.number == 77);
    cr_assert_eq(page.payload[100], 0);
    cr_assert_not(page_open(&page, uuid, PAGE_CHECKPOINT, &got));
    uint8_t other[VOLUME_UUID] = {9};
    cr_assert_not(page_open(&page, other, PAGE_JOURNAL, &got), "another volume's");
    for (size_t i = 0; i < sizeof(page); i++) {
        ((uint8_t *)&page)[i] ^= 0x10;
        cr_assert_not(page_open(&page, uuid, PAGE_JOURNAL, &got), "byte %zu", i);
        ((uint8_t *)&page)[i] ^= 0x10;
    }
}

Test(volume_format, a_superblock_goes_there_and_back)
{
    static struct page page;
    struct superblock superblock = {.sequence = 9, .compatible = 1, .created = 1234567}, got;
    cr_assert(superblock_lay_out(&superblock, 16ull << 40, 0));
    memcpy(superblock.uuid, uuid, sizeof(uuid));
    strcpy(superblock.label, "lun");
    superblock_encode(&superblock, &page);
    cr_assert_eq(superblock_decode(&page, &got), 0);
    cr_assert_eq(got.sequence, 9);
    cr_assert_eq(got.extents, 16u << 20);
    cr_assert_eq(got.area[1][1], superblock.area[1][1]);
    cr_assert_str_eq(got.label, "lun");
    /* where the description says */
    cr_assert_eq(memcmp((uint8_t *)&page, "svmV", 4), 0);
    cr_assert_eq(((uint8_t *)&page)[32], VOLUME_VERSION);
    cr_assert_eq(memcmp((uint8_t *)&page + 32 + 40, uuid, sizeof(uuid)), 0);
    cr_assert_eq(memcmp((uint8_t *)&page + 32 + 56, "lun", 4), 0);
}

static int decode(void (*change)(struct superblock *superblock))
{
    static struct page page;
    struct superblock superblock = {.sequence = 1}, got;
    superblock_lay_out(&superblock, 64u << 20, 0);
    change(&superblock);
    superblock_encode(&superblock, &page);
    return superblock_decode(&page, &got);
}

static void none(struct superblock *superblock)
{
}
static void overlap(struct superblock *superblock)
{
    superblock->area[0][1] = superblock->journal[1];
}
static void outside(struct superblock *superblock)
{
    superblock->area[1][1] = superblock->extents;
}
static void wrapped(struct superblock *superblock)
{
    superblock->area_extents = UINT32_MAX;
}
static void too_small(struct superblock *superblock)
{
    superblock->extents = 3;
    superblock->size = 3u << 20;
}
static void other_size(struct superblock *superblock)
{
    superblock->size -= VOLUME_EXTENT;
}
static void no_journal(struct superblock *superblock)
{
    superblock->journal_extents = 0;
}

Test(volume_format, a_superblock_that_cannot_be_is_refused)
{
    cr_assert_eq(decode(none), 0);
    void (*const changes[])(struct superblock *) = {overlap, outside, wrapped, too_small, other_size, no_journal};
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
        cr_assert_eq(decode(changes[i]), -EUCLEAN, "change %zu", i);
}

Test(volume_format, metadata_fits_into_every_size)
{
    for (uint64_t size = VOLUME_EXTENT; size < 1ull << 52; size += size / 3 + 12345) {
        struct superblock superblock = {0};
        bool fits = superblock_lay_out(&superblock, size, 0);
        cr_assert(fits || size < 32u << 20, "%llu bytes", (unsigned long long)size);
        if (!fits)
            continue;
        cr_assert_eq(superblock.extents, superblock.size / VOLUME_EXTENT);
        uint64_t room = (uint64_t)area_pages(&superblock) * PAGE_PAYLOAD, taken = 0;
        cr_assert_geq(room, superblock.extents * 48ull + 256 * 1024);
        taken = 2 * (1 + superblock.journal_extents + 2ull * superblock.area_extents);
        cr_assert_lt(taken, superblock.extents);
        cr_assert(size < 1ull << 40 || taken * 2000 < superblock.extents, "%llu bytes: %llu extents of metadata",
            (unsigned long long)size, (unsigned long long)taken);
        cr_assert(superblock_covers(&superblock, 0) && superblock_covers(&superblock, superblock.extents - 1));
    }
    struct superblock superblock = {0};
    cr_assert_not(superblock_lay_out(&superblock, 64u << 20, 1u << 30), "more names than room");
}

Test(volume_format, an_anchor_that_cannot_be_is_refused)
{
    static struct page page;
    struct superblock superblock = {.sequence = 1};
    struct anchor anchor = {.generation = 5, .area = 1, .pages = 2, .bytes = 5000, .commit = 9, .next_node = 2}, got;
    superblock_lay_out(&superblock, 64u << 20, 0);
    anchor_encode(&anchor, superblock.uuid, &page);
    cr_assert_eq(anchor_decode(&page, &superblock, 1, &got), 0);
    cr_assert(got.generation == 5 && got.bytes == 5000 && got.commit == 9);
    cr_assert_eq(anchor_decode(&page, &superblock, 0, &got), -EUCLEAN, "at the other's place");
    anchor.bytes = 2 * PAGE_PAYLOAD + 1;
    anchor_encode(&anchor, superblock.uuid, &page);
    cr_assert_eq(anchor_decode(&page, &superblock, 1, &got), -EUCLEAN);
    anchor.bytes = 0;
    anchor.pages = area_pages(&superblock) + 1;
    anchor_encode(&anchor, superblock.uuid, &page);
    cr_assert_eq(anchor_decode(&page, &superblock, 1, &got), -EUCLEAN);
}
