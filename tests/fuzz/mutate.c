#include "mutate.h"

#include <stdlib.h>
#include <string.h>

static uint64_t any_page(struct random *random, const struct base *base)
{
    return base->pages[random_below(random, base->page_count)];
}

uint64_t twin_of(const struct base *base, uint64_t at)
{
    const struct superblock *superblock = &base->superblock;
    uint32_t extent = (uint32_t)(at / VOLUME_EXTENT);
    const struct {
        const uint32_t *place;
        uint32_t count;
    } parts[] = {{superblock->head, 1}, {superblock->journal, superblock->journal_extents},
        {superblock->area[0], superblock->area_extents}, {superblock->area[1], superblock->area_extents}};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        for (int copy = 0; copy < 2; copy++)
            if (extent - parts[i].place[copy] < parts[i].count)
                return at + ((uint64_t)parts[i].place[!copy] - parts[i].place[copy]) * VOLUME_EXTENT;
    return at;
}

void seal_page(const struct base *base, struct page *page)
{
    uint32_t crc = 0;
    page->head.crc = put32(0);
    if (get16(page->head.type) != PAGE_SUPERBLOCK)
        crc = crc32c(0, base->superblock.uuid, VOLUME_UUID);
    page->head.crc = put32(crc32c(crc, page, sizeof(*page)));
}

static void flip_bits(struct random *random, const struct base *base, struct ram *ram)
{
    for (uint64_t i = 1 + random_below(random, 8); i > 0; i--) {
        uint8_t *page = ram_page(ram, any_page(random, base));
        uint64_t bit = random_below(random, RAM_PAGE * 8);
        page[bit / 8] ^= (uint8_t)(1 << (bit % 8));
    }
}

static void swap_sectors(struct random *random, const struct base *base, struct ram *ram)
{
    uint8_t kept[512];
    uint8_t *a = (uint8_t *)ram_page(ram, any_page(random, base)) + random_below(random, 8) * 512;
    uint8_t *b = (uint8_t *)ram_page(ram, any_page(random, base)) + random_below(random, 8) * 512;
    memcpy(kept, a, 512);
    memcpy(a, b, 512);
    memcpy(b, kept, 512);
}

/* A page at another's place: both are whole. */
static void swap_pages(struct random *random, const struct base *base, struct ram *ram)
{
    uint64_t at = any_page(random, base);
    memcpy(ram_page(ram, at), base->bytes + any_page(random, base), RAM_PAGE);
    if (random_below(random, 2))
        memcpy(ram_page(ram, twin_of(base, at)), ram->bytes + at, RAM_PAGE);
}

static void lose_pages(struct random *random, const struct base *base, struct ram *ram)
{
    for (uint64_t i = 1 + random_below(random, 6); i > 0; i--) {
        uint64_t at = any_page(random, base);
        memset(ram_page(ram, at), 0, RAM_PAGE);
        if (random_below(random, 2))
            memset(ram_page(ram, twin_of(base, at)), 0, RAM_PAGE);
    }
}

static void put_number(struct random *random, uint8_t *at, size_t room)
{
    uint64_t value = random_edge(random);
    size_t size = (size_t)1 << random_below(random, 4);
    memcpy(at, &value, size < room ? size : room);
}

/* Fields of pages become others, with checksums that are right, in both copies or in one. */
static void lie_in_pages(struct random *random, const struct base *base, struct ram *ram)
{
    for (uint64_t i = 1 + random_below(random, 3); i > 0; i--) {
        uint64_t at = any_page(random, base);
        struct page *page = ram_page(ram, at);
        uint16_t used = get16(page->head.used);
        size_t span = random_below(random, 4) ? sizeof(page->head) + (used < PAGE_PAYLOAD ? used : PAGE_PAYLOAD) : 32;
        for (uint64_t n = 1 + random_below(random, 4); n > 0; n--) {
            size_t place = random_below(random, span);
            put_number(random, (uint8_t *)page + place, sizeof(*page) - place);
        }
        seal_page(base, page);
        if (random_below(random, 4))
            memcpy(ram_page(ram, twin_of(base, at)), page, RAM_PAGE);
    }
}

