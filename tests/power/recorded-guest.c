/* recorded-guest: what a guest may believe of its disks at each record of recorder's log.
 *
 * `run` holds disks open and changes them, two threads a disk, each in stripes of its own so that the changes of one sector
 * follow one another. Each change has a number, which stands in all of its sectors, and is noted with the records that the log
 * had when it was sent; a flush also with those that the log had when it was answered. Sectors are read back at random meanwhile.
 *
 * `judge` says of a disk as it is after a power loss at the first COUNT records whether each sector holds one of what it may
 * hold: what was there when the last flush was sent that was answered within these records, or what was written later and was
 * sent within them. One sector, one number: a mixture, and what belongs to another sector, is wrong. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SECTOR = 512,
    STRIPE = 64 * 1024,
    PART = 1 << 20,
    TURN = 50,
    THREADS = 2,
    LARGEST = 32 * 1024,
    DISKS = 8,
    FLUSH_EACH = 6,
    WORDS = SECTOR / 8
};

/* One line of the history. */
struct change {
    unsigned disk;
    char kind; /* W: write, Z: zeroes, F: flush */
    uint64_t offset, length, number;
    uint64_t began, ended;     /* in the order of all that was done */
    uint64_t before, answered; /* records in the log when it was sent, when it was answered */
};

struct disk {
    unsigned number;
    int fd;
    uint64_t size;
    uint64_t *holds; /* of each sector */
};

struct thread {
    struct disk *disk;
    unsigned number;
    uint64_t random;
    pthread_t id;
    uint8_t *memory;
};

static volatile const uint64_t *records;
static FILE *history;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static atomic_ullong order, numbers, changes, flushes, reads;
static atomic_bool stop;
static unsigned think_us;

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "recorded-guest: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static void *room(size_t length)
{
    void *memory = aligned_alloc(4096, (length + 4095) / 4096 * 4096);
    if (!memory)
        fail("no memory");
    return memset(memory, 0, length);
}

/* ---- run ---- */

static uint64_t pick(struct thread *thread, uint64_t below)
{
    uint64_t x = thread->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (x ^ (x >> 31)) % below;
}

static struct change begin(struct disk *disk, char kind, uint64_t offset, uint64_t length)
{
    struct change change = {disk->number, kind, offset, length, .before = *records};
    change.number = kind == 'W' ? ++numbers : 0;
    change.began = ++order;
    return change;
}

static void end(struct change *change)
{
    change->ended = ++order;
    change->answered = *records;
    pthread_mutex_lock(&mutex);
    fprintf(history, "%u %c %llu %llu %llu %llu %llu %llu %llu\n", change->disk, change->kind,
        (unsigned long long)change->offset, (unsigned long long)change->length, (unsigned long long)change->number,
        (unsigned long long)change->began, (unsigned long long)change->ended, (unsigned long long)change->before,
        (unsigned long long)change->answered);
    pthread_mutex_unlock(&mutex);
    atomic_fetch_add(change->kind == 'F' ? &flushes : &changes, 1);
}

static void change(struct thread *thread, char kind, uint64_t offset, uint64_t length)
{
    struct disk *disk = thread->disk;
    uint64_t *words = (uint64_t *)(void *)thread->memory;
    struct change done = begin(disk, kind, offset, length);
    for (uint64_t i = 0; i < length / 8; i++)
        words[i] = done.number;
    if (kind == 'W'
            ? pwrite(disk->fd, words, length, (off_t)offset) != (ssize_t)length
            : fallocate(disk->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) != 0)
        fail("disk %u: change of %llu bytes at %llu: %s", disk->number, (unsigned long long)length,
            (unsigned long long)offset, strerror(errno));
    end(&done);
    for (uint64_t sector = offset / SECTOR; sector < (offset + length) / SECTOR; sector++)
        disk->holds[sector] = done.number;
}

static void flush(struct disk *disk)
{
    struct change done = begin(disk, 'F', 0, 0);
    if (fdatasync(disk->fd) != 0)
        fail("disk %u: flush: %s", disk->number, strerror(errno));
    end(&done);
}

