/* raw-driver: does to one raw image what the lines of its standard input say, and answers each with a line, "ok …" or
 * "failed …". For scripts that kill, stop and cut what the image lies on meanwhile.
 *
 *     open URL MOUNT [ro]      MOUNT: the identity's number, 0: none; an image that is open is closed first
 *     close | end
 *     fill SEED FROM TO        writes MiB FROM to TO with bytes that SEED makes
 *     check SEED FROM TO       … and reads them back
 *     zero FROM TO             with IO_MAY_UNMAP
 *     flush | refresh | size
 *     reserve KEY [takeover] | release KEY
 *     fence
 *     load SECONDS DEPTH BLOCK writes of BLOCK KiB, DEPTH of them in flight on two reactors; each place is read back before
 *                              it is written again, now and then everything is flushed; verifies all at the end
 *     read SECONDS DEPTH BLOCK reads only, "ok COUNT ios"
 *     bench SECONDS DEPTH BLOCK read|write [REACTORS]
 *                              as fast as it goes, through the first 256 MiB: "ok IOPS MiB/s"
 *     cpu                      milliseconds that the process has used
 *
 * Environment: SVMFS_TEST_TIMEOUT (seconds, default 6), SVMFS_TEST_ISCSI_PASSWORD_FILE, SVMFS_TEST_MUTUAL_USER,
 * SVMFS_TEST_MUTUAL_PASSWORD_FILE. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/backends.h"
#include "base/clock.h"
#include "io/raw.h"
#include "rig.h"

#define MIB    (1ull << 20)
#define PLACES 4096

static struct rig rig;
static struct image *image;
static const struct raw_ops *ops;
static const struct datastore_ops *const backends[] = {&backend_memory, NULL};

void rig_fail(const char *file, int line, const char *what)
{
    printf("failed %s:%d: %s\n", file, line, what);
    exit(1);
}

void rig_skip(const char *reason)
{
    exit(77);
}

static void answer(int error, const char *text)
{
    printf("%s %s%s%s\n", error ? "failed" : "ok", error ? error_name(error) : "", error ? " " : "", text);
    fflush(stdout);
}

static void prepare(void)
{
    const char *timeout = getenv("SVMFS_TEST_TIMEOUT");
    struct sentence why;
    struct datastore_options options = {.name = "one",
        .url = "memory:",
        .timeout_ns = (timeout ? strtoull(timeout, NULL, 10) : 6) * NS_PER_S,
        .threads = 4,
        .password_file = getenv("SVMFS_TEST_ISCSI_PASSWORD_FILE"),
        .mutual_user = getenv("SVMFS_TEST_MUTUAL_USER"),
        .mutual_password_file = getenv("SVMFS_TEST_MUTUAL_PASSWORD_FILE")};
    expect_equal(datastore_new(&rig.datastore, &options, backends, &why), 0);
    expect_equal(datastore_open(rig.datastore, &why), 0);
    for (unsigned i = 0; i < RIG_REACTORS; i++)
        expect_equal(reactor_start(&rig.reactors[i], i), 0);
}

static void open_it(const char *url, unsigned long long mount, bool writable)
{
    struct sentence why = {""};
    image_put(image);
    image = NULL;
    rig.datastore->identity = (struct identity){.mount = mount, .generation = 1, .host = "driver"};
    int error = raw_open(rig.datastore, backend_raws, url, writable, &image, &ops, &why);
    answer(error, why.text);
}

static int each(bool check, unsigned seed, uint64_t from, uint64_t to)
{
    unsigned char *wanted = rig_memory(MIB), *got = rig_memory(MIB);
    int error = 0;
    for (uint64_t at = from; at < to && !error; at++) {
        rig_fill(wanted, MIB, seed * 100003 + (unsigned)at);
        if (!check) {
            error = rig_write(&rig, image, at * MIB, wanted, MIB, IO_DIRECT);
        } else {
            error = rig_read(&rig, image, at * MIB, got, MIB, IO_DIRECT);
            if (!error && memcmp(wanted, got, MIB) != 0)
                error = -EILSEQ;
        }
    }
    free(wanted);
    free(got);
    return error;
}

/* One place of the load: written, read back, written … */
struct place {
    struct rig_io io;
    struct iovec iov;
    unsigned char *wrote, *got;
    uint64_t at;
    unsigned seed;
    bool reading, busy;
};

