/* volume-scale: what it costs to open a volume: by its size, by its files, by their fragments. Figures are printed;
 * only ratios are judged.
 *
 *   volume-scale [FOLDER]      where sparse files of up to 16 TiB can be (default: TMPDIR or /tmp, else /dev/shm) */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/volume/volume.h"
#include "base/clock.h"
#include "base/log.h"

#define GIB       (1ull << 30)
#define LARGE     (16384 * GIB - VOLUME_EXTENT) /* the most that ext4 holds */
#define SMALL     (16 * GIB)
#define REPEATS   5
#define FRAGMENTS 20

static char path[4096];
static unsigned passed, failed;

static void must(int result, const char *what)
{
    if (result >= 0)
        return;
    printf("cannot: %s: %s\n0 passed, 1 failed, 0 skipped\n", what, error_text(result));
    unlink(path);
    exit(1);
}

static void judge(bool good, const char *what, double figure, double least, double most)
{
    printf("%s %s: %.2f (%.2f to %.2f)\n", good ? "ok     " : "FAILED ", what, figure, least, most);
    passed += good;
    failed += !good;
}

static void between(const char *what, double figure, double least, double most)
{
    judge(figure >= least && figure <= most, what, figure, least, most);
}

/* ---- files ---- */

struct call {
    struct io io;
    struct iovec iov;
    struct image *image;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool done;
};

static void call_done(struct io *io)
{
    struct call *call = container_of(io, struct call, io);
    pthread_mutex_lock(&call->mutex);
    call->done = true;
    pthread_cond_signal(&call->ended);
    pthread_mutex_unlock(&call->mutex);
}

static void call_start(void *argument)
{
    struct call *call = argument;
    image_submit(call->image, &call->io);
}

static int submit(struct reactor *reactor, struct image *image, enum verb verb, uint64_t start, uint64_t end)
{
    static uint8_t __attribute__((aligned(4096))) bytes[VOLUME_BLOCK];
    struct call call = {.io = {.verb = verb,
                            .flags = IO_DIRECT,
                            .extent = {start, end},
                            .iov_count = verb == VERB_WRITE,
                            .done = call_done},
        .iov = {bytes, end - start},
        .image = image,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .ended = PTHREAD_COND_INITIALIZER};
    call.io.iov = &call.iov;
    reactor_call(reactor, call_start, &call);
    pthread_mutex_lock(&call.mutex);
    while (!call.done)
        pthread_cond_wait(&call.ended, &call.mutex);
    pthread_mutex_unlock(&call.mutex);
    return call.io.result;
}

/* Fragments are made by leaving every other MiB of a file out. */
static void make_files(struct datastore *datastore, unsigned files, unsigned fragments)
{
    const struct stat st = {.st_mode = S_IFREG | 0600}, directory = {.st_mode = S_IFDIR | 0700};
    struct reactor *reactor;
    struct image *image = NULL;
    must(reactor_start(&reactor, 0), "reactor");
    for (unsigned i = 0; i < files; i++) {
        char name[64];
        snprintf(name, sizeof(name), "vm%u", i / 100);
        if (i % 100 == 0)
            must(datastore->ops->create(datastore, name, &directory, NULL), name);
        snprintf(name, sizeof(name), "vm%u/disk%u.img", i / 100, i);
        must(datastore->ops->create(datastore, name, &st, NULL), name);
        must(datastore->ops->open_image(datastore, name, true, &image), name);
        for (unsigned n = 0; n < fragments; n++)
            must(submit(reactor, image, VERB_WRITE, 2ull * n * VOLUME_EXTENT, 2ull * n * VOLUME_EXTENT + VOLUME_BLOCK),
                name);
        if (i + 1 == files)
            must(submit(reactor, image, VERB_FLUSH, 0, 0), name);
        image_put(image);
    }
    datastore_free(datastore);
    reactor_stop(reactor);
}

static struct datastore *new_datastore(void)
{
    static const struct datastore_ops *const backends[] = {&backend_volume, NULL};
    char url[sizeof(path) + 32];
    struct datastore *datastore;
    struct sentence why = {""};
    snprintf(url, sizeof(url), "volume:local:%s", path);
    const struct datastore_options options = {.name = "scale", .url = url, .timeout_ns = 60 * NS_PER_S, .threads = 4};
    must(datastore_new(&datastore, &options, backends, &why), why.text);
    return datastore;
}

