/* One read at a time, of a region, through the disk as the guest's are: in the order of the region lock where there is
 * one, and from the leg that is the truth at that moment. So the guest never waits for more than one region's read;
 * and while it is at work itself the scrub rests four times as long as each read took.
 *
 * A region that cannot be read is read again page by page, which names the pages, and forgives what does not fail
 * twice. A datastore that does not answer says nothing about what is on it: the scrub fails. */
#include "migrate/scrub.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "io/datastore.h"

#define PAGE     4096u
#define REST     4 /* times the read's time */
#define REST_MAX NS_PER_S
#define TOLD     4 /* ranges that the sentence names */

/* A read's memory: the reader's, and the disk's until released (law 7); the last of the two frees it. */
struct read {
    struct disk_io io;
    struct disk *disk;
    struct iovec iov;
    struct task task;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool answered, released, left;
    uint8_t *buffer;
};

struct scrub {
    /* set at creation */
    struct job_services services;
    uint64_t node;
    struct reactor *reactor;
    void (*ended)(void *argument, struct scrub *scrub);
    void *argument;
    bool running;
    pthread_t thread;
    /* the scrub's thread */
    struct disk *disk;
    struct read *read;
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    enum scrub_state state;
    bool cancel, silent;
    uint64_t started, took_ns, total, verified, unreadable, ranges;
    struct extent last, told[TOLD]; /* ranges; last is still growing */
    struct sentence error;          /* of FAILED */
};

/* ---- a read ---- */

static struct read *read_new(struct disk *disk)
{
    struct read *read = calloc(1, sizeof(*read));
    if (!read)
        return NULL;
    if (posix_memalign((void **)&read->buffer, PAGE, REGION_SIZE)) {
        free(read);
        return NULL;
    }
    read->disk = disk_get(disk);
    pthread_mutex_init(&read->mutex, NULL);
    pthread_cond_init(&read->changed, NULL);
    read->released = true;
    return read;
}

static void read_free(struct read *read)
{
    disk_put(read->disk);
    pthread_mutex_destroy(&read->mutex);
    pthread_cond_destroy(&read->changed);
    free(read->buffer);
    free(read);
}

static void read_leave(struct read *read)
{
    if (!read)
        return;
    pthread_mutex_lock(&read->mutex);
    read->left = true;
    bool released = read->released;
    pthread_mutex_unlock(&read->mutex);
    if (released)
        read_free(read);
}

static void answered(struct disk_io *io)
{
    struct read *read = container_of(io, struct read, io);
    pthread_mutex_lock(&read->mutex);
    read->answered = true;
    pthread_cond_signal(&read->changed);
    pthread_mutex_unlock(&read->mutex);
}

static void released(struct disk_io *io)
{
    struct read *read = container_of(io, struct read, io);
    pthread_mutex_lock(&read->mutex);
    read->released = true;
    bool left = read->left;
    pthread_cond_signal(&read->changed);
    pthread_mutex_unlock(&read->mutex);
    if (left)
        read_free(read);
}

static void submit(struct task *task)
{
    struct read *read = container_of(task, struct read, task);
    disk_submit(read->disk, &read->io);
}

/* 0 or the read's -errno; -ETIMEDOUT: it was not answered by the datastore, only by the disk, which gave it up. */
static int read_extent(struct scrub *scrub, struct extent extent)
{
    struct read *read = scrub->read ? scrub->read : read_new(scrub->disk);
    uint64_t began = clock_now(), timeout = disk_datastore(scrub->disk)->timeout_ns;
    scrub->read = read;
    if (!read)
        return -ENOMEM;
    read->answered = read->released = false;
    read->iov = (struct iovec){read->buffer, extent_length(extent)};
    read->io = (struct disk_io){.verb = VERB_READ,
        .flags = IO_DIRECT | IO_COPY,
        .extent = extent,
        .iov = &read->iov,
        .iov_count = 1,
        .answered = answered,
        .released = released};
    read->task.run = submit;
    reactor_post(scrub->reactor, &read->task);
    bool late = false;
    pthread_mutex_lock(&read->mutex);
    while (!read->released && !late) {
        pthread_cond_wait(&read->changed, &read->mutex);
        late = read->answered && read->io.result < 0 && clock_now() - began >= timeout;
    }
    int result = late ? -ETIMEDOUT : read->io.result;
    pthread_mutex_unlock(&read->mutex);
    if (late) {
        scrub->read = NULL;
        read_leave(read);
    }
    return result;
}

/* ---- what was found ---- */

static void title(struct scrub *scrub, char *out, size_t size)
{
    char path[PATH_MAX];
    struct node node;
    if (catalog_path(scrub->services.catalog, scrub->node, path) < 0)
        snprintf(path, sizeof(path), "(inode %" PRIu64 ")", scrub->node);
    bool known = catalog_get(scrub->services.catalog, scrub->node, &node) == 0;
    snprintf(out, size, "verifying disk /%.200s on datastore %s", path,
        known ? catalog_datastore(scrub->services.catalog, node.datastore)->name : "(none)");
}