/* ---- records ---- */

static size_t record_length(const uint8_t *record, size_t left)
{
    size_t length = left < sizeof(struct disk_record) ? 0 : get32(((const struct disk_record *)record)->length);
    return length >= sizeof(struct disk_record) && length <= left ? length : 0;
}

/* The first record at or behind a random place; the stream begins with one. */
static size_t any_record(struct random *random, const uint8_t *stream, size_t size)
{
    size_t wanted = random_below(random, size), at = 0;
    for (size_t length; (length = record_length(stream + at, size - at)) && at + length <= wanted;)
        at += length;
    return at;
}

static void append(struct stream *stream, const uint8_t *record, size_t length)
{
    uint8_t *room = stream_record(stream, RECORD_NODE, 0, length);
    if (room)
        memcpy(room, record, length);
}

/* A record of a hole, a run, a node number … that is not what it was. */
static void lie(struct random *random, uint8_t *record, size_t length)
{
    for (uint64_t n = 1 + random_below(random, 3); n > 0; n--) {
        /* mostly a field, at times the head */
        size_t from = random_below(random, 8) ? sizeof(struct disk_record) : 0;
        size_t at = from + random_below(random, length - from) / 4 * 4;
        if (at < length)
            put_number(random, record + at, length - at);
    }
}

/* Runs of one file become another's, at the same place: two owners. */
static void steal(struct random *random, const struct base *base, uint8_t *record)
{
    struct disk_runs *runs = (struct disk_runs *)record;
    if (get16(runs->head.type) == RECORD_RUNS || random_below(random, 2))
        runs->id = put64(1 + random_below(random, base->anchor.next_node + 1));
}

/* The checkpoint's records, some of them others, missing, twice or at another place. */
static void change_records(struct random *random, const struct base *base, struct stream *out, bool all)
{
    size_t size = base->anchor.bytes;
    uint64_t changes = 1 + random_below(random, 4), records = all ? UINT64_MAX : 1 + random_below(random, 12);
    size_t odds = all ? 40 : 2;
    for (size_t at = 0, length; records > 0 && (length = record_length(base->stream + at, size - at)); records--) {
        size_t from = all ? at : any_record(random, base->stream, size);
        size_t own = record_length(base->stream + from, size - from);
        uint64_t kind = changes && random_below(random, odds) == 0 ? random_below(random, 6) : 5;
        uint8_t *copy = malloc(own + 8);
        if (!copy)
            abort();
        memcpy(copy, base->stream + from, own);
        changes -= kind < 5;
        if (kind == 0)
            lie(random, copy, own);
        if (kind == 1 && own >= sizeof(struct disk_removed))
            steal(random, base, copy);
        if (kind != 2)
            append(out, copy, own);
        if (kind == 3)
            append(out, copy, own);
        if (kind == 4) {
            struct disk_removed removed = {.head = {put16(RECORD_REMOVED), put16(0), put32(sizeof(removed))},
                .id = put64(random_below(random, base->anchor.next_node + 2))};
            append(out, (const uint8_t *)&removed, sizeof(removed));
        }
        free(copy);
        at += all ? length : 0;
    }
}

static void put_pages(struct ram *ram, uint64_t at, const struct page *pages, uint32_t count)
{
    for (uint32_t i = 0; i < count && at + (uint64_t)i * RAM_PAGE < ram->size; i++)
        memcpy(ram_page(ram, at + (uint64_t)i * RAM_PAGE), &pages[i], RAM_PAGE);
}

#define FLAGS_AT 28 /* docs/VOLUME.md: of a page; bit 0: the commit was to be durable */

