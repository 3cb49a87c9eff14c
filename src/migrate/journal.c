/* A record is one write and one sync, and the next begins when the one before is durable: so there is at most one record
 * of which a loss of power may leave parts, and it is the last (journal_replay.c builds on that). After a write or a sync
 * that failed nobody knows what stands there, and the journal takes no more; who wants to go on makes a new one.
 *
 * A sync of bytes that lie in blocks which were written before needs nothing of the filesystem's own log. So there are
 * always zeroes ahead, written, a step at a time; each step costs one slower append.
 *
 * A journal that is made anew stands beside the old one until it is durable. Whoever reads meanwhile finds one of them
 * whole. */
#include "migrate/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/event.h"
#include "migrate/journal_files.h"
#include "migrate/journal_record.h"
#include "migrate/journal_replay.h"

#define STEP       65536u       /* of the zeroes ahead */
#define EPOCH_MAX  65536u       /* an epoch's record; a longer one makes the journal anew */
#define FILE_LONG  (4ull << 20) /* or a longer file, but not one that would hardly get shorter */
#define RANGES_MAX 2048u        /* in a mark's or a touch's record */
#define NAME_SIZE  40
#define NAME_END   ".journal"

struct journal {
    struct journal_files *files;
    struct journal_file *file;
    uint64_t job, key, salt, sequence, epoch, regions;
    uint64_t length, room; /* the end of the records; of the zeroes behind them */
    uint64_t longest;      /* before it is made anew */
    uint64_t copied;       /* how many are, durably */
    char *partial;
    struct bits touched; /* as is durable */
    struct journal_build build;
    bool broken;
};

static void name_of(char *name, uint64_t job, const char *more)
{
    snprintf(name, NAME_SIZE, "%llu" NAME_END "%s", (unsigned long long)job, more);
}

static int break_by(struct journal *journal, int error)
{
    journal->broken |= error != 0;
    return error;
}

static int write_zeroes(struct journal_files *files, struct journal_file *file, uint64_t at, uint64_t end)
{
    static const uint8_t zeroes[STEP];
    int error = 0;
    for (size_t part; !error && at < end; at += part) {
        part = end - at < sizeof(zeroes) ? (size_t)(end - at) : sizeof(zeroes);
        error = files->ops->write(file, zeroes, part, at);
    }
    return error;
}

static uint64_t room_for(uint64_t length)
{
    return (length / STEP + 1) * STEP;
}

/* ---- the whole ---- */

static bool lies_below(const struct bits *bits, uint64_t end)
{
    return bits_next(bits, end, (uint64_t)bits->count * 64, true) >= (uint64_t)bits->count * 64;
}

static int check_state(const struct journal_state *state)
{
    if (state->regions > JOURNAL_REGIONS_MAX)
        return -EFBIG;
    return lies_below(&state->copied, state->regions) && lies_below(&state->marked, state->regions) &&
                   lies_below(&state->touched, journal_groups(state->regions)) &&
                   memchr(state->partial, 0, sizeof(state->partial))
               ? 0
               : -EINVAL;
}

static int build_state(struct journal *journal, const struct journal_state *state)
{
    struct journal_build *build = &journal->build;
    size_t length = strlen(state->partial);
    journal_begin(build, JOURNAL_STATE, 0, state->key, 1);
    journal_put32(build, JOURNAL_VERSION);
    journal_put32(build, (uint32_t)length);
    journal_put64(build, journal->salt);
    journal_put64(build, state->epoch);
    journal_put64(build, journal->regions);
    journal_put_bytes(build, state->partial, length);
    journal_put_set(build, &state->copied, journal->regions);
    journal_put_set(build, &state->marked, journal->regions);
    journal_put_set(build, &journal->touched, journal_groups(journal->regions));
    return journal_end(build, 0);
}

/* Beside the one that is there, and then in its place. */
static int place(struct journal *journal, struct journal_file *file)
{
    const struct journal_files_ops *ops = journal->files->ops;
    char name[NAME_SIZE], beside[NAME_SIZE];
    name_of(name, journal->job, "");
    name_of(beside, journal->job, ".new");
    int error = ops->write(file, journal->build.bytes, journal->build.length, 0);
    if (!error)
        error = write_zeroes(journal->files, file, journal->build.length, room_for(journal->build.length));
    event("journal-written");
    if (!error)
        error = ops->sync(file);
    event("journal-synced");
    if (!error)
        error = ops->rename(journal->files, beside, name);
    event("journal-renamed");
    if (!error)
        error = ops->sync_directory(journal->files);
    event("journal-made");
    return error;
}

static int add_touched(struct bits *touched, const struct bits *more)
{
    if (bits_grow(touched, (uint64_t)more->count * 64))
        return -ENOMEM;
    for (size_t i = 0; i < more->count; i++)
        touched->words[i] |= more->words[i];
    return 0;
}

