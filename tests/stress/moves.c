/* moves: modelled guests on one disk while jobs move it to and fro, pause, are cancelled, throttled and fail at random.
 * The whole of svmfs but FUSE: catalog, control surface, jobs, mirror, disk, on memory datastores wrapped so that two
 * overlapping requests in flight on one image that both change bytes are counted as a bug of the layer above. A plain
 * main, for ThreadSanitizer. Usage: moves [SECONDS [SEED]].
 *
 * moves-memory is the same with alloc.c: memory is refused at random while it runs. Then a request may be answered ENOMEM
 * and a job may fail, but what is read must be right all the same. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backends.h"
#include "base/clock.h"
#include "base/log.h"
#include "catalog/names.h"
#include "control/control.h"
#include "io/disk.h"
#include "tests/stress/alloc.h"
#include "tests/tools/history.h"

#define DISK_SIZE (24u << 20)
#define LARGEST   (1u << 20)
#define GUESTS    10
#define REACTORS  2

struct world {
    struct datastore *datastores[2];
    char faults[2][256];
    struct catalog *catalog;
    struct control *control;
    struct reactor *reactors[REACTORS];
    struct disk *disk;
    struct history *history;
    uint64_t node, until, seed;
    atomic_uint wrong, errors, done;
};

struct guest {
    struct world *world;
    unsigned number, random;
    pthread_t thread;
    uint8_t *buffer;
};

/* ---- a request on the disk, waited for ---- */

struct waited {
    struct disk_io io;
    struct disk *disk;
    struct task task;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool released;
};

static void answered(struct disk_io *io)
{
}

static void released(struct disk_io *io)
{
    struct waited *waited = container_of(io, struct waited, io);
    pthread_mutex_lock(&waited->mutex);
    waited->released = true;
    pthread_cond_signal(&waited->changed);
    pthread_mutex_unlock(&waited->mutex);
}

static void submit(struct task *task)
{
    struct waited *waited = container_of(task, struct waited, task);
    disk_submit(waited->disk, &waited->io);
}

static int disk_call(
    struct world *world, unsigned reactor, enum verb verb, unsigned flags, struct extent extent, void *buffer)
{
    struct iovec iov = {buffer, extent_length(extent)};
    struct waited waited = {.disk = world->disk,
        .task.run = submit,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER};
    waited.io = (struct disk_io){
        .verb = verb, .flags = flags, .extent = extent, .answered = answered, .released = released};
    if (verb == VERB_READ || verb == VERB_WRITE) {
        waited.io.iov = &iov;
        waited.io.iov_count = 1;
    }
    reactor_post(world->reactors[reactor % REACTORS], &waited.task);
    pthread_mutex_lock(&waited.mutex);
    while (!waited.released)
        pthread_cond_wait(&waited.changed, &waited.mutex);
    pthread_mutex_unlock(&waited.mutex);
    return waited.io.result;
}

static int read_block(void *opaque, uint64_t offset, void *block)
{
    return disk_call(opaque, 0, VERB_READ, 0, (struct extent){offset, offset + BLOCK}, block);
}

/* ---- guests ---- */

static unsigned roll(struct guest *guest, unsigned sides)
{
    return (unsigned)rand_r(&guest->random) % sides;
}

static struct extent some_extent(struct guest *guest)
{
    uint64_t align = roll(guest, 3) ? 4096 : roll(guest, 2) ? 512 : 1;
    uint64_t length = roll(guest, 8) ? 1 + roll(guest, 16384) : 1 + roll(guest, LARGEST);
    uint64_t start = roll(guest, 4) ? roll(guest, DISK_SIZE) : roll(guest, 1u << 20); /* a hot first MiB */
    start = start / align * align;
    length = (length + align - 1) / align * align;
    if (length > LARGEST)
        length = LARGEST;
    if (start + length > DISK_SIZE)
        start = DISK_SIZE - length;
    return (struct extent){start, start + length};
}