static void read_back(struct thread *thread, uint64_t offset, uint64_t length)
{
    struct disk *disk = thread->disk;
    uint64_t *words = (uint64_t *)(void *)thread->memory;
    if (pread(disk->fd, words, length, (off_t)offset) != (ssize_t)length)
        fail("disk %u: read at %llu: %s", disk->number, (unsigned long long)offset, strerror(errno));
    for (uint64_t i = 0; i < length / 8; i++)
        if (words[i] != disk->holds[offset / SECTOR + i / WORDS])
            fail("disk %u: the guest read %llu at %llu, not %llu", disk->number, (unsigned long long)words[i],
                (unsigned long long)(offset + i * 8), (unsigned long long)disk->holds[offset / SECTOR + i / WORDS]);
    atomic_fetch_add(&reads, 1);
}

/* A range in one of this thread's stripes: mostly in the part of the disk whose turn it is, so that the others rest. */
static uint64_t choose(struct thread *thread, uint64_t *length)
{
    uint64_t parts = thread->disk->size / PART, stripes = PART / STRIPE / THREADS;
    uint64_t part = pick(thread, 32) ? changes / TURN % parts : pick(thread, parts);
    *length = pick(thread, 4) ? (1 + pick(thread, LARGEST / 4096)) * 4096 : (1 + pick(thread, 7)) * SECTOR;
    uint64_t align = *length % 4096 ? SECTOR : 4096;
    uint64_t at = pick(thread, (STRIPE - *length) / align + 1) * align;
    return part * PART + (pick(thread, stripes) * THREADS + thread->number) * STRIPE + at;
}

static void *work(void *opaque)
{
    struct thread *thread = opaque;
    while (!stop) {
        uint64_t length, offset = choose(thread, &length);
        switch (pick(thread, 8)) {
        case 0:
            read_back(thread, offset, length);
            break;
        case 1:
            change(thread, length % 4096 ? 'W' : 'Z', offset, length);
            break;
        default:
            change(thread, 'W', offset, length);
        }
        if (pick(thread, FLUSH_EACH) == 0)
            flush(thread->disk);
        usleep((useconds_t)(think_us / 2 + pick(thread, think_us + 1)));
    }
    return NULL;
}

static void open_disk(struct disk *disk, unsigned number, const char *path)
{
    struct stat status;
    disk->number = number;
    disk->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
    if (disk->fd < 0 || fstat(disk->fd, &status))
        fail("%s: %s", path, strerror(errno));
    disk->size = (uint64_t)status.st_size;
    disk->holds = room(disk->size / SECTOR * 8);
}

/* Three of four stripes, durably. */
static void fill(struct thread *thread)
{
    for (uint64_t at = 0; at < thread->disk->size; at += STRIPE)
        if (pick(thread, 4))
            for (uint64_t part = at; part < at + STRIPE; part += LARGEST)
                change(thread, 'W', part, LARGEST);
    flush(thread->disk);
}

static int run(const char *log, const char *path, uint64_t seed, char **paths, unsigned disk_count)
{
    static struct disk disks[DISKS];
    static struct thread threads[DISKS * THREADS];
    static char name[4096];
    sigset_t end_signals;
    int got;
    snprintf(name, sizeof name, "%s.count", log);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    records = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    history = fopen(path, "we");
    if (records == MAP_FAILED || !history)
        fail("%s or %s: %s", name, path, strerror(errno));
    sigemptyset(&end_signals);
    sigaddset(&end_signals, SIGTERM);
    sigaddset(&end_signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &end_signals, NULL);
    for (unsigned i = 0; i < disk_count * THREADS; i++) {
        struct thread *thread = &threads[i];
        if (i % THREADS == 0)
            open_disk(&disks[i / THREADS], i / THREADS, paths[i / THREADS]);
        *thread = (struct thread){.disk = &disks[i / THREADS], .number = i % THREADS, .random = seed * 1000003 + i};
        thread->memory = room(STRIPE);
        if (i % THREADS == 0)
            fill(thread);
    }
    printf("START %llu\n", (unsigned long long)*records);
    fflush(stdout);
    for (unsigned i = 0; i < disk_count * THREADS; i++)
        if (pthread_create(&threads[i].id, NULL, work, &threads[i]))
            fail("no thread");
    sigwait(&end_signals, &got);
    stop = true;
    for (unsigned i = 0; i < disk_count * THREADS; i++)
        pthread_join(threads[i].id, NULL);
    if (fclose(history))
        fail("%s: %s", path, strerror(errno));
    printf("END %llu: %llu changes, %llu flushes, %llu reads\n", (unsigned long long)*records, changes, flushes, reads);
    return 0;
}

/* ---- judge ---- */

/* What a sector may hold, of those that a line of the history is about. */
struct sector {
    uint64_t *may; /* numbers, the durable one first */
    unsigned count;
};

