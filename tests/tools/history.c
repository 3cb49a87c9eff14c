/* The model of what a file may hold.
 *
 * The file is cut into blocks of 512 bytes. Every block that is written bears who wrote it, the write's counter, its
 * own offset and a checksum, so that its content is a pure function of (seed, counter, offset) and a block that was
 * lost, doubled, misplaced or mixed is recognised without keeping a copy.
 *
 * For each block the model keeps its *answers*: the counters of all writes that may have been the last one. A write
 * that ended before another one began is no answer any more once the other one is acknowledged; of two that overlapped
 * in time either may have won. A read with no write beside it must return one of the answers, and from then on only
 * that one: a disk whose two legs took two overlapping writes in different order is caught here, by giving one answer
 * first and the other one later. A read with writes beside it may return any answer that held when it began, or any of
 * those writes. If it caught a block half way, the read is done again while no write is in flight.
 *
 * Writes with odd edges: the block at an edge becomes a *mixture*, whose 512 bytes are kept. Writes to different bytes
 * of one mixture run side by side (that is what a careless read-modify-write loses); writes to the same bytes of it
 * wait here for each other, because the model could not name the winner. What is not inside a write in flight must not
 * change.
 *
 * A write that failed may have landed or not: it becomes one more answer, and its edges are unknown.
 *
 * One mutex guards everything. This is no benchmark. */
#include "history_inside.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *history_must(void *memory)
{
    if (!memory) {
        fprintf(stderr, "verify-load: out of memory\n");
        abort();
    }
    return memory;
}

struct history *history_new(uint64_t base, uint64_t length, uint64_t seed, bool unknown)
{
    struct history *history = history_must(calloc(1, sizeof *history));
    history->base = base;
    history->length = length / BLOCK * BLOCK;
    history->seed = seed;
    history->clock = 1;
    pthread_mutex_init(&history->mutex, NULL);
    pthread_cond_init(&history->changed, NULL);
    history->blocks = history_must(calloc(history->length / BLOCK + 1, sizeof *history->blocks));
    for (uint64_t i = 0; unknown && i < history->length / BLOCK; i++)
        history->blocks[i].counter = UNKNOWN;
    return history;
}

static void forget_more(struct block *block)
{
    if (block->counter == MIXTURE) {
        free(block->image);
    } else {
        while (block->more) {
            struct more *more = block->more;
            block->more = more->next;
            free(more);
        }
    }
    block->more = NULL;
}

void history_free(struct history *history)
{
    if (!history)
        return;
    for (uint64_t i = 0; i < history->length / BLOCK; i++) {
        forget_more(&history->blocks[i]);
        history_forget_old(&history->blocks[i]);
    }
    pthread_cond_destroy(&history->changed);
    pthread_mutex_destroy(&history->mutex);
    linear_free(history->linear);
    free(history->blocks);
    free(history);
}

void history_set_reader(struct history *history, history_reader *reader, void *opaque)
{
    history->reader = reader;
    history->opaque = opaque;
}

uint64_t history_base(const struct history *history)
{
    return history->base;
}

uint64_t history_length(const struct history *history)
{
    return history->length;
}

uint64_t history_written(const struct history *history)
{
    uint64_t blocks = 0;
    for (uint64_t i = 0; i < history->length / BLOCK; i++)
        blocks += history->blocks[i].counter != 0 && history->blocks[i].counter != UNKNOWN;
    return blocks * BLOCK;
}

static struct block *block_at(struct history *history, uint64_t offset)
{
    assert(offset >= history->base && offset < history->base + history->length);
    return &history->blocks[(offset - history->base) / BLOCK];
}

static void become(struct block *block, uint64_t counter, uint64_t ended)
{
    forget_more(block);
    block->counter = counter;
    block->ended = ended;
}

/* --- writes --- */

