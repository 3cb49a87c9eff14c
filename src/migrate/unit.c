/* One region's way: see copier.c. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/datastore.h"
#include "migrate/copier_inside.h"

#define PATIENCE 8 /* that part of the source's timeout a region is kept locked while it fails */

static void unit_next(struct unit *unit);
static void unit_write(struct unit *unit);
static void unit_read_all(struct unit *unit);

static void unit_unlock(struct unit *unit)
{
    if (unit->locked)
        region_lock_release(disk_lock(unit->copier->options.disk), &unit->lock);
    unit->locked = false;
}

static void unit_end(struct unit *unit)
{
    struct copier *copier = unit->copier;
    unit_unlock(unit);
    lost_free(&unit->lost);
    unit->state = UNIT_FREE;
    copier->busy--;
    if (!copier->stopped)
        copier_fill(copier);
    copier_release(copier);
}

static void unit_fail(struct unit *unit, uint64_t offset, int error)
{
    struct copier *copier = unit->copier;
    copier->paused = true;
    copier->options.failed(copier->options.job, offset, error);
    unit_end(unit);
}

static void unit_tell_lost(struct unit *unit)
{
    struct copier *copier = unit->copier;
    struct extent run = {0, 0};
    while (lost_run(&unit->lost, run.end, &run))
        log_warning(
            "disk %llu: %llu bytes at offset %llu cannot be read from datastore %s, the source: %s; they are given "
            "up, the target has zeroes there",
            (unsigned long long)disk_id(copier->options.disk),
            (unsigned long long)extent_length(extent_intersect(run, unit->extent)), (unsigned long long)run.start,
            copier->source->datastore->name, error_text(unit->bad_error));
}

static void unit_routed(struct unit *unit)
{
    struct copier *copier = unit->copier;
    struct mirror *mirror = copier->options.mirror;
    if (!copier->stopped && copier->options.rescue && mirror_set_lost(mirror, unit->extent, &unit->lost) < 0) {
        unit_fail(unit, unit->extent.start, -ENOMEM);
        return;
    }
    if (!copier->stopped) {
        unit_tell_lost(unit);
        mirror_set_routed(mirror, unit->extent);
        if (unit->wrote && unit->lost.count == 0)
            copier->sound = unit->extent.start;
    }
    unit_end(unit);
}

static void unit_io_done(struct io *io)
{
    struct unit *unit = container_of(io, struct unit, io);
    struct copier *copier = unit->copier;
    if ((io->verb == VERB_READ || io->verb == VERB_WRITE) && copier->gentle && extent_length(io->extent) <= PIECE)
        copier->piece_ns += (clock_now() - unit->since) / 8 - copier->piece_ns / 8;
    unit_next(unit);
}

static void unit_send(
    struct unit *unit, enum unit_state state, struct image *image, enum verb verb, struct extent extent)
{
    unit->state = state;
    unit->since = clock_now();
    unit->iov = (struct iovec){unit->buffer + (extent.start - unit->extent.start), extent_length(extent)};
    if (state == UNIT_PROBING)
        unit->iov.iov_base = unit->copier->probe;
    unit->io = (struct io){.verb = verb,
        .flags = IO_DIRECT | IO_COPY | (unit->copier->options.dense ? 0 : IO_MAY_UNMAP),
        .extent = extent,
        .done = unit_io_done};
    if (verb == VERB_READ || verb == VERB_WRITE) {
        unit->io.iov = &unit->iov;
        unit->io.iov_count = 1;
    }
    image_submit(image, &unit->io);
}

/* Pages that are known to be bad are passed over. */
static bool unit_skip_suspects(struct unit *unit)
{
    struct mirror *mirror = unit->copier->options.mirror;
    uint64_t length = extent_length(unit->extent);
    for (; unit->position < length; unit->position += PAGE) {
        struct extent page = {unit->extent.start + unit->position, unit->extent.start + unit->position + PAGE};
        page = extent_intersect(page, unit->extent);
        if (!mirror_suspects(mirror, page))
            return true;
        memset(unit->buffer + unit->position, 0, extent_length(page));
        if (lost_add(&unit->lost, page) < 0)
            return true;
    }
    unit->position = length;
    return false;
}

