/* The programs that hold the disks: a writer and a reader for each. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crash.h"

static void note(struct world *world, const struct guest *guest, const char *what, int error)
{
    if (error == 0 || atomic_load(&world->tolerate))
        return;
    if (atomic_fetch_add(&world->errors, 1) < 10)
        fail(world, "disk %u: a %s ended in an error: %s", guest->disk, what, strerror(-error));
}

static uint64_t some_extent(struct guest *guest, uint64_t size, uint64_t *length)
{
    uint64_t offset = roll(&guest->random, 3) ? roll(&guest->random, (unsigned)size) : roll(&guest->random, 1 << 20);
    *length = 512 * (1 + roll(&guest->random, roll(&guest->random, 4) ? 16 : LARGEST / 512));
    offset = offset / 512 * 512;
    return offset + *length > size ? size - *length : offset;
}

static void one_write(struct guest *guest)
{
    struct world *world = guest->world;
    struct disk *disk = &world->disk[guest->disk];
    struct history_write write = {0};
    write.offset = some_extent(guest, world->size, &write.length);
    bool punch = roll(&guest->random, 40) == 0;
    history_write_begin(disk->history, &write, punch ? HISTORY_ZERO : HISTORY_DATA, guest->disk);
    history_fill(disk->history, &write, guest->buffer);
    int error = 0;
    if (punch)
        error = fallocate(
                    disk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)write.offset, (off_t)write.length)
                    ? -errno
                    : 0;
    else if (pwrite(disk->fd, guest->buffer, write.length, (off_t)write.offset) != (ssize_t)write.length)
        error = errno ? -errno : -EIO;
    history_write_end(disk->history, &write, error);
    if (!error && roll(&guest->random, 16) == 0) {
        uint64_t began = history_flush_begin(disk->history);
        error = fdatasync(disk->fd) < 0 ? -errno : 0;
        if (!error)
            history_flush_end(disk->history, began);
    }
    note(world, guest, punch ? "punch" : "write or its flush", error);
    atomic_fetch_add(&world->writes, 1);
}

/* Twice when a block was caught half way: then with no write in flight. */
static void prove(struct guest *guest, struct history_read *read)
{
    struct world *world = guest->world;
    struct disk *disk = &world->disk[guest->disk];
    for (bool torn = true, again = false; torn; again = true) {
        if (again)
            history_quiet_begin(disk->history);
        history_read_begin(disk->history, read);
        ssize_t got = pread(disk->fd, guest->buffer, read->length, (off_t)read->offset);
        int error = got == (ssize_t)read->length ? 0 : got < 0 ? -errno : -EIO;
        unsigned wrong = history_read_end(disk->history, read, error ? NULL : guest->buffer, &torn);
        if (wrong && atomic_fetch_add(&world->wrong, wrong) < 10)
            fail(world, "disk %u: %u wrong blocks in a read at %llu", guest->disk, wrong,
                (unsigned long long)read->offset);
        if (again)
            history_quiet_end(disk->history);
        note(world, guest, "read", error);
        torn &= !error;
    }
    atomic_fetch_add(&world->reads, 1);
}

static void *guest_thread(void *argument)
{
    struct guest *guest = argument;
    struct world *world = guest->world;
    struct history_read read = {0};
    while (!atomic_load(&world->stop)) {
        if (atomic_load(&world->halt)) {
            atomic_fetch_add(&world->parked, 1);
            while (atomic_load(&world->halt))
                usleep(500);
            atomic_fetch_sub(&world->parked, 1);
        } else if (guest->writer) {
            one_write(guest);
        } else {
            read.offset = some_extent(guest, world->size, &read.length);
            prove(guest, &read);
        }
        usleep(world->think_us);
    }
    history_read_free(&read);
    return NULL;
}

void halt(struct world *world)
{
    atomic_store(&world->halt, true);
    while (atomic_load(&world->parked) < atomic_load(&world->guests))
        usleep(500);
}

/* All of a disk, from the main thread. */
void prove_all(struct world *world, unsigned disk, uint8_t *buffer)
{
    struct guest reader = {.world = world, .disk = disk, .buffer = buffer};
    struct history_read read = {.length = 1 << 20};
    for (read.offset = 0; read.offset < world->size; read.offset += read.length)
        prove(&reader, &read);
    history_read_free(&read);
}

static int read_block(void *opaque, uint64_t offset, void *block)
{
    return -EIO; /* never asked for: every write is of whole blocks */
}

void make_disks(struct world *world)
{
    for (unsigned i = 0; i < world->disks; i++) {
        struct disk *disk = &world->disk[i];
        snprintf(disk->path, sizeof(disk->path), "%s/disk%u", world->mount, i);
        disk->fd = open(disk->path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0644);
        if (disk->fd < 0 || ftruncate(disk->fd, (off_t)world->size) < 0)
            give_up(disk->path);
        disk->history = history_new(0, world->size, world->seed * 100 + i, false);
        history_set_reader(disk->history, read_block, NULL);
        history_record(disk->history);
        history_can_lose(disk->history);
    }
}

void start_guests(struct world *world, struct guest *guests)
{
    for (unsigned i = 0; i < world->disks * 2; i++) {
        guests[i] = (struct guest){
            .world = world, .disk = i / 2, .writer = i % 2, .random = world->seed * 1000 + i + 1};
        guests[i].buffer = aligned_alloc(4096, LARGEST);
        atomic_fetch_add(&world->guests, 1);
        if (!guests[i].buffer || pthread_create(&guests[i].thread, NULL, guest_thread, &guests[i]) != 0)
            give_up("a thread");
    }
}

void end_guests(struct world *world, struct guest *guests)
{
    atomic_store(&world->stop, true);
    atomic_store(&world->halt, false);
    for (unsigned i = 0; i < world->disks * 2; i++) {
        pthread_join(guests[i].thread, NULL);
        free(guests[i].buffer);
    }
}
