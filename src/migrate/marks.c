/* The write-intent log of one job (design, laws 2, 3 and 4).
 *
 * Idea. Per region: copied (durable: an epoch has flushed both legs when they agreed there), marked (durable: they may
 * differ since) and used (in memory: changed since the last epoch). Whoever goes on after a death takes copied less marked
 * as agreed and copies the rest. So before a change of a copied region reaches any leg, the region is durably marked;
 * changes of other regions need nothing. And whoever goes on must not take a hole of the target for granted where this job
 * may have written (law 4): touched, in groups, is made durable before the copier or a mirrored write is first sent there.
 *
 * Happy path. A change asks mark(): all is marked, it goes on; else it waits for the writing thread, which writes the marks
 * of all who wait as one record and one sync. Marks are set ahead of who writes one region after the other, and in larger
 * groups the more often a mark is asked for. An epoch: pending := routed regions, from now on they count like copied ones;
 * changes sent before (of the other parity) end; both legs are flushed; copied := pending that are still routed, and only
 * marks of groups used since the last epoch stay. Its record ends the older ones at once.
 *
 * Why that is enough. A change of a region in pending or copied after the begin is marked before it is sent, and used, so
 * its mark is in the epoch's record or behind it. One before the begin has ended on both legs before they are flushed; if
 * it failed on one, the region is not routed any more and leaves. What the record drops from copied was marked or is not
 * routed: it is copied again in any case. Marks that the record ends are taken out of memory before it is written: a later
 * change asks for a new one, which stands behind the record.
 *
 * Failure modes. A journal that cannot be written, or hangs, has failed: changes of copied regions wait until the job has
 * durably invalidated the partial and says marks_void. Without a journal (before the first epoch) nothing waits.
 *
 * Not done here: the commit, which is the catalog's record. */
#include "migrate/marks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "migrate/marks_private.h"

static struct marks *marks_of(struct disk_log *log)
{
    return container_of(log, struct marks, log);
}

static bool counts(const struct marks *marks, uint64_t region)
{
    return bits_has(&marks->state.copied, region) || bits_has(&marks->pending, region);
}

uint64_t marks_next_unmarked(const struct marks *marks, uint64_t from, uint64_t end)
{
    uint64_t known = marks->state.copied.count > marks->pending.count ? marks->state.copied.count
                                                                      : marks->pending.count;
    uint64_t stop = end < known * 64 ? end : known * 64;
    for (uint64_t r = from; r < stop; r++)
        if (counts(marks, r) && !bits_has(&marks->state.marked, r))
            return r;
    return end;
}

static uint64_t next_untouched(const struct marks *marks, struct extent regions)
{
    uint64_t end = extent_empty(regions) ? 0 : TOUCH_GROUP(regions.end - 1) + 1, from = TOUCH_GROUP(regions.start);
    return from < end ? bits_next(&marks->state.touched, from, end, false) : end;
}

static bool all_touched(const struct marks *marks, struct extent regions)
{
    return extent_empty(regions) || next_untouched(marks, regions) > TOUCH_GROUP(regions.end - 1);
}

bool marks_satisfied(const struct marks *marks, const struct log_request *request)
{
    struct extent regions = marks_regions(request->extent);
    if (marks->voided)
        return true;
    if (marks->blocked)
        return false;
    if (request->touch != LOG_TOUCH && marks_next_unmarked(marks, regions.start, regions.end) < regions.end)
        return false;
    return request->touch == LOG_MARK || !marks->logging || all_touched(marks, regions);
}

/* Before there is a journal a touch is only remembered. */
static void remember_touch(struct marks *marks, const struct log_request *request)
{
    struct extent regions = marks_regions(request->extent);
    if (marks->logging || request->touch == LOG_MARK || extent_empty(regions))
        return;
    if (bits_grow(&marks->state.touched, TOUCH_GROUP(regions.end - 1) + 1) < 0) {
        marks->failed = true;
        return;
    }
    for (uint64_t g = TOUCH_GROUP(regions.start); g <= TOUCH_GROUP(regions.end - 1); g++)
        bits_set(&marks->state.touched, g);
}

static bool enter(struct marks *marks, struct log_request *request)
{
    remember_touch(marks, request);
    bool now = marks_satisfied(marks, request);
    if (!now) {
        list_append(&marks->waiting, &request->link);
        marks->figures.waited++;
        marks->news = true;
        pthread_cond_signal(&marks->work);
    }
    return now;
}

static bool mark(struct disk_log *log, struct log_request *request)
{
    struct marks *marks = marks_of(log);
    pthread_mutex_lock(&marks->mutex);
    struct extent regions = marks_regions(request->extent);
    request->epoch = marks->parity;
    marks->in_flight[marks->parity]++;
    uint64_t end = marks->used.count * 64 < regions.end ? marks->used.count * 64 : regions.end;
    for (uint64_t r = regions.start; r < end; r++)
        bits_set(&marks->used, r);
    bool now = enter(marks, request);
    pthread_mutex_unlock(&marks->mutex);
    return now;
}