static void step(struct place *place, unsigned number, size_t size, bool read_only)
{
    place->reading = read_only || !place->reading;
    if (!place->reading)
        rig_fill(place->wrote, size, ++place->seed * 4099 + number);
    place->iov = (struct iovec){place->reading ? place->got : place->wrote, size};
    place->io.io = (struct io){.verb = place->reading ? VERB_READ : VERB_WRITE,
        .extent = {place->at, place->at + size},
        .flags = IO_DIRECT,
        .iov = &place->iov,
        .iov_count = 1};
    place->busy = true;
    rig_start(&rig, number, image, &place->io);
}

static const char *reap(struct place *place, size_t size, bool read_only)
{
    place->busy = false;
    if (rig_wait(&place->io) != 0)
        return error_name(place->io.io.result);
    if (place->reading && !read_only && memcmp(place->wrote, place->got, size) != 0)
        return "other bytes than were written";
    return NULL;
}

static void load(double seconds, unsigned depth, size_t size, bool read_only)
{
    struct place *places = calloc(depth, sizeof(*places));
    uint64_t end = clock_now() + (uint64_t)(seconds * 1e9), done = 0, worst = 0;
    const char *wrong = NULL;
    char text[200];
    for (unsigned i = 0; i < depth; i++) {
        places[i].wrote = rig_memory(size);
        places[i].got = rig_memory(size);
        places[i].at = i * size;
        places[i].reading = true;
    }
    while (!wrong && clock_now() < end) {
        for (unsigned i = 0; i < depth && !wrong; i++) {
            uint64_t before = clock_now();
            if (places[i].busy)
                wrong = reap(&places[i], size, read_only);
            worst = clock_now() - before > worst ? clock_now() - before : worst;
            if (!wrong)
                step(&places[i], i, size, read_only);
            done++;
        }
        if (!read_only && done % (depth * 16) == 0 && rig_verb(&rig, image, VERB_FLUSH, 0, 0, 0) != 0)
            wrong = "flush";
    }
    for (unsigned i = 0; i < depth; i++) {
        if (places[i].busy) {
            const char *last = reap(&places[i], size, read_only);
            wrong = wrong ? wrong : last;
        }
        if (!read_only && !wrong && !places[i].reading) {
            step(&places[i], i, size, false);
            wrong = reap(&places[i], size, false);
        }
        free(places[i].wrote);
        free(places[i].got);
    }
    free(places);
    snprintf(text, sizeof(text), "%llu ios, worst %llu ms%s%s", (unsigned long long)done,
        (unsigned long long)(worst / NS_PER_MS), wrong ? ", wrong: " : "", wrong ? wrong : "");
    answer(wrong ? -EIO : 0, text);
}

/* --- as fast as it goes: the next one is sent from the end of the one before --- */

struct shot {
    struct io io;
    struct iovec iov;
    struct task task;
    struct bench *bench;
};

struct bench {
    size_t size;
    bool write;
    uint64_t end;
    _Atomic uint64_t next, done, failures;
    _Atomic unsigned running;
};

static void shoot(struct task *task)
{
    struct shot *shot = container_of(task, struct shot, task);
    struct bench *bench = shot->bench;
    uint64_t at = bench->next++ % (256 * MIB / bench->size) * bench->size;
    shot->io.verb = bench->write ? VERB_WRITE : VERB_READ;
    shot->io.extent = (struct extent){at, at + bench->size};
    image_submit(image, &shot->io);
}

static void shot_done(struct io *io)
{
    struct shot *shot = container_of(io, struct shot, io);
    struct bench *bench = shot->bench;
    bench->done++;
    bench->failures += io->result != 0;
    if (clock_now() < bench->end)
        shoot(&shot->task);
    else
        bench->running--;
}

