/* The thread that writes a job's journal: marks and touches for all who wait, and epochs. See marks.c. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/event.h"
#include "migrate/marks_private.h"

#define RANGES     256 /* of one record */
#define AHEAD_MOST 64  /* regions */
#define GROUP_MOST 1024
#define BUSY_SYNCS 8 /* within a second: the groups grow */

/* Under mutex: who waits for nothing any more goes on. */
void marks_let_go(struct marks *marks)
{
    list_for_each_safe (link, &marks->waiting) {
        struct log_request *request = container_of(link, struct log_request, link);
        if (marks_satisfied(marks, request)) {
            list_remove(link);
            request->logged(request);
        }
    }
}

/* The regions that are marked for one that has to be. Under mutex. */
static struct extent choose(struct marks *marks, uint64_t region)
{
    struct extent range = {region / marks->group * marks->group, 0};
    range.end = range.start + marks->group;
    marks->ahead = region == marks->ahead_at ? marks->ahead * 2 : 1;
    if (marks->ahead > AHEAD_MOST)
        marks->ahead = AHEAD_MOST;
    if (range.end < region + marks->ahead)
        range.end = region + marks->ahead;
    marks->ahead_at = range.end;
    return range;
}

static void count_sync(struct marks *marks)
{
    uint64_t now = clock_now();
    marks->figures.syncs++;
    if (now - marks->second > NS_PER_S) {
        marks->second = now;
        marks->second_syncs = 0;
    }
    if (++marks->second_syncs > BUSY_SYNCS && marks->group < GROUP_MOST) {
        marks->group *= 2;
        marks->second_syncs = 0;
    }
}

static bool within(const struct extent *ranges, size_t count, uint64_t n, uint64_t *end)
{
    for (size_t i = 0; i < count; i++)
        if (n >= ranges[i].start && n < ranges[i].end) {
            *end = ranges[i].end;
            return true;
        }
    return false;
}

/* What all who wait need, as far as it goes into one record. Under mutex. */
static size_t collect_marks(struct marks *marks, struct extent *ranges)
{
    size_t count = 0;
    list_for_each (link, &marks->waiting) {
        struct log_request *request = container_of(link, struct log_request, link);
        struct extent regions = marks_regions(request->extent);
        if (request->touch == LOG_TOUCH)
            continue;
        for (uint64_t r = regions.start; r < regions.end;) {
            r = marks_next_unmarked(marks, r, regions.end);
            if (r == regions.end || within(ranges, count, r, &r))
                continue;
            if (count == RANGES)
                return count;
            ranges[count] = choose(marks, r);
            if (ranges[count].end < regions.end)
                ranges[count].end = regions.end; /* who asks for much gets it at once */
            r = ranges[count++].end;
        }
    }
    return count;
}

static size_t collect_touches(struct marks *marks, struct extent *ranges)
{
    size_t count = 0;
    list_for_each (link, &marks->waiting) {
        struct log_request *request = container_of(link, struct log_request, link);
        struct extent regions = marks_regions(request->extent);
        if (request->touch == LOG_MARK || extent_empty(regions))
            continue;
        uint64_t end = TOUCH_GROUP(regions.end - 1) + 1;
        for (uint64_t g = TOUCH_GROUP(regions.start); g < end;) {
            g = bits_next(&marks->state.touched, g, end, false);
            if (g == end || within(ranges, count, g, &g))
                continue;
            if (count == RANGES)
                return count;
            uint64_t stop = bits_next(&marks->state.touched, g, end, true);
            ranges[count++] = (struct extent){g, stop};
            g = stop;
        }
    }
    return count;
}

static int set_ranges(struct bits *bits, const struct extent *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bits_grow(bits, ranges[i].end) < 0)
            return -ENOMEM;
        for (uint64_t n = ranges[i].start; n < ranges[i].end; n++)
            bits_set(bits, n);
    }
    return 0;
}

/* The journal takes numbers below its own of regions only; there is room for what a disk grows by meanwhile. */
static uint64_t room_for(uint64_t regions)
{
    return (regions / GROUP_MOST + 2) * GROUP_MOST;
}

static uint64_t end_of(const struct extent *ranges, size_t count)
{
    uint64_t end = 0;
    for (size_t i = 0; i < count; i++)
        end = ranges[i].end > end ? ranges[i].end : end;
    return end;
}

/* An epoch that changes nothing but the number of regions. */
static int make_room(struct marks *marks, uint64_t regions)
{
    struct journal_state after = marks->state;
    if (regions <= after.regions)
        return 0;
    after.regions = room_for(regions);
    int error = journal_epoch(marks->journal, &marks->state.copied, &after);
    if (!error)
        marks->state.regions = after.regions;
    return error;
}

