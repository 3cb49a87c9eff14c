/* Linearizability of registers, exactly, in n log n.
 *
 * A history is linearizable if each operation can be thought to happen at one moment between its begin and its end, so
 * that every read returns what the last write before it wrote. It is a property of each place alone. That is more than
 * "the last acknowledged write or one beside it": two reads, one after the other, must not go back from a new value to
 * an old one, nor may two readers see two writes in different order.
 *
 * Searching for an order takes exponential time in general, but here each value is written once, so a read names its
 * write. Take a write with all reads of its value: they stand side by side in any good order, with no other write in
 * between. Let f be the first end and s the last begin among them.
 *
 *   f < s   the value was certainly there from f to s: no other such span may overlap it, and no other write (with its
 *           reads) may be forced to lie inside of it;
 *   f >= s  all of them overlap: they may happen at any one moment between s and f.
 *
 * The history is linearizable if and only if no read ends before its write begins, no two spans of the first kind
 * overlap, and none of the second kind lies within one of the first. (test_linear compares this with a search through
 * all orders.)
 *
 * A value that was written twice (zeroes) names no write: its reads are left out, its writes are not, so nothing is
 * called wrong that is right. When there is no room any more, every other place is given up, again and again, so that
 * what is left has been watched from the first operation to the last. A write that failed and was never read is left out; one that was read ends never. */
#include "linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct operation {
    uint64_t begin, end, value;
};

struct place {
    uint64_t initial;
    struct operation *writes, *reads;
    uint32_t write_count, write_room, read_count, read_room;
    bool full; /* what came later was not recorded */
};

struct linear {
    uint64_t count, step; /* one place of `step` is still recorded */
    size_t room;
    struct place places[];
};

/* A write with the reads of its value. */
struct cluster {
    uint64_t value, begin, end; /* of the write */
    uint64_t first_end, last_begin;
    bool read;
};

struct linear *linear_new(uint64_t places, uint64_t (*initial)(void *opaque, uint64_t place), void *opaque, size_t room)
{
    struct linear *linear = calloc(1, sizeof *linear + places * sizeof *linear->places);
    if (!linear)
        return NULL;
    linear->count = places;
    linear->step = 1;
    linear->room = room;
    for (uint64_t i = 0; i < places; i++) {
        linear->places[i].initial = initial(opaque, i);
        linear->places[i].full = linear->places[i].initial == LINEAR_UNKNOWN;
    }
    return linear;
}

void linear_free(struct linear *linear)
{
    for (uint64_t i = 0; linear && i < linear->count; i++) {
        free(linear->places[i].writes);
        free(linear->places[i].reads);
    }
    free(linear);
}

static void give_up(struct linear *linear, struct place *place)
{
    linear->room += place->write_room + place->read_room;
    free(place->writes);
    free(place->reads);
    *place = (struct place){.full = true};
}

/* Room for `more`; false: the last place needs more than there is, or there is no memory. */
static bool make_room(struct linear *linear, size_t more)
{
    while (linear->room < more && linear->step < linear->count) {
        linear->step *= 2;
        for (uint64_t i = 0; i < linear->count; i++)
            if (i % linear->step != 0 && !linear->places[i].full)
                give_up(linear, &linear->places[i]);
    }
    return linear->room >= more;
}

void linear_forget(struct linear *linear, uint64_t place)
{
    give_up(linear, &linear->places[place]);
}

struct list {
    struct operation **operations;
    uint32_t *count, *room;
};

static void append(struct linear *linear, struct place *place, struct list list, struct operation operation)
{
    if (place->full)
        return;
    if (*list.count == *list.room) {
        uint32_t more = *list.room ? *list.room : 16;
        struct operation *larger = NULL;
        if (make_room(linear, more) && !place->full)
            larger = realloc(*list.operations, (*list.room + more) * sizeof *larger);
        if (!larger) {
            place->full = true;
            return;
        }
        linear->room -= more;
        *list.operations = larger;
        *list.room += more;
    }
    (*list.operations)[(*list.count)++] = operation;
}

void linear_write(struct linear *linear, uint64_t place, uint64_t begin, uint64_t end, uint64_t value)
{
    struct place *p = &linear->places[place];
    append(
        linear, p, (struct list){&p->writes, &p->write_count, &p->write_room}, (struct operation){begin, end, value});
}

void linear_read(struct linear *linear, uint64_t place, uint64_t begin, uint64_t end, uint64_t value)
{
    struct place *p = &linear->places[place];
    append(linear, p, (struct list){&p->reads, &p->read_count, &p->read_room}, (struct operation){begin, end, value});
}

/* --- the check of one place --- */