/* A large request stands before the guest's for longer than a latency may allow. */
static struct extent unit_piece(const struct unit *unit, struct extent extent)
{
    if (unit->copier->gentle && extent_length(extent) > PIECE)
        extent.end = extent.start + PIECE;
    return extent;
}

static void unit_read(struct unit *unit)
{
    struct extent extent = unit->extent;
    if (unit->narrow && unit->copier->options.rescue && !unit_skip_suspects(unit)) {
        unit_read_all(unit);
        return;
    }
    if (unit->narrow) {
        extent.start += unit->position;
        extent.end = extent.start + PAGE < extent.end ? extent.start + PAGE : extent.end;
    } else {
        extent = unit_piece(unit, (struct extent){extent.start + unit->position, extent.end});
    }
    unit_send(unit, UNIT_READING, unit->copier->source, VERB_READ, extent);
}

void unit_retry(struct timer *timer)
{
    struct unit *unit = container_of(timer, struct unit, timer);
    if (unit->copier->stopped)
        unit_end(unit);
    else
        unit_read(unit);
}

static void add_probe(struct unit *unit, uint64_t offset)
{
    unit->probes[unit->probe_count++] = (struct extent){offset, offset + PAGE};
}

/* Pages of which this copier has read data; where it has none, of which another one has. */
static void unit_choose_probes(struct unit *unit)
{
    struct copier *copier = unit->copier;
    struct mirror *mirror = copier->options.mirror;
    uint64_t regions = atomic_load(&copier->source->size) / REGION_SIZE, stride = regions / PROBE_PLACES + 1;
    unit->probe_count = 0;
    if (unit->sound != NOWHERE)
        add_probe(unit, unit->sound);
    if (copier->sound != NOWHERE && copier->sound / REGION_SIZE < regions)
        add_probe(unit, copier->sound);
    for (uint64_t r = 0; r < regions && unit->probe_count == 0; r += stride)
        if (mirror_holds(mirror, (struct extent){r * REGION_SIZE, r * REGION_SIZE + PAGE}))
            add_probe(unit, r * REGION_SIZE);
}

/* Is there anything left that can be read? */
static void unit_probe(struct unit *unit)
{
    if (unit->probe_count == 0) {
        unit_fail(unit, unit->extent.start, -EHOSTDOWN);
        return;
    }
    unit_send(unit, UNIT_PROBING, unit->copier->source, VERB_READ, unit->probes[--unit->probe_count]);
}

static void unit_was_probed(struct unit *unit)
{
    if (unit->io.result < 0) {
        unit_probe(unit);
        return;
    }
    unit->position = 0;
    unit_write(unit);
}

static void unit_next_page(struct unit *unit)
{
    unit->position += extent_length(unit->io.extent);
    if (unit->position < extent_length(unit->extent))
        unit_read(unit);
    else
        unit_read_all(unit);
}

/* Page by page it came to the region's end. */
static void unit_read_all(struct unit *unit)
{
    if (unit->lost.count > 0) {
        unit_choose_probes(unit);
        unit_probe(unit);
    } else {
        unit->position = 0;
        unit_write(unit);
    }
}

static bool unit_gives_up(const struct unit *unit)
{
    return unit->copier->options.rescue && lost_by(unit->io.result) &&
           !atomic_load(&unit->copier->source->datastore->away);
}

/* The page is zeroes from now on. */
static void unit_lose_page(struct unit *unit)
{
    memset(unit->buffer + (unit->io.extent.start - unit->extent.start), 0, extent_length(unit->io.extent));
    unit->bad_error = unit->io.result;
    if (lost_add(&unit->lost, unit->io.extent) < 0 || mirror_suspect(unit->copier->options.mirror, unit->io.extent) < 0)
        unit_fail(unit, unit->io.extent.start, -ENOMEM);
    else if (clock_now() - unit->locked_at > unit->copier->source->datastore->timeout_ns / PATIENCE)
        unit_end(unit); /* a guest's write may wait for the region: the rest in the next pass */
    else
        unit_next_page(unit);
}

