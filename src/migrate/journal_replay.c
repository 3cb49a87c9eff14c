/* Reading trusts a checksum to say that somebody wrote these bytes, and nothing more: every number is held against what it
 * may be, and what cannot be is -EBADMSG.
 *
 * Where the records end is found, not told: the first bytes that are no record, or one with another number than the next,
 * end it. After a loss of power there may stand parts of the one append that was not acknowledged, and zeroes. What cannot
 * stand there is a whole record of this file: an append begins when the one before is durable. If there is one, something
 * in the middle is damaged, marks may be among it, and nothing of the file counts. */
#include "migrate/journal_replay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/journal_record.h"

struct reader {
    const uint8_t *at;
    size_t left;
    bool failed; /* it has less than was wanted, or what cannot be */
};

static const uint8_t *get(struct reader *reader, size_t length)
{
    if (reader->failed || length > reader->left) {
        reader->failed = true;
        return NULL;
    }
    reader->at += length;
    reader->left -= length;
    return reader->at - length;
}

static uint64_t get64(struct reader *reader)
{
    const uint8_t *bytes = get(reader, 8);
    return bytes ? journal_get64(bytes) : 0;
}

static void fill(struct bits *bits, struct extent range, bool value)
{
    for (uint64_t n = range.start; n < range.end;) {
        uint64_t first = n % 64, last = range.end - n < 64 - first ? first + range.end - n : 64;
        uint64_t mask = (last == 64 ? ~0ull : (1ull << last) - 1) & ~0ull << first;
        if (value)
            bits->words[n / 64] |= mask;
        else
            bits->words[n / 64] &= ~mask;
        n += last - first;
    }
}

/* count ranges of numbers below end; there is room for them. ordered: none overlaps the one before. */
static void get_ranges(struct reader *reader, struct bits *bits, uint64_t count, uint64_t end, bool value, bool ordered)
{
    uint64_t until = 0;
    if (count > reader->left / 16)
        reader->failed = true;
    for (uint64_t i = 0; i < count && !reader->failed; i++) {
        struct extent range = {get64(reader), 0};
        range.end = get64(reader);
        if (range.start >= range.end || range.end > end || (ordered && range.start < until)) {
            reader->failed = true;
            return;
        }
        fill(bits, range, value);
        until = range.end;
    }
}

static void get_set(struct reader *reader, struct bits *bits, uint64_t end)
{
    uint64_t kind = get64(reader), count = get64(reader);
    if (kind == 0) {
        get_ranges(reader, bits, count, end, true, true);
        return;
    }
    if (kind != 1 || count != (end + 63) / 64 || count > reader->left / 8)
        reader->failed = true;
    for (uint64_t i = 0; i < count && !reader->failed; i++)
        bits->words[i] = get64(reader);
    if (!reader->failed && end % 64 != 0 && bits->words[end / 64] >> end % 64 != 0)
        reader->failed = true;
}

static int grow(struct journal_state *state, uint64_t regions)
{
    state->regions = regions;
    if (bits_grow(&state->copied, regions) || bits_grow(&state->marked, regions) ||
        bits_grow(&state->touched, journal_groups(regions)))
        return -ENOMEM;
    return 0;
}

/* ---- a record each ---- */

static int replay_state(struct reader *reader, struct journal_state *state, uint64_t *salt)
{
    const uint8_t *numbers = get(reader, 8);
    if (!numbers)
        return -EBADMSG;
    if (journal_get32(numbers) != JOURNAL_VERSION)
        return -EPROTO;
    size_t length = journal_get32(numbers + 4);
    *salt = get64(reader);
    state->epoch = get64(reader);
    uint64_t regions = get64(reader);
    const uint8_t *partial = length < sizeof(state->partial) ? get(reader, (length + 7) / 8 * 8) : NULL;
    if (!partial || memchr(partial, 0, length) || regions > JOURNAL_REGIONS_MAX)
        return -EBADMSG;
    memcpy(state->partial, partial, length);
    if (grow(state, regions))
        return -ENOMEM;
    get_set(reader, &state->copied, regions);
    get_set(reader, &state->marked, regions);
    get_set(reader, &state->touched, journal_groups(regions));
    return 0;
}

