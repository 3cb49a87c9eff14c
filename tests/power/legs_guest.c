/* The guest of legs-power: see legs-power.c. */
#include "legs.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "call.h"
#include "random.h"

void broken(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("run of seed %llu: ", (unsigned long long)stand.seed);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\nagain: legs-power --runs 1 --verbose --seed %llu\n", (unsigned long long)stand.seed);
    fflush(stdout);
    _exit(1);
}

void tell(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    if (stand.verbose)
        vprintf(format, arguments);
    va_end(arguments);
}

uint32_t pick(uint32_t count)
{
    return random_pick(&stand.random, count);
}

void must(int error)
{
    if (error)
        broken("%s", error_text(error));
}

/* ---- sectors ---- */

static uint64_t offset_of(unsigned slot)
{
    uint64_t in = slot % SLOTS;
    uint64_t at = in < SLOTS / 2 ? in * POWER_SECTOR : REGION_SIZE - (SLOTS - in) * POWER_SECTOR;
    return slot / SLOTS * REGION_SIZE + at;
}

static void note_version(struct sector *sector, uint64_t number, uint64_t value)
{
    unsigned keep = 0;
    for (unsigned i = 0; i < sector->count; i++)
        if (sector->versions[i].number >= sector->durable)
            sector->versions[keep++] = sector->versions[i];
    sector->count = keep;
    if (sector->count == HISTORY)
        broken("the history of a sector is too short");
    sector->versions[sector->count++] = (struct version){number, value};
}

/* What the source has is what counts from now on. */
static void check_sector(unsigned slot, const uint8_t *bytes)
{
    struct sector *sector = &stand.sectors[slot];
    uint64_t value;
    memcpy(&value, bytes, sizeof(value));
    for (unsigned i = sector->count; i-- > 0;) {
        struct version version = sector->versions[i];
        if (version.value != value || version.number < sector->durable)
            continue;
        sector->versions[0] = version;
        sector->count = 1;
        sector->answered = sector->durable = version.number;
        return;
    }
    broken("sector at %llu: %llu was found, number %llu was durable", (unsigned long long)offset_of(slot),
        (unsigned long long)value, (unsigned long long)sector->durable);
}

void check_source(void)
{
    static uint8_t bytes[POWER_SECTOR];
    for (unsigned slot = 0; slot < SECTORS; slot++) {
        uint64_t at = offset_of(slot);
        must(call_verb(stand.reactor, stand.source_image, VERB_READ, 0, at, at + POWER_SECTOR, bytes));
        check_sector(slot, bytes);
    }
}

void check_legs(void)
{
    static uint8_t one[REGION_SIZE], other[REGION_SIZE];
    check_source();
    for (uint64_t at = 0; at < SIZE; at += REGION_SIZE) {
        must(call_verb(stand.reactor, stand.source_image, VERB_READ, 0, at, at + REGION_SIZE, one));
        must(call_verb(stand.reactor, stand.target_image, VERB_READ, 0, at, at + REGION_SIZE, other));
        for (uint64_t i = 0; i < REGION_SIZE; i += 8)
            if (memcmp(one + i, other + i, 8) != 0)
                broken("the legs differ at %llu: source %llu, target %llu", (unsigned long long)(at + i),
                    *(unsigned long long *)(void *)(one + i), *(unsigned long long *)(void *)(other + i));
    }
}

/* ---- the guest ---- */

static void answered(struct disk_io *io)
{
    atomic_store(&container_of(io, struct asked, io)->answered, true);
}

static void released(struct disk_io *io)
{
    atomic_store(&container_of(io, struct asked, io)->released, true);
}

static void submit_here(void *argument)
{
    disk_submit(stand.disk, &((struct asked *)argument)->io);
}

/* Requests that have ended are taken note of. */
static void collect(void)
{
    for (unsigned i = 0; i < ASKED; i++) {
        struct asked *asked = &stand.asked[i];
        if (!asked->used || !atomic_load(&asked->released))
            continue;
        bool well = asked->io.result == 0;
        for (unsigned slot = asked->first; well && asked->count && slot < asked->first + asked->count; slot++)
            if (stand.sectors[slot].answered < asked->number)
                stand.sectors[slot].answered = asked->number;
        for (unsigned slot = 0; well && !asked->count && slot < SECTORS; slot++)
            if (stand.sectors[slot].durable < asked->before[slot])
                stand.sectors[slot].durable = asked->before[slot];
        if (!asked->own)
            asked->used = false;
    }
}