static void unit_put_aside(struct unit *unit)
{
    struct copier *copier = unit->copier;
    uint64_t region = unit->extent.start / REGION_SIZE;
    int error = unit->io.result;
    if (bits_grow(&copier->aside, region + 1) < 0) {
        unit_fail(unit, unit->extent.start, -ENOMEM);
        return;
    }
    bits_set(&copier->aside, region);
    log_warning(
        "disk %llu: a read of %llu bytes at offset %llu on datastore %s, the source, failed: %s; it is tried again "
        "when all else has been copied",
        (unsigned long long)disk_id(copier->options.disk), (unsigned long long)extent_length(unit->io.extent),
        (unsigned long long)unit->io.extent.start, copier->source->datastore->name, error_text(error));
    unit_end(unit);
}

static void unit_read_failed(struct unit *unit)
{
    struct copier *copier = unit->copier;
    if (unit->narrow && unit_gives_up(unit)) {
        unit_lose_page(unit);
    } else if (unit->narrow) {
        unit_fail(unit, unit->io.extent.start, unit->io.result);
    } else if (!copier->last && unit_gives_up(unit)) {
        unit_put_aside(unit);
    } else if (++unit->tries < READ_TRIES) {
        unit->state = UNIT_RETRYING;
        timer_set(copier->options.reactor, &unit->timer, RETRY_DELAY);
    } else {
        unit->narrow = true;
        unit->position = 0;
        unit_read(unit);
    }
}

static void unit_touched(struct task *task)
{
    unit_next(container_of(task, struct unit, touched_task));
}

static void unit_logged(struct log_request *request)
{
    struct unit *unit = container_of(request, struct unit, touch);
    reactor_post(unit->copier->options.reactor, &unit->touched_task);
}

/* Law 4: what is about to be written on the target is durably known to be touched. False: it waits. */
static bool unit_touch(struct unit *unit)
{
    struct marks *marks = unit->copier->options.marks;
    if (!marks || unit->noted)
        return true;
    unit->noted = true;
    unit->state = UNIT_TOUCHING;
    unit->touched_task.run = unit_touched;
    unit->touch = (struct log_request){.extent = unit->extent, .logged = unit_logged};
    return marks_touch(marks, &unit->touch);
}

static void unit_write_data(struct unit *unit, struct extent extent)
{
    extent = unit_piece(unit, extent);
    unit->position = extent.end - unit->extent.start;
    atomic_fetch_add(&unit->copier->copied, extent_length(extent));
    unit_send(unit, UNIT_WRITING, mirror_target(unit->copier->options.mirror), VERB_WRITE, extent);
}

static void unit_write(struct unit *unit)
{
    struct copier *copier = unit->copier;
    struct mirror *mirror = copier->options.mirror;
    uint64_t length = extent_length(unit->extent);
    while (unit->position < length) {
        bool zero = false;
        uint64_t end = zeroes_run(unit->buffer, unit->position, length, &zero);
        struct extent extent = {unit->extent.start + unit->position, unit->extent.start + end};
        uint64_t bytes = end - unit->position;
        bool dense = copier->options.dense;
        if ((!zero || dense) && !unit_touch(unit))
            return;
        if (!zero) {
            bool allocate = copier->options.allocate && !mirror_touched(mirror, extent);
            mirror_touch(mirror, extent);
            unit->wrote = true;
            if (allocate)
                unit_send(unit, UNIT_WRITING, mirror_target(mirror), VERB_ALLOCATE, extent);
            else
                unit_write_data(unit, extent);
            return;
        }
        unit->position = end;
        atomic_fetch_add(&copier->skipped, bytes);
        if (dense)
            mirror_touch(mirror, extent);
        if (mirror_touched(mirror, extent)) {
            unit_send(unit, UNIT_WRITING, mirror_target(mirror), VERB_ZERO, extent);
            return;
        }
    }
    unit_routed(unit);
}

static void unit_was_read(struct unit *unit)
{
    if (unit->io.result < 0) {
        unit_read_failed(unit);
        return;
    }
    if (unit->narrow) {
        bool zero = false;
        uint64_t position = unit->io.extent.start - unit->extent.start;
        if (extent_length(unit->io.extent) == PAGE)
            zeroes_run(unit->buffer + position, 0, PAGE, &zero);
        if (extent_length(unit->io.extent) == PAGE && !zero)
            unit->sound = unit->io.extent.start;
        unit_next_page(unit);
        return;
    }
    unit->position = unit->io.extent.end - unit->extent.start;
    if (unit->io.extent.end < unit->extent.end) {
        unit_read(unit);
        return;
    }
    unit->position = 0;
    unit_write(unit);
}