/* The stream's records in pages; at least one. */
static struct page *pack(const struct base *base, const struct stream *stream, enum page_type type, uint64_t number,
    bool flag, uint32_t *count)
{
    *count = stream->size ? (uint32_t)((stream->size + PAGE_PAYLOAD - 1) / PAGE_PAYLOAD) : 1;
    struct page *pages = calloc(*count, sizeof(*pages));
    if (!pages || stream->failed)
        abort();
    for (uint32_t i = 0; i < *count; i++) {
        size_t at = (size_t)i * PAGE_PAYLOAD,
               used = stream->size - at < PAGE_PAYLOAD ? stream->size - at : PAGE_PAYLOAD;
        if (used)
            memcpy(pages[i].payload, stream->memory + at, used);
        page_seal(&pages[i], base->superblock.uuid,
            &(struct page_info){
                .type = (uint16_t)type, .used = (uint16_t)used, .index = i, .pages = *count, .number = number});
        memcpy((uint8_t *)&pages[i] + FLAGS_AT, &(const le32){{flag}}, sizeof(le32));
        seal_page(base, &pages[i]);
    }
    return pages;
}

/* A further commit of such records. */
static void lie_in_commit(struct random *random, const struct base *base, struct ram *ram)
{
    struct stream stream = {0};
    uint32_t count, ring = journal_pages(&base->superblock);
    change_records(random, base, &stream, false);
    struct page *pages = pack(
        base, &stream, PAGE_JOURNAL, base->anchor.commit + 1 + base->commits, random_below(random, 4) > 0, &count);
    for (int copy = 0; copy < 2; copy++)
        for (uint32_t i = 0; i < count; i++)
            put_pages(ram,
                (uint64_t)base->superblock.journal[copy] * VOLUME_EXTENT +
                    (uint64_t)((base->journal_end + i) % ring) * VOLUME_BLOCK,
                &pages[i], 1);
    free(pages);
    stream_free(&stream);
}

/* Another checkpoint of such records; its anchor says what is there, mostly. */
static void lie_in_checkpoint(struct random *random, const struct base *base, struct ram *ram)
{
    struct stream stream = {0};
    struct anchor anchor = base->anchor;
    struct page page;
    change_records(random, base, &stream, true);
    struct page *pages = pack(base, &stream, PAGE_CHECKPOINT, anchor.generation, false, &anchor.pages);
    anchor.bytes = stream.size;
    if (random_below(random, 8) == 0)
        anchor.bytes = random_edge(random);
    if (random_below(random, 8) == 0)
        anchor.nodes = anchor.nodes + random_below(random, 5) - 2;
    anchor_encode(&anchor, base->superblock.uuid, &page);
    for (int copy = 0; copy < 2; copy++) {
        put_pages(ram, (uint64_t)base->superblock.area[anchor.area][copy] * VOLUME_EXTENT, pages, anchor.pages);
        put_pages(ram, (uint64_t)base->superblock.head[copy] * VOLUME_EXTENT + HEAD_ANCHOR(anchor.area), &page, 1);
    }
    free(pages);
    stream_free(&stream);
}

/* Nothing says which checkpoint counts. */
static void lose_anchors(struct random *random, const struct base *base, struct ram *ram)
{
    for (int copy = 0; copy < 2; copy++)
        for (unsigned area = 0; area < 2; area++)
            memset(
                ram_page(ram, (uint64_t)base->superblock.head[copy] * VOLUME_EXTENT + HEAD_ANCHOR(area)), 0, RAM_PAGE);
}

/* ---- all ---- */

const char *mutate(struct random *random, const struct base *base, struct ram *ram, uint64_t *size)
{
    static const struct {
        const char *name;
        void (*change)(struct random *random, const struct base *base, struct ram *ram);
    } ways[] = {{"bits", flip_bits}, {"sectors", swap_sectors}, {"pages", swap_pages}, {"losses", lose_pages},
        {"fields", lie_in_pages}, {"fields", lie_in_pages}, {"commit", lie_in_commit}, {"commit", lie_in_commit},
        {"checkpoint", lie_in_checkpoint}, {"checkpoint", lie_in_checkpoint}, {"anchors", lose_anchors}};
    size_t way = random_below(random, sizeof(ways) / sizeof(ways[0]));
    *size = ram->size;
    ways[way].change(random, base, ram);
    if (random_below(random, 20) == 0)
        *size = random_below(random, ram->size / 512 + 1) * 512;
    if (random_below(random, 6) == 0)
        ways[random_below(random, sizeof(ways) / sizeof(ways[0]))].change(random, base, ram);
    return ways[way].name;
}