static bool overlaps(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

static bool covers(const struct history_write *write, uint64_t start)
{
    return write->offset <= start && write->offset + write->length >= start + BLOCK;
}

/* The blocks that a write touches without covering them; 0, 1 or 2. */
static unsigned edges(const struct history_write *write, uint64_t out[2])
{
    unsigned count = 0;
    uint64_t first = write->offset / BLOCK * BLOCK;
    uint64_t last = (write->offset + write->length - 1) / BLOCK * BLOCK;
    if (!covers(write, first))
        out[count++] = first;
    if (last != first && !covers(write, last))
        out[count++] = last;
    return count;
}

static bool unsettled(struct history *history, uint64_t start)
{
    struct block *block = block_at(history, start);
    return block->counter == UNKNOWN || (block->counter != MIXTURE && block->more);
}

static bool must_wait(struct history *history, const struct history_write *write)
{
    uint64_t mine[2], theirs[2];
    unsigned my_count = edges(write, mine);
    for (struct history_write *other = history->writes; other; other = other->next) {
        if ((write->alone || other->alone) && overlaps(write->offset, write->length, other->offset, other->length))
            return true;
        for (unsigned i = 0; i < my_count; i++) {
            if (!overlaps(other->offset, other->length, mine[i], BLOCK))
                continue;
            if (covers(other, mine[i]) || other->settling || unsettled(history, mine[i]))
                return true;
            if (overlaps(write->offset, write->length, other->offset, other->length))
                return true;
        }
        unsigned their_count = edges(other, theirs);
        for (unsigned i = 0; i < their_count; i++)
            if (covers(write, theirs[i]) ||
                (other->settling && overlaps(write->offset, write->length, theirs[i], BLOCK)))
                return true;
    }
    return false;
}

static void note_seen(struct history_read *read, const struct history_write *write)
{
    if (!overlaps(read->offset, read->length, write->offset, write->length))
        return;
    if (read->seen_count == read->seen_room) {
        read->seen_room = read->seen_room ? read->seen_room * 2 : 16;
        read->seen = history_must(realloc(read->seen, read->seen_room * sizeof *read->seen));
    }
    read->seen[read->seen_count++] = (struct history_seen){write->counter, write->offset, write->length};
}

/* Called with the mutex; makes the block a mixture whose bytes are known. */
static int settle(struct history *history, struct history_write *write, uint64_t start)
{
    struct block *block = block_at(history, start);
    uint8_t *image;
    int error = 0;
    if (block->counter == MIXTURE)
        return 0;
    image = history_must(malloc(BLOCK));
    if (unsettled(history, start)) {
        write->settling = true;
        pthread_mutex_unlock(&history->mutex);
        error = history->reader(history->opaque, start, image);
        pthread_mutex_lock(&history->mutex);
        write->settling = false;
        pthread_cond_broadcast(&history->changed);
    } else {
        pattern_fill(history->seed, block->counter, start, image);
    }
    if (error) {
        free(image);
        return error;
    }
    become(block, MIXTURE, 0);
    block->image = image;
    return 0;
}

int history_write_begin(struct history *history, struct history_write *write, enum history_kind kind, unsigned writer)
{
    uint64_t start[2];
    int error = 0;
    pthread_mutex_lock(&history->mutex);
    while (history->quiet || history->quiet_wanted || must_wait(history, write))
        pthread_cond_wait(&history->changed, &history->mutex);
    write->counter = kind == HISTORY_ZERO ? 0 : (++history->counter << 16) | (writer & 0xffff);
    write->began = ++history->clock;
    write->settling = false;
    write->next = history->writes;
    history->writes = write;
    history->in_flight++;
    for (struct history_read *read = history->reads; read; read = read->next)
        note_seen(read, write);
    unsigned count = edges(write, start);
    for (unsigned i = 0; i < count && !error; i++)
        error = settle(history, write, start[i]);
    pthread_mutex_unlock(&history->mutex);
    return error;
}

void history_fill(const struct history *history, const struct history_write *write, void *data)
{
    uint8_t *out = data;
    uint64_t offset = write->offset;
    uint64_t end = write->offset + write->length;
    while (offset < end) {
        uint64_t start = offset / BLOCK * BLOCK;
        uint64_t stop = start + BLOCK < end ? start + BLOCK : end;
        uint8_t block[BLOCK];
        pattern_fill(history->seed, write->counter, start, block);
        memcpy(out, block + (offset - start), stop - offset);
        out += stop - offset;
        offset = stop;
    }
}

/* A full block was written: drop the answers that it made old, add itself. */
static void add_answer(struct history *history, struct block *block, const struct history_write *write, int error)
{
    history_remember(history, block);
    bool old_first = !error && (block->counter == UNKNOWN || block->counter == MIXTURE || block->ended < write->began);
    if (old_first && (block->counter == MIXTURE || !block->more)) {
        become(block, write->counter, history->clock);
        return;
    }
    if (block->counter == UNKNOWN)
        return;
    if (block->counter == MIXTURE) {
        become(block, UNKNOWN, 0);
        return;
    }
    struct more *kept = NULL;
    for (struct more *more = block->more, *next; more; more = next) {
        next = more->next;
        if (!error && more->ended < write->began) {
            free(more);
        } else {
            more->next = kept;
            kept = more;
        }
    }
    block->more = kept;
    if (!old_first) {
        struct more *more = history_must(malloc(sizeof *more));
        *more = (struct more){block->counter, block->ended, block->more};
        block->more = more;
    }
    block->counter = write->counter;
    block->ended = history->clock;
}

static void finish_edge(struct history *history, const struct history_write *write, uint64_t start, int error)
{
    struct block *block = block_at(history, start);
    uint64_t from = write->offset > start ? write->offset - start : 0;
    uint64_t to = write->offset + write->length - start;
    uint8_t data[BLOCK];
    if (error) {
        become(block, UNKNOWN, 0);
        return;
    }
    if (block->counter != MIXTURE)
        return; /* another edge of this block failed meanwhile */
    to = to > BLOCK ? BLOCK : to;
    pattern_fill(history->seed, write->counter, start, data);
    memcpy(block->image + from, data + from, to - from);
}

void history_write_end(struct history *history, struct history_write *write, int error)
{
    pthread_mutex_lock(&history->mutex);
    history->clock++;
    uint64_t end = write->offset + write->length;
    for (uint64_t start = write->offset / BLOCK * BLOCK; start < end; start += BLOCK) {
        history_note_write(history, write, start, error);
        if (covers(write, start))
            add_answer(history, block_at(history, start), write, error);
        else
            finish_edge(history, write, start, error);
    }
    for (struct history_write **at = &history->writes; *at; at = &(*at)->next) {
        if (*at == write) {
            *at = write->next;
            break;
        }
    }
    history->in_flight--;
    pthread_cond_broadcast(&history->changed);
    pthread_mutex_unlock(&history->mutex);
}

void history_quiet_begin(struct history *history)
{
    pthread_mutex_lock(&history->mutex);
    history->quiet_wanted++;
    while (history->in_flight || history->quiet)
        pthread_cond_wait(&history->changed, &history->mutex);
    history->quiet = true;
    pthread_mutex_unlock(&history->mutex);
}

void history_quiet_end(struct history *history)
{
    pthread_mutex_lock(&history->mutex);
    history->quiet_wanted--;
    history->quiet = false;
    pthread_cond_broadcast(&history->changed);
    pthread_mutex_unlock(&history->mutex);
}

/* --- reads --- */

static void add_choice(struct history_read *read, uint64_t block, uint64_t counter)
{
    if (read->choice_count == read->choice_room) {
        read->choice_room = read->choice_room ? read->choice_room * 2 : 64;
        read->choices = history_must(realloc(read->choices, read->choice_room * sizeof *read->choices));
    }
    read->choices[read->choice_count++] = (struct history_choice){block, counter};
}

/* Reads are aligned to blocks. */
void history_read_begin(struct history *history, struct history_read *read)
{
    size_t count = read->length / BLOCK;
    if (count > read->room) {
        read->before = history_must(realloc(read->before, count * sizeof *read->before));
        read->room = count;
    }
    read->seen_count = 0;
    read->choice_count = 0;
    pthread_mutex_lock(&history->mutex);
    read->began = ++history->clock;
    for (size_t i = 0; i < count; i++) {
        struct block *block = block_at(history, read->offset + i * BLOCK);
        read->before[i] = block->counter;
        if (block->counter == MIXTURE || !block->more)
            continue;
        read->before[i] = SEVERAL;
        add_choice(read, i, block->counter);
        for (struct more *more = block->more; more; more = more->next)
            add_choice(read, i, more->counter);
    }
    for (struct history_write *write = history->writes; write; write = write->next)
        note_seen(read, write);
    read->next = history->reads;
    history->reads = read;
    pthread_mutex_unlock(&history->mutex);
}

static bool was_answer(const struct history_read *read, size_t index, uint64_t counter)
{
    if (read->before[index] != SEVERAL)
        return read->before[index] == UNKNOWN || read->before[index] == counter;
    for (size_t i = 0; i < read->choice_count; i++)
        if (read->choices[i].block == index && read->choices[i].counter == counter)
            return true;
    return false;
}

static bool is_answer(const struct block *block, uint64_t counter)
{
    bool found = block->counter == counter;
    for (const struct more *more = block->more; more && !found; more = more->next)
        found = more->counter == counter;
    return found;
}

static void complain(struct history *history, struct block *block, uint64_t offset, uint64_t got, const uint8_t *data)
{
    struct pattern_claim claim = pattern_claim(data);
    if (history->reported++ < 20) {
        char when[32];
        time_t now = time(NULL);
        strftime(when, sizeof(when), "%T", localtime(&now));
        fprintf(stderr, "WRONG at %s, offset %llu: ", when, (unsigned long long)offset);
        if (block->counter == MIXTURE)
            fprintf(stderr, "expected a mixture of odd writes");
        else
            fprintf(stderr, "expected write %llu of writer %u%s", (unsigned long long)(block->counter >> 16),
                (unsigned)(block->counter & 0xffff), block->more ? " or one beside it" : "");
        if (got == UNKNOWN && claim.is_ours)
            fprintf(stderr, ", found a broken block that says write %llu of writer %u at %llu\n",
                (unsigned long long)(claim.counter >> 16), (unsigned)(claim.counter & 0xffff),
                (unsigned long long)claim.offset);
        else if (got == UNKNOWN)
            fprintf(stderr, ", found foreign bytes\n");
        else
            fprintf(stderr, ", found %s %llu of writer %u\n", got ? "write" : "zeroes,",
                (unsigned long long)(got >> 16), (unsigned)(got & 0xffff));
    }
    become(block, UNKNOWN, 0);
}

/* Bytes of a mixture that no write of `read` touched must be as they were. */
static bool mixture_holds(
    const struct history_read *read, const struct block *block, uint64_t start, const uint8_t *data)
{
    for (unsigned i = 0; i < BLOCK; i++) {
        bool touched = data[i] == block->image[i];
        for (size_t s = 0; !touched && s < read->seen_count; s++)
            touched = overlaps(read->seen[s].offset, read->seen[s].length, start + i, 1);
        if (!touched)
            return false;
    }
    return true;
}

enum verdict { RIGHT, TORN, WRONG };

static enum verdict judge(struct history *history, struct history_read *read, size_t index, const uint8_t *data)
{
    uint64_t start = read->offset + index * BLOCK;
    struct block *block = block_at(history, start);
    bool beside = false, one_of_them = false;
    uint64_t got = pattern_recognise(history->seed, data, start);
    history_note_read(history, read, start, got);
    for (size_t i = 0; i < read->seen_count; i++) {
        if (!overlaps(read->seen[i].offset, read->seen[i].length, start, BLOCK))
            continue;
        beside = true;
        one_of_them |= got != UNKNOWN && read->seen[i].counter == got;
    }
    if (read->before[index] == UNKNOWN || block->counter == UNKNOWN)
        return RIGHT;
    if (block->counter == MIXTURE && read->before[index] == MIXTURE) {
        if (mixture_holds(read, block, start, data))
            return RIGHT;
    } else if (!beside) {
        if (got != UNKNOWN && is_answer(block, got)) {
            if (block->more)
                become(block, got, block->ended); /* the latest end among the answers: never too early */
            return RIGHT;
        }
    } else if (one_of_them || (got != UNKNOWN && was_answer(read, index, got))) {
        return RIGHT;
    } else if (got == UNKNOWN || read->before[index] == MIXTURE) {
        return TORN; /* or a mixture that is gone: nobody can tell any more */
    }
    complain(history, block, start, got, data);
    return WRONG;
}

unsigned history_read_end(struct history *history, struct history_read *read, const void *data, bool *torn)
{
    unsigned wrong = 0;
    *torn = false;
    pthread_mutex_lock(&history->mutex);
    history->clock++;
    for (size_t i = 0; data && i < read->length / BLOCK; i++) {
        enum verdict verdict = judge(history, read, i, (const uint8_t *)data + i * BLOCK);
        wrong += verdict == WRONG;
        *torn |= verdict == TORN;
    }
    for (struct history_read **at = &history->reads; *at; at = &(*at)->next) {
        if (*at == read) {
            *at = read->next;
            break;
        }
    }
    pthread_mutex_unlock(&history->mutex);
    return wrong;
}

void history_read_free(struct history_read *read)
{
    free(read->before);
    free(read->choices);
    free(read->seen);
}
