#include "backends/volume/format.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- checksum: CRC-32C, eight bytes a step by eight tables ---- */

#define POLYNOMIAL 0x82f63b78u

static uint32_t tables[8][256];
static pthread_once_t tables_made = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        tables[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int t = 1; t < 8; t++)
            tables[t][i] = tables[t - 1][i] >> 8 ^ tables[0][tables[t - 1][i] & 255];
}

uint32_t crc32c(uint32_t crc, const void *memory, size_t size)
{
    const uint8_t *at = memory;
    pthread_once(&tables_made, make_tables);
    crc = ~crc;
    for (; size >= 8; size -= 8, at += 8)
        crc = tables[7][(crc ^ at[0]) & 255] ^ tables[6][(crc >> 8 ^ at[1]) & 255] ^
              tables[5][(crc >> 16 ^ at[2]) & 255] ^ tables[4][(crc >> 24 ^ at[3]) & 255] ^ tables[3][at[4]] ^
              tables[2][at[5]] ^ tables[1][at[6]] ^ tables[0][at[7]];
    for (; size > 0; size--, at++)
        crc = crc >> 8 ^ tables[0][(crc ^ *at) & 255];
    return ~crc;
}

/* ---- pages ---- */

static uint32_t page_crc(const struct page *page, const uint8_t *uuid)
{
    struct page_head head = page->head;
    head.crc = put32(0);
    uint32_t crc = uuid ? crc32c(0, uuid, VOLUME_UUID) : 0;
    crc = crc32c(crc, &head, sizeof(head));
    return crc32c(crc, page->payload, sizeof(page->payload));
}

void page_seal(struct page *page, const uint8_t uuid[VOLUME_UUID], const struct page_info *info)
{
    memset(page->payload + info->used, 0, sizeof(page->payload) - info->used);
    page->head = (struct page_head){.magic = put32(PAGE_MAGIC),
        .type = put16(info->type),
        .used = put16(info->used),
        .index = put32(info->index),
        .number = put64(info->number),
        .pages = put32(info->pages),
        .flags = put32(info->flags)};
    page->head.crc = put32(page_crc(page, info->type == PAGE_SUPERBLOCK ? NULL : uuid));
}

bool page_open(const struct page *page, const uint8_t uuid[VOLUME_UUID], enum page_type type, struct page_info *info)
{
    if (get32(page->head.magic) != PAGE_MAGIC || get16(page->head.type) != type ||
        get16(page->head.used) > PAGE_PAYLOAD ||
        get32(page->head.crc) != page_crc(page, type == PAGE_SUPERBLOCK ? NULL : uuid))
        return false;
    *info = (struct page_info){.type = get16(page->head.type),
        .used = get16(page->head.used),
        .index = get32(page->head.index),
        .pages = get32(page->head.pages),
        .flags = get32(page->head.flags),
        .number = get64(page->head.number)};
    return info->index < info->pages;
}

/* ---- anchors ---- */

void anchor_encode(const struct anchor *anchor, const uint8_t uuid[VOLUME_UUID], struct page *page)
{
    struct disk_anchor disk = {.area = put32(anchor->area),
        .pages = put32(anchor->pages),
        .bytes = put64(anchor->bytes),
        .commit = put64(anchor->commit),
        .journal_page = put32(anchor->journal_page),
        .next_node = put64(anchor->next_node),
        .nodes = put64(anchor->nodes),
        .runs = put64(anchor->runs)};
    memcpy(page->payload, &disk, sizeof(disk));
    page_seal(page, uuid,
        &(struct page_info){.type = PAGE_ANCHOR, .used = sizeof(disk), .pages = 1, .number = anchor->generation});
}