static bool next(FILE *lines, struct change *change)
{
    unsigned long long n[7];
    int got = fscanf(lines, "%u %c %llu %llu %llu %llu %llu %llu %llu\n", &change->disk, &change->kind, &n[0], &n[1],
        &n[2], &n[3], &n[4], &n[5], &n[6]);
    if (got == EOF)
        return false;
    if (got != 9)
        fail("the history is damaged");
    *change = (struct change){change->disk, change->kind, n[0], n[1], n[2], n[3], n[4], n[5], n[6]};
    return true;
}

/* The begin of the last flush that was answered within the records: what ended before it is durable. */
static uint64_t durable(FILE *lines, unsigned disk, uint64_t count)
{
    uint64_t begun = 0;
    struct change change;
    rewind(lines);
    while (next(lines, &change))
        if (change.disk == disk && change.kind == 'F' && change.answered <= count && change.began > begun)
            begun = change.began;
    return begun;
}

static void allow(struct sector *sector, uint64_t number, bool only)
{
    if (only)
        sector->count = 0;
    sector->may = realloc(sector->may, (sector->count + 1) * sizeof *sector->may);
    if (!sector->may)
        fail("no memory");
    sector->may[sector->count++] = number;
}

/* The changes of one sector stand in the history in their order. */
static struct sector *model(FILE *lines, unsigned disk, uint64_t count, uint64_t size)
{
    struct sector *sectors = room(size / SECTOR * sizeof *sectors);
    uint64_t begun = durable(lines, disk, count);
    struct change change;
    for (uint64_t i = 0; i < size / SECTOR; i++)
        allow(&sectors[i], 0, true);
    rewind(lines);
    while (next(lines, &change)) {
        if (change.disk != disk || change.kind == 'F' || change.before >= count)
            continue;
        if (change.offset + change.length > size)
            fail("disk %u has %llu bytes only", disk, (unsigned long long)size);
        for (uint64_t i = change.offset / SECTOR; i < (change.offset + change.length) / SECTOR; i++)
            allow(&sectors[i], change.number, change.ended < begun);
    }
    return sectors;
}

static int judge(const char *path, uint64_t count, unsigned disk, const char *image)
{
    struct stat status;
    uint64_t words[WORDS], wrong = 0, several = 0;
    FILE *lines = fopen(path, "re");
    int fd = open(image, O_RDONLY | O_CLOEXEC);
    if (!lines || fd < 0 || fstat(fd, &status))
        fail("%s or %s: %s", path, image, strerror(errno));
    uint64_t size = (uint64_t)status.st_size;
    struct sector *sectors = model(lines, disk, count, size);
    for (uint64_t i = 0; i < size / SECTOR; i++) {
        struct sector *sector = &sectors[i];
        if (pread(fd, words, SECTOR, (off_t)(i * SECTOR)) != SECTOR)
            fail("%s: %s", image, strerror(errno));
        bool mixed = false, known = false;
        for (unsigned word = 1; word < WORDS; word++)
            mixed |= words[word] != words[0];
        for (unsigned may = 0; may < sector->count; may++)
            known |= words[0] == sector->may[may];
        several += sector->count > 1;
        if ((mixed || !known) && wrong++ < 8)
            printf("disk %u at %llu holds %llu%s; durable was %llu, and %u were sent later\n", disk,
                (unsigned long long)i * SECTOR, (unsigned long long)words[0], mixed ? " and others" : "",
                (unsigned long long)sector->may[0], sector->count - 1);
    }
    printf("disk %u after %llu records: %llu sectors, %llu of them with a choice, %llu wrong\n", disk,
        (unsigned long long)count, (unsigned long long)size / SECTOR, (unsigned long long)several,
        (unsigned long long)wrong);
    return wrong != 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "run") == 0 && argc > 6 && argc - 6 <= DISKS) {
        think_us = (unsigned)atoi(argv[5]);
        return run(argv[2], argv[3], strtoull(argv[4], NULL, 10), argv + 6, (unsigned)(argc - 6));
    }
    if (strcmp(verb, "judge") == 0 && argc == 6)
        return judge(argv[2], strtoull(argv[3], NULL, 10), (unsigned)atoi(argv[4]), argv[5]);
    fprintf(stderr, "recorded-guest run LOG HISTORY SEED MICROSECONDS DISK…\n"
                    "recorded-guest judge HISTORY COUNT NUMBER IMAGE\n");
    return 2;
}
