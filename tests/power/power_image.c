#include "power_image.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "backends/fence.h"

#define PAGE 4096u

struct entry {
    uint64_t sector;
    bool zero;
    uint8_t bytes[POWER_SECTOR];
};

struct power_image {
    struct image image;
    pthread_mutex_t mutex;
    uint64_t size, room_bytes;
    uint8_t **now, **durable; /* pages; NULL: zeroes */
    struct entry *log;        /* since the last flush */
    size_t logged, room;
    uint64_t changes, lose_at, random;
    unsigned share, hold_share;
    bool lost, holding;
    struct list held; /* io.link */
};

struct __attribute__((may_alias)) power_request {
    struct task task;
};

static uint64_t next_random(struct power_image *power)
{
    power->random += 0x9e3779b97f4a7c15ull;
    uint64_t value = power->random;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return value ^ value >> 31;
}

static void put_sector(uint8_t **pages, uint64_t sector, const uint8_t *bytes)
{
    uint8_t **page = &pages[sector * POWER_SECTOR / PAGE];
    if (!*page && !bytes)
        return;
    if (!*page)
        *page = calloc(1, PAGE);
    uint8_t *at = *page + sector * POWER_SECTOR % PAGE;
    if (bytes)
        memcpy(at, bytes, POWER_SECTOR);
    else
        memset(at, 0, POWER_SECTOR);
}

static void log_sector(struct power_image *power, uint64_t sector, const uint8_t *bytes)
{
    if (power->logged == power->room) {
        power->room = power->room ? power->room * 2 : 256;
        power->log = realloc(power->log, power->room * sizeof(*power->log));
    }
    struct entry *entry = &power->log[power->logged++];
    entry->sector = sector;
    entry->zero = !bytes;
    if (bytes)
        memcpy(entry->bytes, bytes, POWER_SECTOR);
    put_sector(power->now, sector, bytes);
}

static void apply(struct power_image *power, unsigned share)
{
    for (size_t i = 0; i < power->logged; i++)
        if (share >= 256 || next_random(power) % 256 < share)
            put_sector(power->durable, power->log[i].sector, power->log[i].zero ? NULL : power->log[i].bytes);
    power->logged = 0;
}

static void lose(struct power_image *power)
{
    if (power->lost)
        return;
    apply(power, power->share);
    power->lost = true;
}

static void transfer(struct power_image *power, const struct io *io)
{
    uint64_t at = io->extent.start;
    uint8_t sector[POWER_SECTOR];
    for (int i = 0; i < io->iov_count; i++) {
        uint8_t *memory = io->iov[i].iov_base;
        for (size_t left = io->iov[i].iov_len, part; left > 0; left -= part, memory += part, at += part) {
            size_t in = at % POWER_SECTOR;
            part = left < POWER_SECTOR - in ? left : POWER_SECTOR - in;
            if (io->verb == VERB_READ) {
                const uint8_t *page = power->now[at / PAGE];
                if (page)
                    memcpy(memory, page + at % PAGE, part);
                else
                    memset(memory, 0, part);
                continue;
            }
            memcpy(sector + in, memory, part);
            if (in + part == POWER_SECTOR)
                log_sector(power, at / POWER_SECTOR, sector);
        }
    }
}

static int execute(struct power_image *power, const struct io *io)
{
    bool change = io->verb != VERB_READ && io->verb != VERB_MAP;
    if (power->lost)
        return -EIO;
    if (io->verb != VERB_FLUSH && io->extent.end > power->size)
        return io->verb == VERB_READ ? -EIO : -ENOSPC;
    power->changes += change;
    bool last = change && power->changes == power->lose_at;
    switch (io->verb) {
    case VERB_READ:
    case VERB_WRITE:
        transfer(power, io);
        break;
    case VERB_ZERO:
        for (uint64_t at = io->extent.start; at < io->extent.end; at += POWER_SECTOR)
            if (power->now[at / PAGE])
                log_sector(power, at / POWER_SECTOR, NULL);
        break;
    case VERB_FLUSH:
        if (!last) /* or the power went before it ended */
            apply(power, 256);
        break;
    case VERB_ALLOCATE:
    case VERB_RESIZE:
    case VERB_MAP:
        return -EOPNOTSUPP;
    }
    if (last)
        lose(power);
    return last ? -EIO : 0;
}

static void run(struct task *task)
{
    struct io *io = container_of((uint64_t(*)[12])(void *)task, struct io, scratch);
    struct power_image *power = container_of(io->image, struct power_image, image);
    pthread_mutex_lock(&power->mutex);
    bool change = io->verb != VERB_READ && io->verb != VERB_MAP;
    bool hold = change ? next_random(power) % 256 < power->hold_share : power->holding && io->verb == VERB_READ;
    if (hold)
        list_append(&power->held, &io->link);
    int result = hold ? 0 : execute(power, io);
    pthread_mutex_unlock(&power->mutex);
    if (!hold)
        io_finish(io, result);
}

static void submit(struct image *image, struct io *io)
{
    struct power_request *request = (struct power_request *)io->scratch;
    request->task.run = run;
    reactor_post(io->reactor, &request->task);
}