int anchor_decode(const struct page *page, const struct superblock *superblock, unsigned place, struct anchor *out)
{
    struct page_info info;
    struct disk_anchor disk;
    if (!page_open(page, superblock->uuid, PAGE_ANCHOR, &info))
        return -EINVAL;
    memcpy(&disk, page->payload, sizeof(disk));
    *out = (struct anchor){.generation = info.number,
        .area = get32(disk.area),
        .pages = get32(disk.pages),
        .bytes = get64(disk.bytes),
        .commit = get64(disk.commit),
        .journal_page = get32(disk.journal_page),
        .next_node = get64(disk.next_node),
        .nodes = get64(disk.nodes),
        .runs = get64(disk.runs)};
    bool good = info.used == sizeof(disk) && out->area == place && out->pages > 0 &&
                out->pages <= area_pages(superblock) && out->bytes <= (uint64_t)out->pages * PAGE_PAYLOAD &&
                out->journal_page < journal_pages(superblock) && out->next_node > VOLUME_ROOT;
    return good ? 0 : -EUCLEAN;
}

/* ---- streams ---- */

size_t record_round(size_t length)
{
    return (length + 7) & ~(size_t)7;
}

void stream_free(struct stream *stream)
{
    free(stream->memory);
    *stream = (struct stream){0};
}

void *stream_record(struct stream *stream, enum record_type type, unsigned flags, size_t length)
{
    if (stream->failed)
        return NULL;
    if (stream->room - stream->size < length) {
        size_t room = stream->room * 2 > stream->size + length ? stream->room * 2 : stream->size + length + 4096;
        uint8_t *memory = realloc(stream->memory, room);
        stream->failed = !memory;
        if (!memory)
            return NULL;
        stream->memory = memory;
        stream->room = room;
    }
    struct disk_record *record = (struct disk_record *)(stream->memory + stream->size);
    memset(record, 0, length);
    *record = (struct disk_record){put16((uint16_t)type), put16((uint16_t)flags), put32((uint32_t)length)};
    stream->size += length;
    return record;
}

static struct page *make_pages(const struct stream *stream, const uint8_t *uuid, enum page_type type, uint64_t number,
    uint32_t flags, uint32_t *pages)
{
    void *memory;
    uint32_t count = (uint32_t)((stream->size + PAGE_PAYLOAD - 1) / PAGE_PAYLOAD);
    if (count == 0)
        count = 1;
    if (stream->failed || posix_memalign(&memory, VOLUME_BLOCK, (size_t)count * sizeof(struct page)) != 0)
        return NULL;
    struct page *page = memory;
    for (uint32_t i = 0; i < count; i++) {
        size_t at = (size_t)i * PAGE_PAYLOAD, used = stream->size - at;
        if (used > PAGE_PAYLOAD)
            used = PAGE_PAYLOAD;
        if (used)
            memcpy(page[i].payload, stream->memory + at, used);
        page_seal(&page[i], uuid,
            &(struct page_info){
                .type = type, .used = (uint16_t)used, .index = i, .pages = count, .flags = flags, .number = number});
    }
    *pages = count;
    return page;
}

struct page *stream_pages(
    const struct stream *stream, const uint8_t uuid[VOLUME_UUID], enum page_type type, uint64_t number, uint32_t *pages)
{
    return make_pages(stream, uuid, type, number, type == PAGE_JOURNAL ? PAGE_SEALED : 0, pages);
}

struct page *stream_pages_unsealed(
    const struct stream *stream, const uint8_t uuid[VOLUME_UUID], uint64_t number, uint32_t *pages)
{
    return make_pages(stream, uuid, PAGE_JOURNAL, number, 0, pages);
}

const struct disk_record *reader_next(struct reader *reader, int *error)
{
    const struct disk_record *record = (const struct disk_record *)(reader->memory + reader->at);
    *error = 0;
    if (reader->at == reader->size)
        return NULL;
    size_t left = reader->size - reader->at;
    if (left < sizeof(*record) || get32(record->length) < sizeof(*record) || get32(record->length) > left ||
        get32(record->length) % 8 != 0) {
        *error = -EUCLEAN;
        return NULL;
    }
    reader->at += get32(record->length);
    return record;
}