static void settled(struct disk_log *log, struct log_request *request)
{
    struct marks *marks = marks_of(log);
    pthread_mutex_lock(&marks->mutex);
    if (--marks->in_flight[request->epoch] == 0 && request->epoch != marks->parity)
        pthread_cond_broadcast(&marks->changed);
    pthread_mutex_unlock(&marks->mutex);
}

bool marks_touch(struct marks *marks, struct log_request *request)
{
    request->touch = LOG_TOUCH;
    pthread_mutex_lock(&marks->mutex);
    bool now = enter(marks, request);
    pthread_mutex_unlock(&marks->mutex);
    return now;
}

static void release(struct disk_log *log)
{
    struct marks *marks = marks_of(log);
    mirror_put(marks->epoch);
    journal_close(marks->journal);
    journal_files_close(marks->files);
    journal_state_free(&marks->state);
    bits_free(&marks->pending);
    bits_free(&marks->used);
    pthread_cond_destroy(&marks->work);
    pthread_cond_destroy(&marks->changed);
    pthread_mutex_destroy(&marks->mutex);
    free(marks);
}

struct disk_log *marks_log(struct marks *marks)
{
    return &marks->log;
}

static int allocate(struct marks **out)
{
    struct marks *marks = calloc(1, sizeof(*marks));
    if (!marks)
        return -ENOMEM;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&marks->mutex, NULL);
    pthread_cond_init(&marks->work, NULL);
    pthread_cond_init(&marks->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    list_init(&marks->waiting);
    marks->log.mark = mark;
    marks->log.settled = settled;
    marks->log.release = release;
    atomic_init(&marks->log.references, 1);
    marks->group = marks->ahead = 1;
    *out = marks;
    return 0;
}

int marks_new(struct marks **out, struct journal_files *files, uint64_t job, const char *partial)
{
    struct marks *marks;
    int error = allocate(&marks);
    if (error)
        return error;
    marks->files = journal_files_get(files);
    marks->job = job;
    snprintf(marks->state.partial, sizeof(marks->state.partial), "%s", partial);
    if (getrandom(&marks->state.key, sizeof(marks->state.key), 0) != sizeof(marks->state.key)) {
        disk_log_put(&marks->log);
        return -EIO;
    }
    *out = marks;
    return 0;
}

int marks_new_blocked(struct marks **out)
{
    int error = allocate(out);
    if (!error)
        (*out)->failed = (*out)->blocked = true;
    return error;
}

int marks_load(struct marks **out, struct journal_files *files, uint64_t job, const char *partial)
{
    struct marks *marks;
    struct journal_state state = {.regions = 0};
    int error = journal_read(files, job, &state);
    if (!error && strcmp(state.partial, partial) != 0)
        error = -ENOENT;
    if (!error)
        error = marks_new(&marks, files, job, partial);
    if (error) {
        journal_state_free(&state);
        return error;
    }
    state.key = marks->state.key;
    marks->state = state;
    marks->logging = true;
    error = journal_create(&marks->journal, files, job, &marks->state);
    if (!error)
        error = bits_grow(&marks->used, state.regions);
    if (!error)
        error = marks_start_writer(marks);
    if (error)
        disk_log_put(&marks->log);
    else
        *out = marks;
    return error;
}

void marks_end(struct marks *marks)
{
    if (!marks)
        return;
    pthread_mutex_lock(&marks->mutex);
    marks->ending = true;
    list_for_each_safe (link, &marks->waiting) {
        struct log_request *request = container_of(link, struct log_request, link);
        if (request->touch == LOG_TOUCH) { /* a copier's, which is stopped: it writes nothing any more */
            list_remove(link);
            request->logged(request);
        }
    }
    pthread_cond_signal(&marks->work);
    pthread_mutex_unlock(&marks->mutex);
    disk_log_put(&marks->log);
}

void marks_touch_all(struct marks *marks, uint64_t regions)
{
    pthread_mutex_lock(&marks->mutex);
    uint64_t groups = regions ? TOUCH_GROUP(regions - 1) + 1 : 0;
    if (bits_grow(&marks->state.touched, groups) < 0)
        marks->failed = true;
    for (uint64_t g = 0; g < groups && !marks->failed; g++)
        bits_set(&marks->state.touched, g);
    pthread_mutex_unlock(&marks->mutex);
}

bool marks_durable(struct marks *marks)
{
    pthread_mutex_lock(&marks->mutex);
    bool durable = marks->logging && !marks->failed && !marks->voided;
    pthread_mutex_unlock(&marks->mutex);
    return durable;
}

uint64_t marks_seed(struct marks *marks, struct mirror *mirror)
{
    pthread_mutex_lock(&marks->mutex);
    struct bits agreed = {NULL, 0};
    uint64_t count = 0;
    if (bits_copy(&agreed, &marks->state.copied) == 0) {
        for (size_t i = 0; i < agreed.count && i < marks->state.marked.count; i++)
            agreed.words[i] &= ~marks->state.marked.words[i];
        mirror_seed(mirror, &agreed, &marks->state.touched, JOURNAL_TOUCH_REGIONS);
        count = bits_count(&agreed, mirror_regions(mirror));
    }
    pthread_mutex_unlock(&marks->mutex);
    bits_free(&agreed);
    return count;
}

