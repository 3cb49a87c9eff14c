#include "migrate/journal_record.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "migrate/journal.h"

#define AT_MAGIC    8
#define AT_LENGTH   16
#define AT_SEQUENCE 24
#define AT_KEY      32

_Static_assert(JOURNAL_TOUCH_REGIONS == 256, "the format says what a group is");

static void put(struct journal_build *build, const void *bytes, size_t length)
{
    size_t wanted = build->length + length, room = build->room ? build->room : 4096;
    while (room < wanted)
        room *= 2;
    if (room != build->room && !build->failed) {
        uint8_t *more = realloc(build->bytes, room);
        build->failed = !more;
        build->bytes = more ? more : build->bytes;
        build->room = more ? room : build->room;
    }
    if (build->failed)
        return;
    memcpy(build->bytes + build->length, bytes, length);
    build->length = wanted;
}

void journal_put32(struct journal_build *build, uint32_t value)
{
    value = htole32(value);
    put(build, &value, sizeof(value));
}

void journal_put64(struct journal_build *build, uint64_t value)
{
    value = htole64(value);
    put(build, &value, sizeof(value));
}

void journal_put_bytes(struct journal_build *build, const void *bytes, size_t length)
{
    static const uint8_t zeroes[8];
    put(build, bytes, length);
    put(build, zeroes, (8 - length % 8) % 8);
}

void journal_put_range(struct journal_build *build, struct extent range)
{
    journal_put64(build, range.start);
    journal_put64(build, range.end);
}

uint64_t journal_put_runs(struct journal_build *build, const struct bits *bits, uint64_t end, size_t most)
{
    uint64_t start = 0, stop, count = 0;
    for (; build->length <= most && bits_run(bits, &start, &stop, end); start = stop, count++)
        journal_put_range(build, (struct extent){start, stop});
    return count;
}

static uint64_t count_runs(const struct bits *bits, uint64_t end, uint64_t most)
{
    uint64_t start = 0, stop, count = 0;
    for (; count <= most && bits_run(bits, &start, &stop, end); start = stop)
        count++;
    return count;
}

void journal_put_set(struct journal_build *build, const struct bits *bits, uint64_t end)
{
    uint64_t words = (end + 63) / 64, runs = count_runs(bits, end, words / 2);
    bool as_words = runs > words / 2;
    journal_put64(build, as_words);
    journal_put64(build, as_words ? words : runs);
    if (!as_words)
        journal_put_runs(build, bits, end, SIZE_MAX);
    for (uint64_t i = 0; as_words && i < words; i++)
        journal_put64(build, i < bits->count ? bits->words[i] : 0);
}

void journal_begin(struct journal_build *build, uint16_t type, uint16_t flags, uint64_t key, uint64_t sequence)
{
    build->length = 0;
    build->failed = false;
    journal_put64(build, 0); /* the checksum, see journal_end */
    journal_put32(build, JOURNAL_MAGIC);
    journal_put32(build, (uint32_t)flags << 16 | type);
    journal_put64(build, 0); /* the length */
    journal_put64(build, sequence);
    journal_put64(build, key);
}

int journal_end(struct journal_build *build, uint64_t salt)
{
    if (build->failed)
        return -ENOMEM;
    if (build->length > JOURNAL_BYTES_MAX / 2)
        return -EFBIG;
    uint32_t length = htole32((uint32_t)build->length);
    memcpy(build->bytes + AT_LENGTH, &length, sizeof(length));
    uint64_t sum = htole64(XXH3_64bits_withSeed(build->bytes + AT_MAGIC, build->length - AT_MAGIC, salt));
    memcpy(build->bytes, &sum, sizeof(sum));
    return 0;
}

uint32_t journal_get32(const uint8_t *bytes)
{
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return le32toh(value);
}

uint64_t journal_get64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    return le64toh(value);
}

bool journal_record_at(const uint8_t *bytes, size_t left, uint64_t salt, struct journal_record *out)
{
    if (left < JOURNAL_HEAD || journal_get32(bytes + AT_MAGIC) != JOURNAL_MAGIC)
        return false;
    uint32_t kind = journal_get32(bytes + AT_MAGIC + 4), length = journal_get32(bytes + AT_LENGTH);
    if (length < JOURNAL_HEAD || length % 8 != 0 || length > left)
        return false;
    *out = (struct journal_record){.type = (uint16_t)kind,
        .flags = (uint16_t)(kind >> 16),
        .length = length,
        .sequence = journal_get64(bytes + AT_SEQUENCE),
        .key = journal_get64(bytes + AT_KEY)};
    return XXH3_64bits_withSeed(bytes + AT_MAGIC, length - AT_MAGIC, salt) == journal_get64(bytes);
}