static int fail(struct scrub *scrub, int error, const char *what)
{
    char name[320];
    title(scrub, name, sizeof(name));
    pthread_mutex_lock(&scrub->mutex);
    refuse(&scrub->error, error, "%s: %s: %s", name, what, error_text(error));
    pthread_mutex_unlock(&scrub->mutex);
    return error;
}

/* The range that has grown so far is whole. */
static void close_range(struct scrub *scrub)
{
    char name[320];
    pthread_mutex_lock(&scrub->mutex);
    struct extent range = scrub->last;
    scrub->last = (struct extent){0, 0};
    pthread_mutex_unlock(&scrub->mutex);
    if (extent_empty(range))
        return;
    title(scrub, name, sizeof(name));
    log_warning("%s: %" PRIu64 " bytes at offset %" PRIu64 " cannot be read", name, extent_length(range), range.start);
}

static void note_unreadable(struct scrub *scrub, struct extent extent)
{
    if (scrub->last.end != extent.start)
        close_range(scrub);
    pthread_mutex_lock(&scrub->mutex);
    bool grows = !extent_empty(scrub->last);
    scrub->last = (struct extent){grows ? scrub->last.start : extent.start, extent.end};
    scrub->unreadable += extent_length(extent);
    scrub->ranges += !grows;
    if (scrub->ranges <= TOLD)
        scrub->told[scrub->ranges - 1] = scrub->last;
    pthread_mutex_unlock(&scrub->mutex);
}

static void note_verified(struct scrub *scrub, struct extent extent)
{
    pthread_mutex_lock(&scrub->mutex);
    scrub->verified += extent_length(extent);
    pthread_mutex_unlock(&scrub->mutex);
}

/* "disk /x on datastore a: 8192 bytes in 2 ranges cannot be read: at 4096 (4096 bytes), …". Under mutex. */
static void tell_ranges(struct scrub *scrub, const char *name, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "%s: %" PRIu64 " bytes in %" PRIu64 " range%s cannot be read:", name,
        scrub->unreadable, scrub->ranges, scrub->ranges == 1 ? "" : "s");
    for (uint64_t i = 0; i < scrub->ranges && i < TOLD && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s offset %" PRIu64 " (%" PRIu64 " bytes)", i ? "," : "",
            scrub->told[i].start, extent_length(scrub->told[i]));
    if (scrub->ranges > TOLD && used < size)
        snprintf(out + used, size - used, " and %" PRIu64 " more, which the log names", scrub->ranges - TOLD);
}

/* ---- its way ---- */

/* True: it is to end. */
static bool rest(struct scrub *scrub, uint64_t delay_ns)
{
    uint64_t until = clock_now() + (delay_ns < REST_MAX ? delay_ns : REST_MAX);
    struct timespec at = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    pthread_mutex_lock(&scrub->mutex);
    for (int error = delay_ns ? 0 : ETIMEDOUT; !scrub->cancel && !error;)
        error = pthread_cond_timedwait(&scrub->changed, &scrub->mutex, &at);
    bool cancel = scrub->cancel;
    pthread_mutex_unlock(&scrub->mutex);
    return cancel;
}

/* One part, and the rest after it. 0 or the read's -errno; -ECANCELED. */
static int take(struct scrub *scrub, struct extent extent)
{
    if (rest(scrub, 0))
        return -ECANCELED;
    uint64_t began = clock_now();
    int error = read_extent(scrub, extent);
    if (disk_in_flight(scrub->disk) > 0 && rest(scrub, REST * (clock_now() - began)))
        return -ECANCELED;
    return error;
}

static bool ends_all(int error)
{
    return error == -ECANCELED || error == -ETIMEDOUT || error == -ENOMEM;
}

static int take_pages(struct scrub *scrub, struct extent region)
{
    for (uint64_t at = region.start; at < region.end; at += PAGE) {
        struct extent page = extent_intersect((struct extent){at, at + PAGE}, region);
        int error = take(scrub, page);
        if (ends_all(error))
            return error;
        if (error < 0)
            note_unreadable(scrub, page);
        else
            note_verified(scrub, page);
    }
    return 0;
}

static int sweep(struct scrub *scrub)
{
    uint64_t size;
    for (uint64_t at = 0; at < (size = disk_size(scrub->disk)); at += REGION_SIZE) {
        struct extent region = {at, at + REGION_SIZE < size ? at + REGION_SIZE : size};
        pthread_mutex_lock(&scrub->mutex);
        scrub->total = size;
        pthread_mutex_unlock(&scrub->mutex);
        int error = take(scrub, region);
        if (error == 0)
            note_verified(scrub, region);
        else if (!ends_all(error))
            error = take_pages(scrub, region);
        if (error == -ETIMEDOUT || error == -ENOMEM)
            return fail(scrub, error, error == -ENOMEM ? "no memory for a read" : "the datastore does not answer");
        if (error < 0)
            return error;
    }
    return 0;
}