static int compare(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int by_value(const void *a, const void *b)
{
    return compare(((const struct cluster *)a)->value, ((const struct cluster *)b)->value);
}

static int by_first_end(const void *a, const void *b)
{
    return compare(((const struct cluster *)a)->first_end, ((const struct cluster *)b)->first_end);
}

static void wrong(struct linear_report *report, uint64_t place, const char *what, const struct cluster *one,
    const struct cluster *other)
{
    if (report->violations++ == 0)
        snprintf(report->first, sizeof report->first,
            "place %llu: %s: value %llx, written from %llu to %llu (%llu, %llu), value %llx, from %llu to %llu "
            "(%llu, %llu)",
            (unsigned long long)place, what, (unsigned long long)one->value, (unsigned long long)one->begin,
            (unsigned long long)one->end, (unsigned long long)one->first_end, (unsigned long long)one->last_begin,
            (unsigned long long)other->value, (unsigned long long)other->begin, (unsigned long long)other->end,
            (unsigned long long)other->first_end, (unsigned long long)other->last_begin);
}

/* The write of this value if it is the only one; *several: there are more. */
static struct cluster *find(struct cluster *clusters, size_t count, uint64_t value, bool *several)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (clusters[middle].value < value)
            low = middle + 1;
        else
            high = middle;
    }
    *several = low + 1 < count && clusters[low + 1].value == value;
    return low < count && clusters[low].value == value ? &clusters[low] : NULL;
}

static void add_reads(
    struct linear_report *report, uint64_t index, const struct place *place, struct cluster *clusters, size_t count)
{
    for (uint32_t i = 0; i < place->read_count; i++) {
        const struct operation *read = &place->reads[i];
        bool several = false;
        struct cluster *cluster = find(clusters, count, read->value, &several);
        struct cluster seen = {read->value, read->begin, read->end, read->end, read->begin, true};
        if (several || (!cluster && place->full)) {
            report->skipped++;
        } else if (!cluster) {
            wrong(report, index, "read, never written", &seen, &seen);
        } else {
            report->operations++;
            cluster->read = true;
            if (read->end < cluster->begin)
                wrong(report, index, "read before it was written", cluster, &seen);
            if (read->end < cluster->first_end)
                cluster->first_end = read->end;
            if (read->begin > cluster->last_begin)
                cluster->last_begin = read->begin;
        }
    }
}

static void judge(struct linear_report *report, uint64_t index, struct cluster *clusters, size_t count)
{
    size_t spans = 0;
    for (size_t i = 0; i < count; i++) { /* spans of the first kind to the front; what never was, out */
        if (clusters[i].end == LINEAR_NEVER && !clusters[i].read)
            clusters[i--] = clusters[--count];
    }
    for (size_t i = 0; i < count; i++) {
        if (clusters[i].first_end < clusters[i].last_begin) {
            struct cluster swap = clusters[spans];
            clusters[spans++] = clusters[i];
            clusters[i] = swap;
        }
    }
    qsort(clusters, spans, sizeof *clusters, by_first_end);
    for (size_t i = 1; i < spans; i++)
        if (clusters[i].first_end < clusters[i - 1].last_begin)
            wrong(report, index, "two values at one time", &clusters[i - 1], &clusters[i]);
    for (size_t i = spans; i < count; i++) {
        size_t low = 0, high = spans; /* the last span that begins before this one's earliest moment */
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (clusters[middle].first_end < clusters[i].last_begin)
                low = middle + 1;
            else
                high = middle;
        }
        if (low > 0 && clusters[i].first_end < clusters[low - 1].last_begin)
            wrong(report, index, "the older value came back over the newer", &clusters[low - 1], &clusters[i]);
    }
}

static bool check_place(struct linear_report *report, uint64_t index, const struct place *place)
{
    size_t count = 0;
    struct cluster *clusters = calloc(place->write_count + 1, sizeof *clusters);
    if (!clusters)
        return false;
    clusters[count++] = (struct cluster){.value = place->initial};
    for (uint32_t i = 0; i < place->write_count; i++) {
        const struct operation *write = &place->writes[i];
        clusters[count++] = (struct cluster){write->value, write->begin, write->end, write->end, write->begin, false};
    }
    report->operations += place->write_count;
    report->full |= place->full;
    qsort(clusters, count, sizeof *clusters, by_value);
    add_reads(report, index, place, clusters, count);
    judge(report, index, clusters, count);
    free(clusters);
    return true;
}

struct linear_report linear_check(const struct linear *linear)
{
    struct linear_report report = {0};
    for (uint64_t i = 0; i < linear->count; i++) {
        if (linear->places[i].write_count + linear->places[i].read_count == 0)
            continue;
        if (check_place(&report, i, &linear->places[i]))
            report.places++;
        else
            report.full = true;
    }
    return report;
}