static void guest_write(struct guest *guest)
{
    struct world *world = guest->world;
    struct extent e = some_extent(guest);
    bool zero = roll(guest, 10) == 0;
    struct history_write write = {.offset = e.start, .length = extent_length(e)};
    int error = history_write_begin(world->history, &write, zero ? HISTORY_ZERO : HISTORY_DATA, guest->number);
    if (error == 0) {
        history_fill(world->history, &write, guest->buffer);
        unsigned flags = (roll(guest, 2) ? IO_DIRECT : 0) | (roll(guest, 2) ? IO_MAY_UNMAP : 0);
        error = disk_call(world, roll(guest, REACTORS), zero ? VERB_ZERO : VERB_WRITE, flags, e, guest->buffer);
        if (error < 0)
            atomic_fetch_add(&world->errors, 1);
    }
    history_write_end(world->history, &write, error);
}

static void guest_read(struct guest *guest, struct history_read *read)
{
    struct world *world = guest->world;
    struct extent e = extent_round_out(some_extent(guest), BLOCK);
    if (extent_length(e) > LARGEST)
        e.end = e.start + LARGEST;
    for (bool torn = true, again = false; torn; again = true) {
        if (again)
            history_quiet_begin(world->history);
        read->offset = e.start;
        read->length = extent_length(e);
        history_read_begin(world->history, read);
        int error = disk_call(world, roll(guest, REACTORS), VERB_READ, IO_DIRECT, e, guest->buffer);
        if (error < 0)
            atomic_fetch_add(&world->errors, 1);
        torn = false;
        atomic_fetch_add(
            &world->wrong, history_read_end(world->history, read, error < 0 ? NULL : guest->buffer, &torn));
        if (again)
            history_quiet_end(world->history);
    }
}

static void *guest_thread(void *argument)
{
    struct guest *guest = argument;
    struct world *world = guest->world;
    struct history_read read = {0};
    while (clock_now() < world->until) {
        unsigned what = roll(guest, 20);
        if (what < 12)
            guest_write(guest);
        else if (what < 19)
            guest_read(guest, &read);
        else if (disk_call(world, guest->number, VERB_FLUSH, 0, (struct extent){0, 0}, NULL) < 0)
            atomic_fetch_add(&world->errors, 1);
        atomic_fetch_add(&world->done, 1);
    }
    history_read_free(&read);
    return NULL;
}

/* ---- the operator ---- */

static void set(struct world *world, const char *name, const char *value)
{
    char xattr[64];
    snprintf(xattr, sizeof(xattr), "user.svmfs.%s", name);
    control_set(world->control, world->node, xattr, value, strlen(value), NULL);
}

static void get(struct world *world, const char *name, char *out, size_t size)
{
    char xattr[64];
    snprintf(xattr, sizeof(xattr), "user.svmfs.%s", name);
    ssize_t length = control_get(world->control, world->node, xattr, out, size - 1);
    out[length < 0 ? 0 : length] = '\0';
}

static void write_rules(struct world *world, unsigned index, const char *rules)
{
    char next[300];
    snprintf(next, sizeof(next), "%s.next", world->faults[index]);
    FILE *file = fopen(next, "w");
    fprintf(file, "any check\n%s", rules);
    fclose(file);
    rename(next, world->faults[index]);
}

struct tally {
    unsigned started, moved, cancelled, failed, undone;
    unsigned excused; /* moved before the target's one fault came: it was the truth by then */
};

/* The old disk is kept: it is undone, released, or its time comes. True: undone. */
static bool end_of_kept(struct guest *operator)
{
    char before[64], after[64], line[512];
    static const char *const verbs[] = {"undo", "undo", "release", "nothing"};
    get(operator->world, "datastore", before, sizeof(before));
    usleep(1000 * roll(operator, 200));
    set(operator->world, "control", verbs[roll(operator, 4)]);
    for (;;) {
        get(operator->world, "progress", line, sizeof(line));
        bool ended = strncmp(line, "state=done", 10) == 0 || strncmp(line, "state=cancelled", 15) == 0 ||
                     strncmp(line, "state=failed", 12) == 0;
        if (ended && !strstr(line, " undo="))
            break;
        usleep(5000);
    }
    get(operator->world, "datastore", after, sizeof(after));
    return strcmp(before, after) != 0;
}