static void fence(struct image *image, void (*fenced)(void *argument), void *argument)
{
    fenced(argument);
}

static void close_image(struct image *image)
{
}

static const struct image_ops ops = {.submit = submit, .fence = fence, .close = close_image};

struct image *power_open(struct power_image *power)
{
    image_init(&power->image, &ops, power->image.datastore, power->size);
    power->image.limits = (struct image_limits){
        .block = POWER_SECTOR, .max_transfer = 1u << 20, .can_zero = true, .can_punch = true};
    return &power->image;
}

int power_new(struct power_image **out, struct datastore *datastore, uint64_t size)
{
    struct power_image *power = calloc(1, sizeof(*power));
    if (!power)
        return -ENOMEM;
    power->size = power->room_bytes = size;
    power->image.datastore = datastore;
    power->now = calloc(size / PAGE, sizeof(*power->now));
    power->durable = calloc(size / PAGE, sizeof(*power->durable));
    pthread_mutex_init(&power->mutex, NULL);
    list_init(&power->held);
    *out = power;
    return power->now && power->durable ? 0 : -ENOMEM;
}

static void copy_pages(uint8_t **to, uint8_t *const *from, uint64_t size)
{
    for (uint64_t i = 0; i < size / PAGE; i++) {
        if (!from[i]) {
            free(to[i]);
            to[i] = NULL;
            continue;
        }
        if (!to[i])
            to[i] = malloc(PAGE);
        memcpy(to[i], from[i], PAGE);
    }
}

void power_free(struct power_image *power)
{
    for (uint64_t i = 0; i < power->room_bytes / PAGE; i++) {
        free(power->now[i]);
        free(power->durable[i]);
    }
    free(power->now);
    free(power->durable);
    free(power->log);
    pthread_mutex_destroy(&power->mutex);
    free(power);
}

void power_copy(struct power_image *power, const struct power_image *from)
{
    copy_pages(power->now, from->now, power->room_bytes);
    copy_pages(power->durable, from->now, power->room_bytes);
    power->logged = 0;
    power->lost = false;
    power->lose_at = 0;
}

void power_arm(struct power_image *power, uint64_t count, unsigned share, uint64_t seed)
{
    pthread_mutex_lock(&power->mutex);
    power->changes = 0;
    power->lose_at = count;
    power->share = share;
    power->random = seed;
    pthread_mutex_unlock(&power->mutex);
}

void power_lose(struct power_image *power)
{
    pthread_mutex_lock(&power->mutex);
    lose(power);
    pthread_mutex_unlock(&power->mutex);
}

void power_stop(struct power_image *power)
{
    pthread_mutex_lock(&power->mutex);
    power->share = POWER_STOP;
    lose(power);
    pthread_mutex_unlock(&power->mutex);
}

bool power_is_lost(struct power_image *power)
{
    pthread_mutex_lock(&power->mutex);
    bool lost = power->lost;
    pthread_mutex_unlock(&power->mutex);
    return lost;
}

void power_return(struct power_image *power)
{
    pthread_mutex_lock(&power->mutex);
    copy_pages(power->now, power->durable, power->room_bytes);
    power->lost = false;
    power->lose_at = 0;
    pthread_mutex_unlock(&power->mutex);
}

uint64_t power_changes(struct power_image *power)
{
    pthread_mutex_lock(&power->mutex);
    uint64_t changes = power->changes;
    pthread_mutex_unlock(&power->mutex);
    return changes;
}

void power_damage(struct power_image *power, uint64_t at, uint64_t length)
{
    uint8_t bytes[POWER_SECTOR];
    for (uint64_t sector = at / POWER_SECTOR; sector * POWER_SECTOR < at + length; sector++) {
        const uint8_t *page = power->now[sector * POWER_SECTOR / PAGE];
        for (unsigned i = 0; i < POWER_SECTOR; i++)
            bytes[i] = (page ? page[sector * POWER_SECTOR % PAGE + i] : 0) ^ 0x55;
        put_sector(power->now, sector, bytes);
        put_sector(power->durable, sector, bytes);
    }
}

void power_shrink(struct power_image *power, uint64_t size)
{
    power->size = size;
}

void power_hold_changes(struct power_image *power, unsigned share)
{
    pthread_mutex_lock(&power->mutex);
    power->hold_share = share;
    pthread_mutex_unlock(&power->mutex);
}

bool power_let_go(struct power_image *power)
{
    pthread_mutex_lock(&power->mutex);
    struct list *link = list_pop(&power->held);
    struct io *io = link ? container_of(link, struct io, link) : NULL;
    int result = io ? execute(power, io) : 0;
    pthread_mutex_unlock(&power->mutex);
    if (io)
        io_finish(io, result);
    return io != NULL;
}

void power_hold_reads(struct power_image *power, bool hold)
{
    struct list *link;
    pthread_mutex_lock(&power->mutex);
    power->holding = hold;
    while (!hold && (link = list_pop(&power->held))) {
        struct io *io = container_of(link, struct io, link);
        io_finish(io, execute(power, io));
    }
    pthread_mutex_unlock(&power->mutex);
}