struct asked *ask(enum verb verb, unsigned first, unsigned count)
{
    struct asked *asked = NULL;
    collect();
    for (unsigned i = 0; i < ASKED && !asked; i++)
        asked = stand.asked[i].used ? NULL : &stand.asked[i];
    if (!asked)
        return NULL;
    asked->used = true;
    asked->own = false;
    atomic_store(&asked->answered, false);
    atomic_store(&asked->released, false);
    asked->number = ++stand.number;
    asked->first = first;
    asked->count = count;
    asked->io = (struct disk_io){.verb = verb, .answered = answered, .released = released};
    for (unsigned slot = 0; slot < SECTORS; slot++)
        asked->before[slot] = stand.sectors[slot].answered;
    if (!count)
        return asked;
    uint64_t length = count * (uint64_t)POWER_SECTOR;
    asked->io.extent = (struct extent){offset_of(first), offset_of(first) + length};
    asked->iov = (struct iovec){asked->memory, length};
    asked->io.iov = &asked->iov;
    asked->io.iov_count = verb == VERB_WRITE;
    for (uint64_t i = 0; i < length; i += 8)
        memcpy(asked->memory + i, &asked->number, 8);
    for (unsigned slot = first; slot < first + count; slot++)
        note_version(&stand.sectors[slot], asked->number, verb == VERB_WRITE ? asked->number : 0);
    stand.writes++;
    return asked;
}

void send(struct asked *asked)
{
    if (asked)
        reactor_call(stand.reactor, submit_here, asked);
}

/* Sectors that follow one another: they may lie at the border of two regions. */
void guest_changes(void)
{
    unsigned first = pick(SECTORS), rest = SLOTS - (first + SLOTS / 2) % SLOTS, count = 1 + pick(6);
    if (count > rest)
        count = rest;
    if (first + count > SECTORS)
        count = SECTORS - first;
    send(ask(pick(4) ? VERB_WRITE : VERB_ZERO, first, count));
}

static void nothing(void *argument)
{
}

void turn(void)
{
    for (unsigned i = 0; i < 3; i++)
        reactor_call(stand.reactor, nothing, NULL);
    collect();
}

static void let_go_here(void *argument)
{
    power_let_go(argument);
}

void let_go(struct power_image *power)
{
    reactor_call(stand.reactor, let_go_here, power);
}

static bool any_in_flight(void)
{
    collect();
    for (unsigned i = 0; i < ASKED; i++)
        if (stand.asked[i].used && !atomic_load(&stand.asked[i].released))
            return true;
    return false;
}

/* Until nothing is under way but the copier. */
void drain(void)
{
    uint64_t until = clock_now() + PATIENCE;
    power_hold_changes(stand.source, 0);
    power_hold_changes(stand.target, 0);
    do {
        let_go(stand.source);
        let_go(stand.target);
        turn();
        if (clock_now() > until)
            broken("a request does not end");
    } while (any_in_flight());
}

void fill(void)
{
    static uint8_t bytes[POWER_SECTOR];
    for (unsigned slot = 0; slot < SECTORS; slot++) {
        uint64_t value = pick(3) ? 1 + pick(1000) : 0;
        if (slot / SLOTS % 2 && pick(4)) /* regions that are nearly empty */
            value = 0;
        for (unsigned i = 0; i < POWER_SECTOR; i += 8)
            memcpy(bytes + i, &value, 8);
        uint64_t at = offset_of(slot);
        if (value)
            must(call_verb(stand.reactor, stand.source_image, VERB_WRITE, 0, at, at + POWER_SECTOR, bytes));
        stand.sectors[slot] = (struct sector){.versions = {{0, value}}, .count = 1};
    }
    must(call_verb(stand.reactor, stand.source_image, VERB_FLUSH, 0, 0, 0, NULL));
}