/* One job, steered at random until it has ended. */
static void one_job(struct guest *operator, struct tally * tally)
{
    struct world *world = operator->world;
    char where[64], command[128], line[512] = "";
    get(world, "datastore", where, sizeof(where));
    unsigned target = strcmp(where, "a") == 0;
    bool faulty = roll(operator, 4) == 0;
    if (faulty) {
        static const char *const rules[] = {"write fail count=1 after=%u\n", "write enospc count=1 after=%u\n",
            "zero fail count=1 after=%u\n", "write delay ms=2 after=%u\n", "flush fail count=1 after=%u\n"};
        char rule[128];
        snprintf(rule, sizeof(rule), rules[roll(operator, 5)], roll(operator, 40));
        write_rules(world, target, rule);
    }
    if (roll(operator, 4) == 0)
        set(world, "control", "verify"); /* the move ends it */
    bool keeps = roll(operator, 3) == 0;
    snprintf(command, sizeof(command), "%s%s%s%s%s", target ? "b" : "a", roll(operator, 3) ? "" : ",switchover=manual",
        roll(operator, 3) ? "" : ",rate=60M", roll(operator, 2) ? "" : ",verify", keeps ? ",keep=1s" : "");
    set(world, "migrate", command);
    tally->started++;
    for (;;) {
        usleep(1000 * (1 + roll(operator, 30)));
        get(world, "progress", line, sizeof(line));
        if (strncmp(line, "state=done", 10) == 0 || strncmp(line, "state=cancelled", 15) == 0 ||
            strncmp(line, "state=failed", 12) == 0)
            break;
        static const char *const verbs[] = {
            "pause", "resume", "resume", "resume", "switchover", "switchover", "switchover"};
        unsigned verb = roll(operator, 60);
        if (verb == 0 || (clock_now() > world->until && tally->moved > 0))
            set(world, "control", "cancel");
        else
            set(world, "control", verbs[verb % 7]);
    }
    if (strstr(line, "differences=") && !strstr(line, "differences=0 ")) {
        fprintf(stderr, "moves: the legs differed: %s\n", line);
        atomic_fetch_add(&world->wrong, 1);
    }
    if (keeps && strncmp(line, "state=done", 10) == 0)
        tally->undone += end_of_kept(operator);
    tally->moved += strncmp(line, "state=done", 10) == 0;
    tally->cancelled += strncmp(line, "state=cancelled", 15) == 0;
    tally->failed += strncmp(line, "state=failed", 12) == 0;
    tally->excused += faulty && strncmp(line, "state=done", 10) == 0;
    if (faulty)
        write_rules(world, target, "");
}

/* ---- the world ---- */

static void must(int error, const char *what)
{
    if (error < 0) {
        fprintf(stderr, "moves: %s: %s\n", what, error_text(error));
        exit(1);
    }
}

static int open_disk(void *argument, uint64_t node, struct disk **out)
{
    struct world *world = argument;
    *out = disk_get(world->disk);
    return 0;
}

static void make(struct world *world, const char *directory)
{
    static const struct datastore_ops *const backends[] = {&backend_memory, &backend_fault, NULL};
    struct sentence why = {""};
    for (unsigned i = 0; i < 2; i++) {
        snprintf(world->faults[i], sizeof(world->faults[i]), "%s/faults-%u", directory, i);
        write_rules(world, i, "");
        struct datastore_options options = {.name = i ? "b" : "a",
            .url = "fault:memory:",
            .timeout_ns = 30 * NS_PER_S,
            .threads = 4,
            .faults = world->faults[i]};
        must(datastore_new(&world->datastores[i], &options, backends, &why), "datastore");
        must(datastore_open(world->datastores[i], &why), "open");
    }
    must(catalog_open(&world->catalog, directory, world->datastores, 2, 0, true, &why), why.text);
    struct origin origin = {.slot = 1, .unique = 1};
    struct stat st = {.st_mode = S_IFREG | 0644};
    struct node node;
    must(names_create(world->catalog, &origin, NODE_ROOT, "disk", &st, NULL, &node), "create");
    world->node = node.id;
    struct image *image;
    must(names_open_image(world->catalog, node.id, true, &image), "image");
    must(disk_new(&world->disk, node.id, image), "disk");
    for (unsigned i = 0; i < REACTORS; i++)
        must(reactor_start(&world->reactors[i], i), "reactor");
    struct config config = {
        .epoch_ns = 20 * NS_PER_MS, .jobs = 2, .target_timeout_ns = 5 * NS_PER_S, .state = (char *)directory};
    struct control_disks disks = {open_disk, world};
    must(control_open(&world->control, &config, world->catalog, &disks, world->reactors, REACTORS), "control");
    must(control_recover(world->control), "recover");
    must(disk_call(world, 0, VERB_RESIZE, 0, (struct extent){0, DISK_SIZE}, NULL), "resize");
    world->history = history_new(0, DISK_SIZE, world->seed, false);
    history_record(world->history);
    history_set_reader(world->history, read_block, world);
}