/* Under the lock: the run of hole as it is now, cut to whole regions. What is left is found by the next pass. */
static void unit_was_mapped(struct unit *unit)
{
    struct copier *copier = unit->copier;
    struct extent hole = {unit->extent.start, unit->io.extent.end};
    if (hole.end < unit->extent.end)
        hole.end -= hole.end % REGION_SIZE;
    if (unit->io.result < 0 || mirror_touched(copier->options.mirror, hole)) {
        unit->hole = false; /* the long way, for its first region */
        hole.end = unit->extent.start + REGION_SIZE;
        unit->extent = extent_intersect(unit->extent, (struct extent){unit->extent.start, hole.end});
        unit_read(unit);
        return;
    }
    if (unit->io.map_data || extent_empty(hole)) {
        copier->known = copier->ahead = (struct run){{0, 0}, false};
        unit_end(unit);
        return;
    }
    atomic_fetch_add(&copier->skipped, extent_length(hole));
    unit->extent = hole;
    unit_routed(unit);
}

/* A step of a unit has ended. */
static void unit_next(struct unit *unit)
{
    struct copier *copier = unit->copier;
    if (copier->stopped) {
        unit_end(unit);
        return;
    }
    switch (unit->state) {
    case UNIT_FREE:
    case UNIT_RETRYING:
        abort();
    case UNIT_LOCKING:
        unit->locked = true;
        unit->locked_at = clock_now();
        /* Writes whose lock we have got by the target's drop may still be on their way to it. */
        if (mirror_phase(copier->options.mirror) != MIRROR_ATTACHED) {
            unit_end(unit);
            return;
        }
        unit->narrow = copier->options.rescue && copier->last && mirror_suspects(copier->options.mirror, unit->extent);
        if (unit->hole)
            unit_send(unit, UNIT_MAPPING, copier->source, VERB_MAP, unit->extent);
        else
            unit_read(unit);
        return;
    case UNIT_MAPPING:
        unit_was_mapped(unit);
        return;
    case UNIT_READING:
        unit_was_read(unit);
        return;
    case UNIT_PROBING:
        unit_was_probed(unit);
        return;
    case UNIT_TOUCHING:
        unit_write(unit);
        return;
    case UNIT_WRITING:
        if (unit->io.result < 0) {
            mirror_drop(copier->options.mirror, unit->io.extent, unit->io.verb, unit->io.result);
            unit_end(unit);
        } else if (unit->io.verb == VERB_ALLOCATE) {
            unit_write_data(unit, unit->io.extent);
        } else {
            unit_write(unit);
        }
        return;
    }
}

static void unit_granted(struct lock_request *request)
{
    struct unit *unit = container_of(request, struct unit, lock);
    unit->locked = true;
    unit_next(unit);
}

void unit_start(struct unit *unit, struct extent extent, bool hole)
{
    struct copier *copier = unit->copier;
    copier->references++;
    copier->busy++;
    unit->state = UNIT_LOCKING;
    unit->extent = extent;
    unit->hole = hole;
    unit->tries = copier->last ? READ_TRIES - 1 : 0;
    unit->sound = NOWHERE;
    unit->bad_error = -EIO;
    unit->wrote = false;
    unit->narrow = unit->noted = false;
    unit->position = 0;
    unit->lock = (struct lock_request){.mode = LOCK_MODE_COPY, .extent = extent, .granted = unit_granted};
    if (region_lock_acquire(disk_lock(copier->options.disk), &unit->lock))
        unit_next(unit);
}

void unit_stop(struct unit *unit)
{
    struct copier *copier = unit->copier;
    if (unit->state == UNIT_LOCKING && region_lock_cancel(disk_lock(copier->options.disk), &unit->lock)) {
        unit_end(unit);
    } else if (unit->state == UNIT_RETRYING) {
        timer_cancel(&unit->timer);
        unit_end(unit);
    } else {
        unit_unlock(unit);
    }
}