static int replay_epoch(struct reader *reader, struct journal_state *state)
{
    uint64_t epoch = get64(reader), regions = get64(reader), copied = get64(reader);
    uint64_t more = get64(reader), less = get64(reader), marked = get64(reader), touched = get64(reader);
    if (reader->failed || epoch < state->epoch || regions < state->regions || regions > JOURNAL_REGIONS_MAX)
        return -EBADMSG;
    if (grow(state, regions))
        return -ENOMEM;
    state->epoch = epoch;
    get_ranges(reader, &state->copied, more, regions, true, true);
    get_ranges(reader, &state->copied, less, regions, false, true);
    bits_clear_all(&state->marked);
    get_ranges(reader, &state->marked, marked, regions, true, true);
    get_ranges(reader, &state->touched, touched, journal_groups(regions), true, true);
    return bits_count(&state->copied, regions) == copied ? 0 : -EBADMSG;
}

static int replay_record(const uint8_t *bytes, const struct journal_record *record, struct journal_state *state)
{
    struct reader reader = {bytes + JOURNAL_HEAD, record->length - JOURNAL_HEAD, false};
    int error = 0;
    switch (record->type) {
    case JOURNAL_MARK:
        get_ranges(&reader, &state->marked, reader.left / 16, state->regions, true, false);
        break;
    case JOURNAL_TOUCH:
        get_ranges(&reader, &state->touched, reader.left / 16, journal_groups(state->regions), true, false);
        break;
    case JOURNAL_EPOCH:
        error = replay_epoch(&reader, state);
        break;
    case JOURNAL_STATE:
        return -EBADMSG; /* only the first is one */
    default:
        return record->flags & JOURNAL_SKIP ? 0 : -EPROTO;
    }
    return error ? error : reader.failed || reader.left ? -EBADMSG : 0;
}

/* Whole records of this file behind what ends it. */
static bool more_behind(const uint8_t *bytes, size_t length, size_t at, uint64_t key, uint64_t salt)
{
    struct journal_record record;
    for (; at + JOURNAL_HEAD <= length; at += 8)
        if (journal_get64(bytes + at + JOURNAL_HEAD - 8) == key &&
            journal_record_at(bytes + at, length - at, salt, &record))
            return true;
    return false;
}

static int replay(const uint8_t *bytes, size_t length, struct journal_state *state, uint64_t *end)
{
    struct journal_record record;
    uint64_t salt, sequence = 1;
    if (!journal_record_at(bytes, length, 0, &record) || record.type != JOURNAL_STATE || record.sequence != sequence)
        return -EBADMSG;
    struct reader reader = {bytes + JOURNAL_HEAD, record.length - JOURNAL_HEAD, false};
    state->key = record.key;
    int error = replay_state(&reader, state, &salt);
    if (!error && (reader.failed || reader.left))
        error = -EBADMSG;
    size_t at = record.length;
    while (!error && journal_record_at(bytes + at, length - at, salt, &record) && record.key == state->key &&
           record.sequence == sequence + 1) {
        error = replay_record(bytes + at, &record, state);
        sequence = record.sequence;
        at += record.length;
    }
    *end = at;
    return error ? error : more_behind(bytes, length, at, state->key, salt) ? -EBADMSG : 0;
}

int journal_replay(const uint8_t *bytes, size_t length, struct journal_state *out, uint64_t *end)
{
    uint64_t ignored;
    memset(out, 0, sizeof(*out));
    int error = replay(bytes, length, out, end ? end : &ignored);
    if (error)
        journal_state_free(out);
    return error;
}