static void set_state(struct scrub *scrub, enum scrub_state state)
{
    pthread_mutex_lock(&scrub->mutex);
    scrub->state = state;
    if (state == SCRUB_VERIFYING)
        scrub->started = clock_now();
    else if (scrub->started)
        scrub->took_ns = clock_now() - scrub->started;
    pthread_mutex_unlock(&scrub->mutex);
}

static int run(struct scrub *scrub)
{
    if (rest(scrub, 0))
        return -ECANCELED;
    set_state(scrub, SCRUB_VERIFYING);
    int error = scrub->services.open_disk(scrub->services.argument, scrub->node, &scrub->disk);
    if (error < 0)
        return fail(scrub, error, "the disk cannot be opened");
    error = sweep(scrub);
    close_range(scrub);
    read_leave(scrub->read);
    disk_put(scrub->disk);
    return error;
}

static void *scrub_thread(void *argument)
{
    struct scrub *scrub = argument;
    struct job_result result;
    pthread_setname_np(pthread_self(), "scrub");
    int error = run(scrub);
    set_state(scrub, error == 0 ? SCRUB_VERIFIED : error == -ECANCELED ? SCRUB_CANCELLED : SCRUB_FAILED);
    scrub_describe(scrub, &result);
    pthread_mutex_lock(&scrub->mutex);
    bool silent = scrub->silent;
    pthread_mutex_unlock(&scrub->mutex);
    if (!silent)
        jobs_store_result(scrub->services.catalog, scrub->node, &result);
    if (result.error[0])
        log_warning("%s", result.error);
    log_info("disk %" PRIu64 ": %s", scrub->node, result.line);
    scrub->ended(scrub->argument, scrub);
    return NULL;
}

int scrub_new(struct scrub **out, const struct job_services *services, uint64_t node,
    void (*ended)(void *argument, struct scrub *scrub), void *argument)
{
    struct scrub *scrub = calloc(1, sizeof(*scrub));
    if (!scrub)
        return -ENOMEM;
    scrub->services = *services;
    scrub->node = node;
    scrub->reactor = services->reactors[node % services->reactor_count];
    scrub->ended = ended;
    scrub->argument = argument;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&scrub->mutex, NULL);
    pthread_cond_init(&scrub->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    *out = scrub;
    return 0;
}

int scrub_start(struct scrub *scrub)
{
    int error = -pthread_create(&scrub->thread, NULL, scrub_thread, scrub);
    scrub->running = error == 0;
    return error;
}

void scrub_join(struct scrub *scrub)
{
    if (scrub->running)
        pthread_join(scrub->thread, NULL);
    scrub->running = false;
}

void scrub_free(struct scrub *scrub)
{
    if (!scrub)
        return;
    scrub_join(scrub);
    pthread_cond_destroy(&scrub->changed);
    pthread_mutex_destroy(&scrub->mutex);
    free(scrub);
}

uint64_t scrub_node(const struct scrub *scrub)
{
    return scrub->node;
}

enum scrub_state scrub_state(struct scrub *scrub)
{
    pthread_mutex_lock(&scrub->mutex);
    enum scrub_state state = scrub->state;
    pthread_mutex_unlock(&scrub->mutex);
    return state;
}

void scrub_cancel(struct scrub *scrub, bool silent)
{
    pthread_mutex_lock(&scrub->mutex);
    scrub->cancel = true;
    scrub->silent = scrub->silent || silent;
    pthread_cond_broadcast(&scrub->changed);
    pthread_mutex_unlock(&scrub->mutex);
}

void scrub_describe(struct scrub *scrub, struct job_result *out)
{
    static const char *const names[] = {"queued", "verifying", "verified", "cancelled", "failed"};
    char name[320];
    title(scrub, name, sizeof(name));
    pthread_mutex_lock(&scrub->mutex);
    bool ended = scrub->state > SCRUB_VERIFYING;
    uint64_t took = ended ? scrub->took_ns : scrub->started ? clock_now() - scrub->started : 0;
    uint64_t done = scrub->verified + scrub->unreadable;
    double percent = scrub->total                     ? 100.0 * (double)done / (double)scrub->total
                     : scrub->state == SCRUB_VERIFIED ? 100.0
                                                      : 0.0;
    snprintf(out->line, sizeof(out->line),
        "state=%s percent=%.1f verified=%" PRIu64 " unreadable=%" PRIu64 " ranges=%" PRIu64 " total=%" PRIu64
        " elapsed_ms=%" PRIu64,
        names[scrub->state], percent < 100.0 ? percent : 100.0, scrub->verified, scrub->unreadable, scrub->ranges,
        scrub->total, (uint64_t)(took / NS_PER_MS));
    out->error[0] = '\0';
    if (scrub->error.text[0])
        snprintf(out->error, sizeof(out->error), "%s", scrub->error.text);
    else if (scrub->ranges)
        tell_ranges(scrub, name, out->error, sizeof(out->error));
    pthread_mutex_unlock(&scrub->mutex);
}