int marks_epoch_begin(struct marks *marks, struct mirror *mirror, bool last)
{
    pthread_mutex_lock(&marks->mutex);
    uint64_t regions = mirror_regions(mirror);
    int error = marks->failed || marks->voided ? -EIO : marks->in_flight[marks->parity ^ 1] ? -EAGAIN : 0;
    if (!error) /* not state's: the writing thread may be at them */
        error = bits_grow(&marks->used, regions);
    if (!error)
        error = marks_start_writer(marks);
    if (!error && marks->logging)
        error = mirror_routed(mirror, &marks->pending);
    if (!error)
        marks->parity ^= 1;
    if (!error && last)
        bits_clear_all(&marks->used); /* no need to foresee anything */
    pthread_mutex_unlock(&marks->mutex);
    return error;
}

static struct timespec after(uint64_t delay_ns)
{
    uint64_t until = clock_now() + delay_ns;
    return (struct timespec){(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
}

bool marks_epoch_settled(struct marks *marks, uint64_t timeout_ns)
{
    struct timespec at = after(timeout_ns);
    pthread_mutex_lock(&marks->mutex);
    for (int error = 0; marks->in_flight[marks->parity ^ 1] && !error;)
        error = pthread_cond_timedwait(&marks->changed, &marks->mutex, &at);
    bool all = marks->in_flight[marks->parity ^ 1] == 0;
    pthread_mutex_unlock(&marks->mutex);
    return all;
}

int marks_epoch_end(struct marks *marks, struct mirror *mirror, uint64_t deadline_ns)
{
    struct timespec at = after(deadline_ns);
    pthread_mutex_lock(&marks->mutex);
    marks->epoch = mirror_get(mirror);
    pthread_cond_signal(&marks->work);
    int error = 0;
    while (marks->epoch && !marks->failed && !error)
        error = -pthread_cond_timedwait(&marks->changed, &marks->mutex, &at);
    int result = marks->epoch ? -ETIMEDOUT : marks->epoch_result;
    marks->failed = marks->failed || result < 0;
    pthread_mutex_unlock(&marks->mutex);
    return result;
}

struct cover {
    struct log_request request;
    struct marks *marks;
    bool done;
};

static void covered(struct log_request *request)
{
    struct cover *cover = container_of(request, struct cover, request);
    cover->done = true;
    pthread_cond_broadcast(&cover->marks->changed);
}

int marks_cover(struct marks *marks, uint64_t size, uint64_t deadline_ns)
{
    struct cover cover = {.request = {.extent = {0, size}, .touch = LOG_BOTH, .logged = covered}, .marks = marks};
    struct timespec at = after(deadline_ns);
    pthread_mutex_lock(&marks->mutex);
    cover.done = enter(marks, &cover.request);
    for (int error = 0; !cover.done && !marks->failed && !error;)
        error = pthread_cond_timedwait(&marks->changed, &marks->mutex, &at);
    if (!cover.done)
        list_remove(&cover.request.link);
    int result = cover.done ? 0 : marks->failed ? -EIO : -ETIMEDOUT;
    marks->failed = marks->failed || result < 0;
    pthread_mutex_unlock(&marks->mutex);
    return result;
}

void marks_epoch_abandon(struct marks *marks)
{
    pthread_mutex_lock(&marks->mutex);
    bits_clear_all(&marks->pending);
    marks_let_go(marks);
    pthread_mutex_unlock(&marks->mutex);
}

bool marks_epoch_wanted(struct marks *marks, struct mirror *mirror)
{
    struct bits routed = {NULL, 0};
    bool wanted = mirror_routed(mirror, &routed) == 0;
    pthread_mutex_lock(&marks->mutex);
    uint64_t end = (uint64_t)routed.count * 64;
    wanted = wanted && (bits_count(&routed, end) != bits_count(&marks->state.copied, end) ||
                           bits_next(&marks->state.marked, 0, end, true) < end);
    pthread_mutex_unlock(&marks->mutex);
    bits_free(&routed);
    return wanted;
}

bool marks_failed(struct marks *marks, uint64_t deadline_ns)
{
    pthread_mutex_lock(&marks->mutex);
    bool failed = !marks->voided &&
                  (marks->failed || (marks->writing_since != 0 && clock_now() - marks->writing_since > deadline_ns));
    marks->failed = marks->failed || failed;
    pthread_mutex_unlock(&marks->mutex);
    return failed;
}

void marks_void(struct marks *marks)
{
    pthread_mutex_lock(&marks->mutex);
    marks->voided = true;
    marks_let_go(marks);
    pthread_mutex_unlock(&marks->mutex);
}

struct marks_figures marks_figures(struct marks *marks)
{
    pthread_mutex_lock(&marks->mutex);
    struct marks_figures figures = marks->figures;
    pthread_mutex_unlock(&marks->mutex);
    return figures;
}