static int make(struct journal *journal, const struct journal_state *state)
{
    char beside[NAME_SIZE];
    struct journal_file *file;
    int error = check_state(state);
    journal->regions = state->regions > journal->regions ? state->regions : journal->regions;
    if (!error)
        error = add_touched(&journal->touched, &state->touched);
    if (!error && getrandom(&journal->salt, sizeof(journal->salt), 0) != sizeof(journal->salt))
        error = -EIO;
    if (!error)
        error = build_state(journal, state);
    char *partial = error ? NULL : strdup(state->partial);
    if (!error && !partial)
        error = -ENOMEM;
    if (error)
        return error;
    free(journal->partial);
    journal->partial = partial;
    name_of(beside, journal->job, ".new");
    error = journal->files->ops->open(journal->files, beside, true, &file);
    if (error)
        return error;
    error = place(journal, file);
    if (error) {
        journal->files->ops->close(file);
        return error;
    }
    if (journal->file)
        journal->files->ops->close(journal->file);
    journal->file = file;
    journal->key = state->key;
    journal->epoch = state->epoch;
    journal->sequence = 1;
    journal->copied = bits_count(&state->copied, journal->regions);
    journal->length = journal->build.length;
    journal->room = room_for(journal->length);
    journal->longest = journal->length * 2 > FILE_LONG ? journal->length * 2 : FILE_LONG;
    return 0;
}

int journal_create(struct journal **out, struct journal_files *files, uint64_t job, const struct journal_state *state)
{
    struct journal *journal = calloc(1, sizeof(*journal));
    if (!journal)
        return -ENOMEM;
    journal->files = files;
    journal->job = job;
    int error = make(journal, state);
    if (error)
        journal_close(journal);
    else
        *out = journal;
    return error;
}

/* ---- a record ---- */

static int append(struct journal *journal)
{
    const struct journal_files_ops *ops = journal->files->ops;
    int error = journal_end(&journal->build, journal->salt);
    uint64_t end = journal->length + journal->build.length;
    if (!error && end > JOURNAL_BYTES_MAX)
        error = -EFBIG;
    if (!error && end > journal->room) {
        error = write_zeroes(journal->files, journal->file, journal->room, room_for(end));
        journal->room = room_for(end);
    }
    if (!error)
        error = ops->write(journal->file, journal->build.bytes, journal->build.length, journal->length);
    event("journal-append");
    if (!error)
        error = ops->sync(journal->file);
    event("journal-appended");
    if (error)
        return break_by(journal, error);
    journal->length = end;
    journal->sequence++;
    return 0;
}

/* Each record is durable before the next: see above. */
static int append_ranges(
    struct journal *journal, uint16_t type, const struct extent *ranges, size_t count, uint64_t end)
{
    if (journal->broken)
        return -EIO;
    for (size_t i = 0; i < count; i++)
        if (extent_empty(ranges[i]) || ranges[i].end > end)
            return break_by(journal, -EINVAL);
    int error = 0;
    for (size_t part; !error && count > 0; ranges += part, count -= part) {
        part = count < RANGES_MAX ? count : RANGES_MAX;
        journal_begin(&journal->build, type, 0, journal->key, journal->sequence + 1);
        for (size_t i = 0; i < part; i++)
            journal_put_range(&journal->build, ranges[i]);
        error = append(journal);
    }
    return error;
}

int journal_mark(struct journal *journal, const struct extent *ranges, size_t count)
{
    return append_ranges(journal, JOURNAL_MARK, ranges, count, journal->regions);
}

int journal_touch(struct journal *journal, const struct extent *ranges, size_t count)
{
    uint64_t end = journal_groups(journal->regions);
    int error = append_ranges(journal, JOURNAL_TOUCH, ranges, count, end);
    if (error)
        return error;
    if (bits_grow(&journal->touched, end))
        return break_by(journal, -ENOMEM);
    for (size_t i = 0; i < count; i++)
        for (uint64_t n = ranges[i].start; n < ranges[i].end; n++)
            bits_set(&journal->touched, n);
    return 0;
}

/* ---- an epoch ---- */

/* What is in one and not in the other, behind the record; how many runs. A negative errno: no memory. */
static int64_t put_less(
    struct journal_build *build, const struct bits *one, const struct bits *other, uint64_t end, size_t most)
{
    struct bits less = {NULL, 0};
    if (bits_copy(&less, one))
        return -ENOMEM;
    for (size_t i = 0; i < less.count && i < other->count; i++)
        less.words[i] &= ~other->words[i];
    uint64_t count = journal_put_runs(build, &less, end, most);
    bits_free(&less);
    return (int64_t)count;
}

