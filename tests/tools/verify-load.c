/* verify-load: a load on one open file that knows at every moment what a read must return.
 *
 * It opens the file once and never again, runs writers and readers until told to stop, reads back all that was ever
 * written and says LOAD PASS or LOAD FAIL. The judgement is in history.c. It needs nothing but libc and threads, so
 * that it also runs as the only program of a guest. `--save` keeps the final history, `--check` proves a file against
 * it: so the content can be proven on a datastore's own file when the mount is gone. SIGUSR1 makes the writers rest and
 * saves the history of that moment, SIGUSR2 lets them go on. */
#define _GNU_SOURCE
#include "history.h"
#include "options.h"
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <time.h>
#include <unistd.h>

enum { REGION = 1 << 20, TOO_MANY_ERRORS = 1000 };

struct run {
    struct options options;
    struct history *history;
    struct trace *trace;
    int fd;
    uint8_t *map;
    atomic_bool stop;
    atomic_ullong writes, reads, write_bytes, read_bytes, errors, wrong, flushes, retries, worst_us, worst_ever_us;
};

struct worker {
    struct run *run;
    pthread_t thread;
    unsigned number;
    bool writer;
    uint64_t random;
    uint8_t *buffer;
};

static volatile sig_atomic_t told_to_stop, told_to_rest;

static void on_signal(int signal_number)
{
    told_to_stop = signal_number;
}

static void on_rest(int signal_number)
{
    told_to_rest = signal_number == SIGUSR1;
}

/* Workers are never interrupted by these. */
static void allow_rest(bool allow)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(allow ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
}