/* The journal's turn: the mutex is given up while it is written. */
static void write_wanted(struct marks *marks)
{
    struct extent wanted[RANGES], touched[RANGES];
    size_t wanted_count = collect_marks(marks, wanted), touched_count = collect_touches(marks, touched);
    int error = 0;
    if (wanted_count || touched_count) {
        marks->writing_since = clock_now();
        pthread_mutex_unlock(&marks->mutex);
        event("journal-mark");
        error = make_room(marks, end_of(wanted, wanted_count));
        if (!error)
            error = make_room(marks, end_of(touched, touched_count) * JOURNAL_TOUCH_REGIONS);
        if (!error && wanted_count)
            error = journal_mark(marks->journal, wanted, wanted_count);
        if (!error && touched_count)
            error = journal_touch(marks->journal, touched, touched_count);
        event("journal-marked");
        pthread_mutex_lock(&marks->mutex);
        marks->writing_since = 0;
        count_sync(marks);
    }
    if (!error)
        error = set_ranges(&marks->state.marked, wanted, wanted_count);
    if (!error)
        error = set_ranges(&marks->state.touched, touched, touched_count);
    marks->failed = marks->failed || error;
    marks_let_go(marks);
}

/* Marks of groups that were used since the last epoch stay. Into kept, which has the room of marked. */
static void keep_used(struct marks *marks, struct bits *kept)
{
    uint64_t end = (uint64_t)marks->used.count * 64, used = 0, stay = 0;
    for (uint64_t r = 0; (r = bits_next(&marks->used, r, end, true)) < end;) {
        uint64_t start = r / marks->group * marks->group, stop = start + marks->group;
        for (uint64_t n = start; n < stop; n++) {
            used += bits_has(&marks->used, n);
            if (bits_has(&marks->state.marked, n)) {
                bits_set(kept, n);
                stay++;
            }
        }
        r = stop;
    }
    if (used * 8 < stay && marks->group > 1)
        marks->group /= 2;
    marks->figures.marked = stay;
}

static int store_epoch(struct marks *marks, const struct bits *before, const struct journal_state *after)
{
    event("journal-epoch");
    int error = marks->journal ? journal_epoch(marks->journal, before, after)
                               : journal_create(&marks->journal, marks->files, marks->job, after);
    if (!error)
        event("journal-epoch-durable");
    return error;
}

/* Under mutex, given up while the record is written. */
static int write_epoch(struct marks *marks)
{
    struct bits kept = {NULL, 0};
    int error = bits_grow(&kept, (uint64_t)marks->state.marked.count * 64);
    if (error)
        return error;
    marks->logging = true;
    uint64_t regions = mirror_keep_routed(marks->epoch, &marks->pending);
    keep_used(marks, &kept);
    bits_clear_all(&marks->used);
    bits_free(&marks->state.marked);
    marks->state.marked = kept;
    struct journal_state after = marks->state;
    after.copied = marks->pending;
    after.regions = room_for(regions) > after.regions ? room_for(regions) : after.regions;
    after.epoch++;
    marks->writing_since = clock_now();
    pthread_mutex_unlock(&marks->mutex);
    error = store_epoch(marks, &marks->state.copied, &after);
    pthread_mutex_lock(&marks->mutex);
    marks->writing_since = 0;
    if (error) {
        marks->failed = true;
        return error;
    }
    struct bits old = marks->state.copied;
    marks->state.copied = marks->pending;
    marks->state.regions = after.regions;
    marks->state.epoch++;
    marks->pending = old;
    bits_clear_all(&marks->pending);
    marks->figures.epochs++;
    return 0;
}

static void *writer(void *argument)
{
    struct marks *marks = argument;
    pthread_setname_np(pthread_self(), "journal");
    pthread_mutex_lock(&marks->mutex);
    while (!marks->ending && !marks->failed) {
        if (marks->epoch) {
            int result = write_epoch(marks);
            mirror_put(marks->epoch);
            marks->epoch = NULL;
            marks->epoch_result = result;
            pthread_cond_broadcast(&marks->changed);
        } else if (marks->news && marks->journal) {
            marks->news = false;
            write_wanted(marks);
            marks->news = marks->news || !list_empty(&marks->waiting);
        } else {
            pthread_cond_wait(&marks->work, &marks->mutex);
        }
    }
    pthread_cond_broadcast(&marks->changed);
    pthread_mutex_unlock(&marks->mutex);
    disk_log_put(&marks->log);
    return NULL;
}

/* The thread has a reference of its own: it may hang for longer than anybody wants to wait. Under mutex, or alone. */
int marks_start_writer(struct marks *marks)
{
    pthread_t thread;
    pthread_attr_t attributes;
    if (marks->threaded)
        return 0;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    disk_log_get(&marks->log);
    int error = -pthread_create(&thread, &attributes, writer, marks);
    pthread_attr_destroy(&attributes);
    if (error)
        disk_log_put(&marks->log);
    marks->threaded = !error;
    return error;
}