static struct image *open_raw(struct datastore *datastore, bool writable, const struct raw_ops **ops)
{
    struct sentence why = {""};
    struct image *raw;
    must(raw_open(datastore, backend_raws, datastore->url + strlen("volume:"), writable, &raw, ops, &why), why.text);
    return raw;
}

static void make(uint64_t size, unsigned files, unsigned fragments)
{
    struct datastore *datastore = new_datastore();
    const struct volume_format_options format = {.label = "scale"};
    const struct raw_ops *ops;
    struct sentence why = {""};
    must(truncate(path, 0) < 0 || truncate(path, (off_t)size) < 0 ? -errno : 0, path);
    struct image *raw = open_raw(datastore, true, &ops);
    must(volume_format(raw, &format, &why), why.text);
    image_close(raw);
    must(datastore_open(datastore, &why), why.text);
    make_files(datastore, files, fragments);
}

/* ---- opening ---- */

struct cost {
    double seconds; /* the least of a few */
    double bytes;
    uint64_t runs;
};

static double allocated(void)
{
    struct mallinfo2 info = mallinfo2();
    return (double)(info.uordblks + info.hblkhd);
}

static struct cost open_volume(void)
{
    struct cost cost = {.seconds = 1e9};
    for (int i = 0; i < REPEATS; i++) {
        struct datastore *datastore = new_datastore();
        const struct raw_ops *ops;
        struct sentence why = {""};
        struct volume *volume;
        struct volume_summary summary;
        struct image *raw = open_raw(datastore, false, &ops);
        double before = allocated();
        uint64_t began = clock_now();
        must(volume_open(&volume, raw, ops, 0, NULL, &why), why.text);
        double seconds = (double)(clock_now() - began) / NS_PER_S;
        cost.seconds = seconds < cost.seconds ? seconds : cost.seconds;
        cost.bytes = allocated() - before;
        volume_summarise(volume, &summary);
        cost.runs = summary.runs;
        volume_close(volume);
        datastore_free(datastore);
    }
    return cost;
}

static struct cost measure(const char *what, uint64_t size, unsigned files, unsigned fragments)
{
    make(size, files, fragments);
    struct cost cost = open_volume();
    printf("        %s: %u files, %llu runs: opened in %.1f ms, %.2f MiB of memory\n", what, files,
        (unsigned long long)cost.runs, cost.seconds * 1000, cost.bytes / (1 << 20));
    if (cost.runs != (uint64_t)files * fragments)
        judge(false, "runs", (double)cost.runs, files * fragments, files * fragments);
    return cost;
}

/* ---- the place ---- */

static bool try_folder(const char *folder)
{
    snprintf(path, sizeof(path), "%s/svmfs-scale.XXXXXX", folder);
    int fd = mkstemp(path);
    if (fd < 0)
        return false;
    bool good = ftruncate(fd, (off_t)LARGE) == 0;
    close(fd);
    if (!good)
        unlink(path);
    return good;
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : getenv("TMPDIR");
    log_open("volume-scale", false, LOG_LEVEL_WARNING);
    if (!try_folder(folder ? folder : "/tmp") && !try_folder("/dev/shm")) {
        printf("skipped: no place for a sparse file of 16 TiB\n0 passed, 0 failed, 1 skipped\n");
        return 77;
    }
    struct cost empty = measure("16 TiB", LARGE, 0, 0);
    struct cost few = measure("16 TiB", LARGE, 1000, 1);
    struct cost many = measure("16 TiB", LARGE, 10000, 1);
    struct cost fragments = measure("16 TiB", LARGE, 1000, FRAGMENTS);
    struct cost small = measure("16 GiB", SMALL, 10000, 1);
    between("ten times the files, times the memory", (many.bytes - empty.bytes) / (few.bytes - empty.bytes), 5, 15);
    between("bytes of memory per file of one run", (many.bytes - empty.bytes) / 10000, 100, 2000);
    between("bytes of memory per further run", (fragments.bytes - few.bytes) / (1000.0 * (FRAGMENTS - 1)), 16, 200);
    between("bytes of memory per MiB of the volume", empty.bytes / (double)(LARGE / VOLUME_EXTENT), 0, 1);
    between("1024 times the size with as many files, times the time", many.seconds / small.seconds, 0, 10);
    unlink(path);
    printf("%u passed, %u failed, 0 skipped\n", passed, failed);
    return failed ? 1 : 0;
}