/* 1: it is too long. */
static int build_epoch(
    struct journal *journal, const struct bits *before, const struct journal_state *state, uint64_t regions)
{
    struct journal_build *build = &journal->build;
    uint64_t groups = journal_groups(regions);
    journal_begin(build, JOURNAL_EPOCH, 0, journal->key, journal->sequence + 1);
    journal_put64(build, state->epoch);
    journal_put64(build, regions);
    journal_put64(build, bits_count(&state->copied, regions));
    size_t at = build->length;
    for (int i = 0; i < 4; i++)
        journal_put64(build, 0);
    int64_t counts[4] = {put_less(build, &state->copied, before, regions, EPOCH_MAX)};
    counts[1] = put_less(build, before, &state->copied, regions, EPOCH_MAX);
    counts[2] = (int64_t)journal_put_runs(build, &state->marked, regions, EPOCH_MAX);
    counts[3] = put_less(build, &state->touched, &journal->touched, groups, EPOCH_MAX);
    size_t length = build->length;
    if (build->failed || counts[0] < 0 || counts[1] < 0 || counts[3] < 0)
        return -ENOMEM;
    build->length = at;
    for (int i = 0; i < 4; i++)
        journal_put64(build, (uint64_t)counts[i]);
    build->length = length;
    return length > EPOCH_MAX || journal->length + length > journal->longest;
}

int journal_epoch(struct journal *journal, const struct bits *before, const struct journal_state *state)
{
    if (journal->broken)
        return -EIO;
    uint64_t regions = state->regions > journal->regions ? state->regions : journal->regions;
    int error = check_state(state);
    if (!error && (state->epoch < journal->epoch || bits_count(before, regions) != journal->copied))
        error = -EINVAL;
    if (error)
        return break_by(journal, error);
    bool other = state->key != journal->key || strcmp(state->partial, journal->partial) != 0;
    int whole = other ? 1 : build_epoch(journal, before, state, regions);
    if (whole)
        return break_by(journal, whole < 0 ? whole : make(journal, state));
    error = append(journal);
    if (error)
        return error;
    journal->regions = regions;
    journal->epoch = state->epoch;
    journal->copied = bits_count(&state->copied, regions);
    return break_by(journal, add_touched(&journal->touched, &state->touched));
}

uint64_t journal_length(const struct journal *journal)
{
    return journal->length;
}

void journal_close(struct journal *journal)
{
    if (!journal)
        return;
    if (journal->file)
        journal->files->ops->close(journal->file);
    bits_free(&journal->touched);
    free(journal->build.bytes);
    free(journal->partial);
    free(journal);
}

/* ---- those that are there ---- */

int journal_read(struct journal_files *files, uint64_t job, struct journal_state *out)
{
    char name[NAME_SIZE];
    struct journal_file *file;
    uint8_t *bytes = NULL;
    memset(out, 0, sizeof(*out));
    name_of(name, job, "");
    int error = files->ops->open(files, name, false, &file);
    if (error)
        return error;
    int64_t length = files->ops->length(file);
    if (length < 0)
        error = (int)length;
    else if ((uint64_t)length > JOURNAL_BYTES_MAX + STEP)
        error = -EBADMSG;
    else if (!(bytes = malloc((size_t)length + 1)))
        error = -ENOMEM;
    int64_t got = error ? error : files->ops->read(file, bytes, (size_t)length, 0);
    error = got < 0 ? (int)got : journal_replay(bytes, (size_t)got, out, NULL);
    free(bytes);
    files->ops->close(file);
    return error;
}

int journal_remove(struct journal_files *files, uint64_t job)
{
    char name[NAME_SIZE], beside[NAME_SIZE];
    name_of(name, job, "");
    name_of(beside, job, ".new");
    int error = files->ops->remove(files, name);
    int other = files->ops->remove(files, beside);
    if (error == -ENOENT)
        error = 0;
    if (!error && other != -ENOENT)
        error = other;
    return error ? error : files->ops->sync_directory(files);
}

struct listing {
    void (*found)(void *argument, uint64_t job);
    void *argument;
};

static void list_one(void *argument, const char *name)
{
    struct listing *listing = argument;
    char *end, again[NAME_SIZE];
    errno = 0;
    uint64_t job = strtoull(name, &end, 10);
    name_of(again, job, "");
    if (errno == 0 && strcmp(again, name) == 0)
        listing->found(listing->argument, job);
}

int journal_list(struct journal_files *files, void (*found)(void *argument, uint64_t job), void *argument)
{
    struct listing listing = {found, argument};
    return files->ops->list(files, list_one, &listing);
}

void journal_state_free(struct journal_state *state)
{
    bits_free(&state->copied);
    bits_free(&state->marked);
    bits_free(&state->touched);
    memset(state, 0, sizeof(*state));
}