static uint64_t next_random(struct worker *worker)
{
    uint64_t x = worker->random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void note_latency(struct run *run, uint64_t begun)
{
    unsigned long long took = now_us() - begun, worst = atomic_load(&run->worst_us);
    while (took > worst && !atomic_compare_exchange_weak(&run->worst_us, &worst, took))
        ;
    worst = atomic_load(&run->worst_ever_us);
    while (took > worst && !atomic_compare_exchange_weak(&run->worst_ever_us, &worst, took))
        ;
}

/* --- one request --- */

/* A map is shared with the kernel and with other threads on purpose. */
__attribute__((no_sanitize("thread"))) static void copy_map(
    volatile uint8_t *to, const volatile uint8_t *from, size_t length)
{
    size_t i = 0;
    for (; ((uintptr_t)(to + i) & 7) == 0 && ((uintptr_t)(from + i) & 7) == 0 && i + 8 <= length; i += 8)
        *(volatile uint64_t *)(to + i) = *(const volatile uint64_t *)(from + i);
    for (; i < length; i++)
        to[i] = from[i];
}

static int transfer(const struct run *run, bool write, bool by_map, void *data, uint64_t offset, size_t length)
{
    if (by_map) {
        if (write)
            copy_map(run->map + offset, data, length);
        else
            copy_map(data, run->map + offset, length);
        return 0;
    }
    for (size_t done = 0; done < length;) {
        ssize_t n = write ? pwrite(run->fd, (uint8_t *)data + done, length - done, (off_t)(offset + done))
                          : pread(run->fd, (uint8_t *)data + done, length - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENODATA;
        done += (size_t)n;
    }
    return 0;
}

static void note_error(struct run *run, const char *verb, uint64_t offset, size_t length, int error)
{
    if (atomic_fetch_add(&run->errors, 1) < 20)
        fprintf(stderr, "ERROR %s of %zu bytes at offset %llu: %s\n", verb, length, (unsigned long long)offset,
            strerror(-error));
    if (atomic_load(&run->errors) >= TOO_MANY_ERRORS && !run->options.tolerate)
        atomic_store(&run->stop, true);
}

/* Regions that stay holes. */
static bool is_hole(const struct run *run, uint64_t offset)
{
    uint64_t x = (offset / REGION + run->options.seed + 1) * 0x9e3779b97f4a7c15u;
    return (x >> 33) % 100 < run->options.sparse;
}

static bool pick(struct worker *worker, uint64_t *offset, size_t *length)
{
    const struct run *run = worker->run;
    const struct options *options = &run->options;
    uint64_t base = history_base(run->history), room = history_length(run->history);
    unsigned align = options->align;
    unsigned steps = 1;
    while ((options->smallest << steps) <= options->largest)
        steps++;
    uint64_t size = (uint64_t)options->smallest << (next_random(worker) % steps);
    size -= next_random(worker) % 3 == 0 ? next_random(worker) % (size / 2 + 1) : 0;
    uint64_t hot = room > 4 * LARGEST ? 2 * LARGEST : room; /* half of the load meets in one place, which moves */
    uint64_t place = now_us() / 1000000 * 7919 * REGION % (room - hot + 1);
    *offset = next_random(worker) % 2 ? place + next_random(worker) % hot : next_random(worker) % room;
    if (!(worker->writer && options->odd && next_random(worker) % 2)) {
        *offset = *offset / align * align;
        size = (size + align - 1) / align * align;
    }
    if (*offset + size > room)
        size = room - *offset;
    *offset += base;
    if (worker->writer && options->sparse) {
        uint64_t end = *offset;
        while (end < *offset + size && !is_hole(run, end))
            end = (end / REGION + 1) * REGION;
        if (end < *offset + size)
            size = end - *offset;
    }
    *length = size;
    return size > 0;
}

static void flush(struct run *run)
{
    uint64_t begun = now_us();
    int failed = run->map ? msync(run->map, run->options.size, MS_SYNC) : 0;
    if (failed || fdatasync(run->fd) != 0)
        note_error(run, "flush", 0, 0, -errno);
    atomic_fetch_add(&run->flushes, 1);
    note_latency(run, begun);
}

static void one_write(struct worker *worker)
{
    struct run *run = worker->run;
    struct history_write write = {0};
    size_t length;
    if (!pick(worker, &write.offset, &length))
        return;
    bool punch = next_random(worker) % 100 < run->options.punch;
    if (punch) {
        write.offset = (write.offset + BLOCK - 1) / BLOCK * BLOCK;
        length = length / BLOCK * BLOCK;
        if (length == 0 || write.offset + length > history_base(run->history) + history_length(run->history))
            return;
    }
    write.length = length;
    bool by_map = run->map && !punch && next_random(worker) % 2;
    write.alone = by_map;
    int error = history_write_begin(run->history, &write, punch ? HISTORY_ZERO : HISTORY_DATA, worker->number);
    if (error) {
        note_error(run, "read beside a write", write.offset, length, error);
        history_write_end(run->history, &write, error);
        return;
    }
    history_fill(run->history, &write, worker->buffer);
    uint64_t begun = now_us();
    if (punch)
        error = fallocate(run->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)write.offset, (off_t)length)
                    ? -errno
                    : 0;
    else
        error = transfer(run, true, by_map, worker->buffer, write.offset, length);
    note_latency(run, begun);
    history_write_end(run->history, &write, error);
    trace_add(
        run->trace, (struct trace_event){begun, now_us(), write.offset, length, write.counter, punch ? 'z' : 'w'});
    if (error) {
        note_error(run, punch ? "punch" : "write", write.offset, length, error);
        return;
    }
    atomic_fetch_add(&run->writes, 1);
    atomic_fetch_add(&run->write_bytes, length);
}

/* What the bytes of a wrong read are now, and what was done to them before. */
static void tell_wrong(struct run *run, const struct history_read *read, void *buffer, uint64_t begun)
{
    trace_tell(run->trace, read->offset, read->length, now_us());
    fprintf(stderr, "  the wrong read: %llu+%llu from %.3f ms\n", (unsigned long long)read->offset,
        (unsigned long long)read->length, (double)begun / 1000 - (double)now_us() / 1000);
    for (int again = 0; again < 3 && transfer(run, false, false, buffer, read->offset, read->length) == 0; again++) {
        fprintf(stderr, "  again:");
        for (uint64_t at = 0; at < read->length; at += BLOCK) {
            struct pattern_claim claim = pattern_claim((uint8_t *)buffer + at);
            fprintf(stderr, " %llu", (unsigned long long)(claim.is_ours ? claim.counter >> 16 : 0));
        }
        fputc('\n', stderr);
        usleep(20000);
    }
}

/* Reads and judges; a block caught half way is read again with no write in flight. */
static int checked_read(struct run *run, struct history_read *read, void *buffer, bool by_map)
{
    bool torn = false;
    for (int attempt = 0; attempt < 2; attempt++) {
        if (attempt)
            history_quiet_begin(run->history);
        history_read_begin(run->history, read);
        uint64_t begun = now_us();
        int error = transfer(run, false, by_map, buffer, read->offset, read->length);
        note_latency(run, begun);
        unsigned wrong = history_read_end(run->history, read, error ? NULL : buffer, &torn);
        trace_add(run->trace, (struct trace_event){begun, now_us(), read->offset, read->length, 0, 'r'});
        if (wrong && atomic_fetch_add(&run->wrong, wrong) < 5)
            tell_wrong(run, read, buffer, begun);
        if (attempt)
            history_quiet_end(run->history);
        if (error || !torn)
            return error;
        atomic_fetch_add(&run->retries, 1);
    }
    return 0;
}

static void one_read(struct worker *worker, struct history_read *read)
{
    struct run *run = worker->run;
    size_t length;
    if (!pick(worker, &read->offset, &length))
        return;
    read->length = length;
    int error = checked_read(run, read, worker->buffer, run->map && next_random(worker) % 2);
    if (error) {
        note_error(run, "read", read->offset, length, error);
        return;
    }
    atomic_fetch_add(&run->reads, 1);
    atomic_fetch_add(&run->read_bytes, length);
}

static void *work(void *opaque)
{
    struct worker *worker = opaque;
    struct run *run = worker->run;
    struct history_read read = {0};
    unsigned count = 0;
    while (!atomic_load(&run->stop)) {
        if (worker->writer)
            one_write(worker);
        else
            one_read(worker, &read);
        if (worker->writer && run->options.flush_every && ++count % run->options.flush_every == 0)
            flush(run);
        if (run->options.think_us)
            usleep(run->options.think_us);
    }
    history_read_free(&read);
    return NULL;
}

/* Called by the history, for the one block at the edge of an odd write. */
static int read_block(void *opaque, uint64_t offset, void *block)
{
    struct run *run = opaque;
    uint64_t start = offset / run->options.align * run->options.align;
    uint8_t *buffer = aligned_alloc(4096, 4096);
    int error = buffer ? transfer(run, false, false, buffer, start, run->options.align) : -ENOMEM;
    if (!error)
        memcpy(block, buffer + (offset - start), BLOCK);
    free(buffer);
    return error;
}

/* --- the whole --- */

static void read_everything(struct run *run)
{
    struct history_read read = {0};
    uint8_t *buffer = aligned_alloc(4096, LARGEST);
    uint64_t base = history_base(run->history), end = base + history_length(run->history);
    for (uint64_t offset = base; buffer && offset < end; offset += LARGEST) {
        read.offset = offset;
        read.length = end - offset < LARGEST ? end - offset : LARGEST;
        int error = checked_read(run, &read, buffer, false);
        if (error)
            note_error(run, "final read", offset, read.length, error);
    }
    if (!buffer)
        note_error(run, "final read", 0, 0, -ENOMEM);
    history_read_free(&read);
    free(buffer);
}

/* All that is not to stay a hole, once, in order. */
static void fill(struct run *run)
{
    uint64_t base = history_base(run->history), end = base + history_length(run->history);
    uint8_t *buffer = aligned_alloc(4096, LARGEST);
    for (uint64_t offset = base; buffer && offset < end && !told_to_stop; offset += LARGEST) {
        struct history_write write = {.offset = offset, .length = end - offset < LARGEST ? end - offset : LARGEST};
        if (is_hole(run, offset))
            continue;
        int error = history_write_begin(run->history, &write, HISTORY_DATA, 0);
        history_fill(run->history, &write, buffer);
        if (!error)
            error = transfer(run, true, false, buffer, write.offset, write.length);
        history_write_end(run->history, &write, error);
        if (error)
            note_error(run, "write", write.offset, write.length, error);
    }
    free(buffer);
    flush(run);
}

static void print_status(struct run *run, unsigned second)
{
    char line[256];
    int n = snprintf(line, sizeof line,
        "status t=%u writes=%llu reads=%llu written=%llu read=%llu worst_us=%llu errors=%llu wrong=%llu\n", second,
        atomic_load(&run->writes), atomic_load(&run->reads), atomic_load(&run->write_bytes),
        atomic_load(&run->read_bytes), atomic_exchange(&run->worst_us, 0), atomic_load(&run->errors),
        atomic_load(&run->wrong));
    if (run->options.status_fd >= 0 && write(run->options.status_fd, line, (size_t)n) < 0)
        run->options.status_fd = -1;
}

/* Nothing is written until SIGUSR2; the file holds what the saved history says. */
static void rest(struct run *run)
{
    history_quiet_begin(run->history);
    flush(run);
    int error = run->options.save ? history_save(run->history, run->options.save) : 0;
    printf("LOAD RESTS %s\n", strerror(-error));
    while (told_to_rest && !told_to_stop)
        usleep(5000);
    history_quiet_end(run->history);
}

static void wait_for_the_end(struct run *run)
{
    uint64_t begun = now_us();
    unsigned second = 0;
    allow_rest(true);
    while (!told_to_stop && !atomic_load(&run->stop)) {
        if (told_to_rest)
            rest(run);
        uint64_t passed = now_us() - begun;
        struct pollfd input = {.fd = run->options.until_eof ? STDIN_FILENO : -1, .events = POLLIN};
        char discarded[64];
        if (run->options.seconds && passed >= run->options.seconds * 1000000ull)
            break;
        uint64_t next = (second + 1) * 1000000ull;
        if (passed >= next) {
            print_status(run, ++second);
            continue;
        }
        if (poll(&input, 1, (int)((next - passed) / 1000 + 1)) > 0 &&
            read(STDIN_FILENO, discarded, sizeof discarded) <= 0)
            break;
    }
}

static void run_load(struct run *run)
{
    unsigned count = run->options.writers + run->options.readers;
    struct worker *workers = calloc(count + 1, sizeof *workers);
    if (run->options.fill)
        fill(run);
    for (unsigned i = 0; i < count; i++) {
        struct worker *worker = &workers[i];
        worker->run = run;
        worker->number = i + 1;
        worker->writer = i < run->options.writers;
        worker->random = run->options.seed * 1000003 + i;
        worker->buffer = aligned_alloc(4096, 2 * LARGEST);
        if (!worker->buffer || pthread_create(&worker->thread, NULL, work, worker) != 0) {
            fprintf(stderr, "verify-load: cannot start a thread\n");
            exit(2);
        }
    }
    printf("LOAD START\n");
    wait_for_the_end(run);
    atomic_store(&run->stop, true);
    for (unsigned i = 0; i < count; i++) {
        pthread_join(workers[i].thread, NULL);
        free(workers[i].buffer);
    }
    free(workers);
    flush(run);
    if (!run->options.no_final)
        read_everything(run);
}

static int open_file(struct run *run)
{
    struct options *options = &run->options;
    struct stat status;
    uint64_t device_size;
    bool check = options->check != NULL;
    int flags = (check ? O_RDONLY : O_RDWR | (options->size && !options->keep ? O_CREAT : 0)) |
                (options->direct ? O_DIRECT : 0);
    run->fd = open(options->file, flags | O_CLOEXEC, 0644);
    if (run->fd < 0 || fstat(run->fd, &status) != 0)
        return -errno;
    if (S_ISBLK(status.st_mode)) {
        if (ioctl(run->fd, BLKGETSIZE64, &device_size) != 0)
            return -errno;
        options->size = device_size;
    } else if (options->size == 0 || check || options->keep) {
        options->size = (uint64_t)status.st_size;
    } else if (ftruncate(run->fd, 0) != 0 || ftruncate(run->fd, (off_t)options->size) != 0) {
        return -errno;
    } else if (fsync(run->fd) != 0) {
        return -errno;
    }
    if (options->map) {
        run->map = mmap(NULL, options->size, check ? PROT_READ : PROT_READ | PROT_WRITE, MAP_SHARED, run->fd, 0);
        if (run->map == MAP_FAILED)
            return -errno;
    }
    if (options->align == 0) { /* what direct requests this file takes */
        uint8_t *probe = aligned_alloc(4096, 4096);
        options->align = options->direct && probe && pread(run->fd, probe, 512, 512) < 0 && errno == EINVAL ? 4096
                                                                                                            : 512;
        free(probe);
    }
    printf("LOAD OPEN pid=%d fd=%d dev=%llx ino=%llu size=%llu seed=%llu\n", (int)getpid(), run->fd,
        (unsigned long long)status.st_dev, (unsigned long long)status.st_ino, (unsigned long long)options->size,
        (unsigned long long)options->seed);
    fflush(stdout);
    return 0;
}

static struct history *make_history(const struct options *options)
{
    const char *from = options->check ? options->check : options->load;
    uint64_t length = options->range_length;
    if (from) {
        struct history *history = history_load(from);
        if (!history || history_base(history) + history_length(history) > options->size) {
            fprintf(stderr, "verify-load: %s: not a history of %s\n", from, options->file);
            exit(2);
        }
        return history;
    }
    if (length == 0 && options->range_offset < options->size)
        length = (options->size - options->range_offset) / 4096 * 4096;
    if (length < 4096 || options->range_offset + length > options->size) {
        fprintf(stderr, "verify-load: %s: too small\n", options->file);
        exit(2);
    }
    return history_new(options->range_offset, length, options->seed, options->keep);
}

int main(int argc, char **argv)
{
    static struct run run;
    struct sigaction action = {.sa_handler = on_signal}, rests = {.sa_handler = on_rest};
    setvbuf(stdout, NULL, _IOLBF, 0);
    options_parse(&run.options, argc, argv);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    allow_rest(false);
    sigaction(SIGUSR1, &rests, NULL);
    sigaction(SIGUSR2, &rests, NULL);
    signal(SIGPIPE, SIG_IGN);
    int error = open_file(&run);
    if (error) {
        fprintf(stderr, "verify-load: %s: %s\n", run.options.file, strerror(-error));
        return 2;
    }
    run.history = make_history(&run.options);
    run.trace = trace_new();
    if (!run.trace) {
        fprintf(stderr, "verify-load: no memory\n");
        return 2;
    }
    history_set_reader(run.history, read_block, &run);
    if (!run.options.check && (!run.options.keep || run.options.load))
        history_record(run.history);
    if (run.options.check)
        read_everything(&run);
    else
        run_load(&run);
    if (run.options.save && (error = history_save(run.history, run.options.save)) != 0) {
        fprintf(stderr, "verify-load: %s: %s\n", run.options.save, strerror(-error));
        return 2;
    }
    struct linear_report linear = history_linear(run.history);
    if (linear.violations)
        fprintf(stderr, "WRONG order: %s\n", linear.first);
    unsigned long long errors = atomic_load(&run.errors), wrong = atomic_load(&run.wrong) + linear.violations;
    bool pass = wrong == 0 && (errors == 0 || run.options.tolerate);
    printf("LOAD %s writes=%llu reads=%llu written=%llu read=%llu flushes=%llu again=%llu worst_us=%llu errors=%llu "
           "wrong=%llu "
           "known=%llu linear=%llu places=%llu%s\n",
        pass ? "PASS" : "FAIL", atomic_load(&run.writes), atomic_load(&run.reads), atomic_load(&run.write_bytes),
        atomic_load(&run.read_bytes), atomic_load(&run.flushes), atomic_load(&run.retries),
        atomic_load(&run.worst_ever_us), errors, wrong, (unsigned long long)history_written(run.history),
        (unsigned long long)linear.operations, (unsigned long long)linear.places, linear.full ? " full" : "");
    history_free(run.history);
    trace_free(run.trace);
    return pass ? 0 : 1;
}