static void run_bench(double seconds, unsigned depth, size_t size, bool write, unsigned reactors)
{
    struct bench bench = {.size = size, .write = write, .running = depth};
    struct shot *shots = calloc(depth, sizeof(*shots));
    char text[100];
    uint64_t start = clock_now();
    bench.end = start + (uint64_t)(seconds * 1e9);
    for (unsigned i = 0; i < depth; i++) {
        shots[i] = (struct shot){.iov = {rig_memory(size), size}, .bench = &bench};
        rig_fill(shots[i].iov.iov_base, size, i);
        shots[i].io = (struct io){.flags = IO_DIRECT, .iov = &shots[i].iov, .iov_count = 1, .done = shot_done};
        shots[i].task.run = shoot;
        reactor_post(rig.reactors[i % reactors], &shots[i].task);
    }
    while (bench.running > 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    double took = (double)(clock_now() - start) / 1e9;
    for (unsigned i = 0; i < depth; i++)
        free(shots[i].iov.iov_base);
    free(shots);
    snprintf(
        text, sizeof(text), "%.0f %.0f", (double)bench.done / took, (double)bench.done * (double)size / took / MIB);
    answer(bench.failures ? -EIO : 0, text);
}

struct fenced {
    pthread_mutex_t mutex;
    pthread_cond_t called;
    bool done;
};

static void told(void *argument)
{
    struct fenced *fenced = argument;
    pthread_mutex_lock(&fenced->mutex);
    fenced->done = true;
    pthread_cond_signal(&fenced->called);
    pthread_mutex_unlock(&fenced->mutex);
}

static void fence(void)
{
    struct fenced fenced = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    image_fence(image, told, &fenced);
    pthread_mutex_lock(&fenced.mutex);
    while (!fenced.done)
        pthread_cond_wait(&fenced.called, &fenced.mutex);
    pthread_mutex_unlock(&fenced.mutex);
    answer(0, "");
}

static void cpu(void)
{
    struct timespec used;
    char text[64];
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    snprintf(text, sizeof(text), "%lld", (long long)used.tv_sec * 1000 + used.tv_nsec / 1000000);
    answer(0, text);
}

static void size(void)
{
    char text[64];
    snprintf(text, sizeof(text), "%llu", (unsigned long long)atomic_load(&image->size));
    answer(0, text);
}

static void command(const char *line)
{
    char verb[32] = "", word[1024] = "", third[32] = "";
    unsigned long long a = 0, b = 0, c = 0;
    double seconds = 0;
    struct sentence why = {""};
    sscanf(line, "%31s", verb);
    int numbers = sscanf(line, "%*s %llu %llu %llu", &a, &b, &c);
    if (strcmp(verb, "open") == 0 && sscanf(line, "%*s %1023s %llu %31s", word, &a, third) >= 2) {
        open_it(word, a, strcmp(third, "ro") != 0);
    } else if (!image) {
        answer(-EBADF, "nothing is open");
    } else if (strcmp(verb, "close") == 0) {
        image_put(image);
        image = NULL;
        answer(0, "");
    } else if (strcmp(verb, "fill") == 0 || strcmp(verb, "check") == 0) {
        answer(each(*verb == 'c', (unsigned)a, b, c), "");
    } else if (strcmp(verb, "zero") == 0) {
        answer(rig_verb(&rig, image, VERB_ZERO, a * MIB, b * MIB, IO_MAY_UNMAP), "");
    } else if (strcmp(verb, "flush") == 0) {
        answer(rig_verb(&rig, image, VERB_FLUSH, 0, 0, 0), "");
    } else if (strcmp(verb, "refresh") == 0) {
        answer(ops->refresh(image), "");
    } else if (strcmp(verb, "reserve") == 0) {
        int error = ops->reserve ? ops->reserve(image, a, strstr(line, "takeover"), &why) : -EOPNOTSUPP;
        answer(error, why.text);
    } else if (strcmp(verb, "release") == 0) {
        ops->release(image, a);
        answer(0, "");
    } else if ((strcmp(verb, "load") == 0 || strcmp(verb, "read") == 0) &&
               sscanf(line, "%*s %lf %llu %llu", &seconds, &b, &c) == 3) {
        load(seconds, b < PLACES ? (unsigned)b : PLACES, c << 10, *verb == 'r');
    } else if (strcmp(verb, "bench") == 0 &&
               sscanf(line, "%*s %lf %llu %llu %31s %llu", &seconds, &b, &c, third, &a) >= 4) {
        run_bench(seconds, (unsigned)b, c << 10, strcmp(third, "write") == 0, a == 1 ? 1 : RIG_REACTORS);
    } else if (strcmp(verb, "fence") == 0) {
        fence();
    } else if (strcmp(verb, "cpu") == 0) {
        cpu();
    } else if (strcmp(verb, "size") == 0) {
        size();
    } else {
        answer(-EINVAL, numbers >= 0 ? "no such command" : line);
    }
}

int main(void)
{
    char line[2048];
    prepare();
    while (fgets(line, sizeof(line), stdin) && strcmp(line, "end\n") != 0)
        command(line);
    image_put(image);
    datastore_free(rig.datastore);
    for (unsigned i = 0; i < RIG_REACTORS; i++)
        reactor_stop(rig.reactors[i]);
    return 0;
}