static void end(struct world *world)
{
    control_close(world->control);
    disk_put(world->disk);
    catalog_close(world->catalog);
    for (unsigned i = 0; i < REACTORS; i++)
        reactor_stop(world->reactors[i]);
    for (unsigned i = 0; i < 2; i++)
        datastore_free(world->datastores[i]);
    history_free(world->history);
}

static void start_guests(struct world *world, struct guest *guests)
{
    for (unsigned i = 0; i < GUESTS; i++) {
        guests[i] = (struct guest){.world = world, .number = i + 1, .random = (unsigned)world->seed * 100 + i};
        must(-posix_memalign((void **)&guests[i].buffer, 4096, LARGEST + 4096), "memory");
        must(-pthread_create(&guests[i].thread, NULL, guest_thread, &guests[i]), "thread");
    }
}

static void check_all(struct world *world, struct guest *guest)
{
    struct history_read read = {0};
    for (uint64_t at = 0; at < DISK_SIZE; at += LARGEST) {
        read.offset = at;
        read.length = LARGEST;
        bool torn = false;
        history_read_begin(world->history, &read);
        int error = disk_call(world, 0, VERB_READ, IO_DIRECT, (struct extent){at, at + LARGEST}, guest->buffer);
        atomic_fetch_add(
            &world->wrong, history_read_end(world->history, &read, error < 0 ? NULL : guest->buffer, &torn));
    }
    history_read_free(&read);
}

int main(int argc, char **argv)
{
    struct world world = {.seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1};
    struct guest guests[GUESTS];
    struct tally tally = {0};
    char directory[] = "/tmp/svmfs-stress-XXXXXX", command[64];
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 20;
    log_open("moves", false, getenv("VERBOSE") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
    if (!mkdtemp(directory))
        return 1;
    make(&world, directory);
    world.until = clock_now() + seconds * NS_PER_S;
    if (alloc_refuse)
        alloc_refuse((unsigned)world.seed, 2000);
    start_guests(&world, guests);
    struct guest operator= {.world = &world, .random = (unsigned)world.seed};
    while (clock_now() < world.until)
        one_job(&operator, & tally);
    unsigned long refused = alloc_refuse ? alloc_refuse(0, 0) : 0;
    for (unsigned i = 0; i < 20 && tally.moved == 0; i++) /* a slow machine: one at least, with all the time it needs */
        one_job(&operator, & tally);
    for (unsigned i = 0; i < GUESTS; i++)
        pthread_join(guests[i].thread, NULL);
    check_all(&world, &guests[0]);
    for (unsigned i = 0; i < GUESTS; i++)
        free(guests[i].buffer);
    struct linear_report linear = history_linear(world.history);
    if (linear.violations)
        printf("WRONG order: %s\n", linear.first);
    end(&world);
    snprintf(command, sizeof(command), "rm -rf %s", directory);
    int cleaned = system(command);
    printf("seed %llu: %u requests, %u jobs: %u moved (%u undone), %u cancelled, %u failed; %u wrong blocks, %u errors "
           "(%u "
           "excused), %u overlaps\n",
        (unsigned long long)world.seed, world.done, tally.started, tally.moved, tally.undone, tally.cancelled,
        tally.failed, world.wrong, world.errors, tally.excused, backend_fault_overlaps());
    printf("%llu reads and writes of %llu blocks are linearizable but for %llu\n",
        (unsigned long long)linear.operations, (unsigned long long)linear.places,
        (unsigned long long)linear.violations);
    bool good = world.wrong == 0 && linear.violations == 0 && linear.operations > 1000 &&
                (alloc_refuse ? refused > 5 : world.errors <= tally.excused) && backend_fault_overlaps() == 0 &&
                tally.moved > 0;
    if (alloc_refuse)
        printf("memory was refused %lu times\n", refused);
    printf("%d passed, %d failed, 0 skipped\n", good, !good);
    return good && cleaned == 0 ? 0 : 1;
}
