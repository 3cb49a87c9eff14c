#include "fault_cases.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backends.h"

#define SIZE 8192

static unsigned char memory[SIZE];

static struct image *ready(struct rig *rig, const char *name)
{
    struct image *image = rig_image(rig, name, SIZE);
    memset(memory, 1, SIZE);
    expect_equal(rig_write(rig, image, 0, memory, SIZE, 0), 0);
    return image;
}

void case_no_rules(struct rig *rig)
{
    struct image *image = ready(rig, "f");
    rig_faults(rig, "");
    expect(rig_all(rig, image, 0, SIZE, 1, 0));
    rig_faults(rig, "# nothing goes wrong\n\n   \n");
    expect(rig_all(rig, image, 0, SIZE, 1, 0));
    expect_equal(unlink(rig->faults), 0);
    expect(rig_all(rig, image, 0, SIZE, 1, 0));
    image_put(image);
}

void case_failing(struct rig *rig)
{
    struct image *image = ready(rig, "f"), *other;
    struct stat st;
    memset(memory, 2, SIZE);
    rig_faults(rig, "write fail\nflush fail errno=ETIMEDOUT # a comment\nzero enospc\nresize fail errno=EFBIG\n");
    expect_equal(rig_write(rig, image, 0, memory, SIZE, 0), -EIO);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), -ETIMEDOUT);
    /* a zero that the checked middle has to emulate is writes */
    expect_equal(rig_verb(rig, image, VERB_ZERO, 0, SIZE, 0), image->limits.can_zero ? -ENOSPC : -EIO);
    expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, 10 * SIZE, 0), -EFBIG);
    expect_equal(atomic_load(&image->size), SIZE);
    expect(rig_all(rig, image, 0, SIZE, 1, 0));
    rig_faults(rig, "read fail errno=ENXIO\nmap fail\nallocate fail\n");
    expect_equal(rig_read(rig, image, 0, memory, SIZE, 0), -ENXIO);
    expect_equal(rig_verb(rig, image, VERB_MAP, 0, SIZE, 0), -EIO);
    expect_equal(rig_verb(rig, image, VERB_ALLOCATE, 0, SIZE, 0), -EIO);
    expect_equal(rig->datastore->ops->lookup(rig->datastore, "f", &st), 0);
    rig_faults(rig, "open fail errno=EACCES\nname fail errno=ESTALE\n");
    expect_equal(rig->datastore->ops->open_image(rig->datastore, "f", true, &other), -EACCES);
    expect_equal(rig->datastore->ops->lookup(rig->datastore, "f", &st), -ESTALE);
    expect_equal(rig->datastore->ops->remove(rig->datastore, "f", false), -ESTALE);
    rig_faults(rig, "any fail\n");
    expect_equal(rig->datastore->ops->open_image(rig->datastore, "f", true, &other), -EIO);
    expect_equal(rig->datastore->ops->lookup(rig->datastore, "f", &st), -EIO);
    expect_equal(rig_read(rig, image, 0, memory, SIZE, 0), -EIO);
    rig_faults(rig, "");
    expect(rig_all(rig, image, 0, SIZE, 1, 0));
    image_put(image);
}

void case_counted(struct rig *rig)
{
    static const int want[] = {0, 0, -EIO, -EIO, -EIO, 0, 0};
    struct image *image = ready(rig, "f");
    rig_faults(rig, "read fail after=2 count=3\n");
    for (unsigned i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        expect_equal(rig_read(rig, image, 0, memory, SIZE, 0), want[i]);
        if (i == 2) /* a line that stays keeps its counts */
            rig_faults(rig, "write fail\nread fail after=2 count=3\n");
    }
    rig_faults(rig, "read fail count=1\n");
    expect_equal(rig_read(rig, image, 0, memory, SIZE, 0), -EIO);
    expect_equal(rig_read(rig, image, 0, memory, SIZE, 0), 0);
    image_put(image);
}

void case_by_offset(struct rig *rig)
{
    struct image *image = ready(rig, "f");
    rig_faults(rig, "read fail offset=4096\n");
    expect_equal(rig_read(rig, image, 0, memory, 4096, 0), 0);
    expect_equal(rig_read(rig, image, 0, memory, 4097, 0), -EIO);
    expect_equal(rig_read(rig, image, 4096, memory, 1, 0), -EIO);
    expect_equal(rig_read(rig, image, 4097, memory, 100, 0), 0);
    rig_faults(rig, "any fail offset=0\n");
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    expect_equal(rig_verb(rig, image, VERB_ZERO, 0, 1, 0), -EIO);
    image_put(image);
}

void case_by_path(struct rig *rig)
{
    struct image *bad = ready(rig, "bad.img"), *good = ready(rig, "good.img");
    rig_faults(rig, "any fail path=bad\n");
    expect_equal(rig_read(rig, bad, 0, memory, SIZE, 0), -EIO);
    expect_equal(rig_read(rig, good, 0, memory, SIZE, 0), 0);
    image_put(bad);
    image_put(good);
}

/* One byte, silently, and never in the memory of who writes. */
void case_corrupting(struct rig *rig)
{
    struct image *image = ready(rig, "f");
    rig_faults(rig, "write corrupt offset=5000 count=1\n");
    memset(memory, 2, SIZE);
    expect_equal(rig_write(rig, image, 0, memory, SIZE, 0), 0);
    expect_equal(memory[5000], 2);
    rig_faults(rig, "");
    expect_equal(rig_read(rig, image, 0, memory, SIZE, 0), 0);
    expect_equal(memory[5000], 2 ^ 0x20);
    memory[5000] = 2;
    for (unsigned i = 0; i < SIZE; i++)
        expect_equal(memory[i], 2);
    rig_faults(rig, "read corrupt count=1\n");
    expect_equal(rig_read(rig, image, 4096, memory, 512, 0), 0);
    expect_equal(memory[0], 2 ^ 0x20);
    expect_equal(rig_read(rig, image, 4096, memory, 512, 0), 0);
    expect_equal(memory[0], 2);
    rig_faults(rig, "zero corrupt\nflush corrupt\nmap corrupt\n"); /* nothing to change */
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    expect_equal(rig_verb(rig, image, VERB_MAP, 0, SIZE, 0), 0);
    rig_faults(rig, "");
    image_put(image);
}

void case_delayed(struct rig *rig)
{
    struct image *image = ready(rig, "f");
    struct stat st;
    rig_faults(rig, "any delay ms=30\n");
    memset(memory, 3, SIZE);
    expect_equal(rig_write(rig, image, 0, memory, SIZE, 0), 0);
    expect(rig_all(rig, image, 0, SIZE, 3, 0));
    expect_equal(rig->datastore->ops->lookup(rig->datastore, "f", &st), 0);
    image_put(image);
}

void case_hanging_io(struct rig *rig)
{
    enum { COUNT = 50 };
    struct image *image = ready(rig, "f"), *other = ready(rig, "other");
    struct rig_io ios[COUNT];
    struct iovec iov = {memory, SIZE};
    rig_faults(rig, "write hang path=f\n");
    memset(memory, 4, SIZE);
    for (unsigned i = 0; i < COUNT; i++) {
        ios[i].io = (struct io){.verb = VERB_WRITE, .extent = {0, SIZE}, .iov = &iov, .iov_count = 1};
        rig_start(rig, i, image, &ios[i]);
    }
    /* what does not match goes on meanwhile */
    for (unsigned i = 0; i < COUNT; i++)
        expect_equal(rig_write(rig, other, 0, memory, SIZE, 0), 0);
    expect(rig_all(rig, image, 0, SIZE, 1, 0));
    rig_faults(rig, "write hang path=f\nread fail\n"); /* the rule is still there */
    expect_equal(rig_read(rig, other, 0, memory, SIZE, 0), -EIO);
    for (unsigned i = 0; i < COUNT; i++)
        expect(!rig_ended(&ios[i]));
    expect_equal(atomic_load(&image->in_flight), COUNT);
    rig_faults(rig, "");
    for (unsigned i = 0; i < COUNT; i++)
        expect_equal(rig_wait(&ios[i]), 0);
    expect(rig_all(rig, image, 0, SIZE, 4, 0));
    image_put(image);
    image_put(other);
}

struct named {
    struct rig *rig;
    int result;
    _Atomic bool ended;
};

static void *call_name(void *argument)
{
    struct named *named = argument;
    struct stat st;
    named->result = named->rig->datastore->ops->lookup(named->rig->datastore, "f", &st);
    atomic_store(&named->ended, true);
    return NULL;
}

void case_hanging_name(struct rig *rig)
{
    struct named named = {.rig = rig};
    struct image *image = ready(rig, "f");
    pthread_t thread;
    rig_faults(rig, "name hang\n");
    expect_equal(pthread_create(&thread, NULL, call_name, &named), 0);
    for (unsigned i = 0; i < 50; i++)
        expect_equal(rig_read(rig, image, 0, memory, SIZE, 0), 0);
    usleep(50000);
    expect(!atomic_load(&named.ended));
    rig_faults(rig, "");
    expect_equal(pthread_join(thread, NULL), 0);
    expect_equal(named.result, 0);
    image_put(image);
}

struct fenced {
    pthread_mutex_t mutex;
    pthread_cond_t called;
    bool is;
};

static void fenced(void *argument)
{
    struct fenced *f = argument;
    pthread_mutex_lock(&f->mutex);
    f->is = true;
    pthread_cond_broadcast(&f->called);
    pthread_mutex_unlock(&f->mutex);
}

static bool is_fenced(struct fenced *f, bool wait)
{
    pthread_mutex_lock(&f->mutex);
    while (wait && !f->is)
        pthread_cond_wait(&f->called, &f->mutex);
    bool is = f->is;
    pthread_mutex_unlock(&f->mutex);
    return is;
}

/* A write that hangs could still land: the fence waits for it, but not for those that came after the question. */
void case_fence_and_hang(struct rig *rig)
{
    struct fenced first = {.mutex = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER}, second = first;
    struct image *image = ready(rig, "f");
    struct rig_io io[2];
    struct iovec iov = {memory, SIZE};
    for (unsigned i = 0; i < 2; i++)
        io[i].io = (struct io){.verb = VERB_WRITE, .extent = {0, SIZE}, .iov = &iov, .iov_count = 1};
    rig_faults(rig, "write hang count=1\n");
    rig_start(rig, 0, image, &io[0]);
    image_fence(image, fenced, &first);
    for (unsigned i = 0; i < 20; i++)
        expect_equal(rig_write(rig, image, 0, memory, SIZE, 0), 0);
    usleep(50000);
    expect(!is_fenced(&first, false));
    rig_faults(rig, "write hang count=1 ms=1\n"); /* another line: the first goes on, the next write hangs */
    rig_start(rig, 1, image, &io[1]);
    expect(is_fenced(&first, true));
    expect_equal(rig_wait(&io[0]), 0);
    expect(!rig_ended(&io[1]));
    image_fence(image, fenced, &second);
    usleep(50000);
    expect(!is_fenced(&second, false));
    rig_faults(rig, "");
    expect(is_fenced(&second, true));
    expect_equal(rig_wait(&io[1]), 0);
    image_put(image);
}

/* Given up on, then landing; with memory that its owner has used for something else since. */
void case_late(struct rig *rig)
{
    struct fenced end = {.mutex = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER};
    struct image *image = ready(rig, "f");
    rig_faults(rig, "write late ms=50 count=1\nread late count=1\n");
    memset(memory, 6, SIZE);
    expect_equal(rig_write(rig, image, 0, memory, SIZE, IO_DIRECT), -EIO);
    memset(memory, 7, SIZE);
    expect_equal(rig_read(rig, image, 0, memory, SIZE, 0), -EIO);
    image_fence(image, fenced, &end);
    expect(is_fenced(&end, true));
    expect(rig_all(rig, image, 0, SIZE, 6, 0));
    /* a ghost may outlive its image: it lands before the datastore is closed */
    rig_faults(rig, "write late ms=100000\nzero late ms=100000 errno=ETIMEDOUT\n");
    expect_equal(rig_write(rig, image, 0, memory, SIZE, 0), -EIO);
    expect_equal(rig_verb(rig, image, VERB_ZERO, 0, SIZE, 0), image->limits.can_zero ? -ETIMEDOUT : -EIO);
    expect(rig_all(rig, image, 0, SIZE, 6, 0));
    image_put(image);
}

void case_checker(struct rig *rig)
{
    struct image *image = ready(rig, "f"), *other = ready(rig, "other");
    struct rig_io io[6];
    static unsigned char own[7][4096];
    struct iovec iov[7];
    static const struct {
        enum verb verb;
        uint64_t start;
        unsigned overlaps; /* with those before */
    } steps[] = {{VERB_WRITE, 0, 0}, {VERB_READ, 4096, 0}, {VERB_READ, 4096, 0}, {VERB_WRITE, 4095, 1},
        {VERB_FLUSH, 0, 0}, {VERB_RESIZE, 0, 1}};
    unsigned seen = backend_fault_overlaps();
    for (unsigned i = 0; i < 7; i++)
        iov[i] = (struct iovec){own[i], 4096};
    expect_equal(rig_write(rig, image, 0, memory, SIZE, 0), 0);
    rig_faults(rig, "any check\nread hang\nwrite hang\nflush hang\nresize hang\n");
    for (unsigned i = 0; i < 6; i++) {
        bool moves = steps[i].verb == VERB_READ || steps[i].verb == VERB_WRITE;
        uint64_t end = steps[i].verb == VERB_RESIZE ? 6000 : steps[i].start + 4096;
        io[i].io = (struct io){
            .verb = steps[i].verb, .extent = {steps[i].start, end}, .iov = moves ? &iov[i] : NULL, .iov_count = moves};
        rig_start(rig, 0, image, &io[i]);
        seen += steps[i].overlaps;
        expect_equal(backend_fault_overlaps(), seen);
    }
    struct rig_io elsewhere = {.io = {.verb = VERB_WRITE, .extent = {0, 4096}, .iov = &iov[6], .iov_count = 1}};
    rig_start(rig, 0, other, &elsewhere);
    expect_equal(backend_fault_overlaps(), seen);
    rig_faults(rig, "any check\n");
    for (unsigned i = 0; i < 6; i++)
        expect_equal(rig_wait(&io[i]), 0);
    expect_equal(rig_wait(&elsewhere), 0);
    for (unsigned i = 0; i < 10; i++)
        expect_equal(rig_write(rig, image, 0, memory, 4096, 0), 0);
    expect_equal(backend_fault_overlaps(), seen);
    image_put(image);
    image_put(other);
}

/* A line that is no rule is named in the log and does nothing; the others stand. */
void case_bad_rules(struct rig *rig)
{
    struct image *image = ready(rig, "f");
    rig_faults(rig,
        "write\nwrite explode\nscribble fail\nwrite fail errno=ENOSUCH\nwrite fail count=-1\nwrite fail count=\n"
        "write fail offset=1x\nwrite fail what=1\nwrite fail now\nread fail errno=ENODEV\n=\n");
    expect_equal(rig_write(rig, image, 0, memory, SIZE, 0), 0);
    expect_equal(rig_read(rig, image, 0, memory, SIZE, 0), -ENODEV);
    image_put(image);
}

void case_bad_urls(struct rig *rig)
{
    static const char *const urls[] = {"fault:", "fault:none:", "fault:fault:memory:", "fault:memory",
        "fault:local:relative", "fault:local:/does/not/exist", "memory:lots", "memory:1Q", "memory:-1",
        "memory:99999999T", "local:", "local:relative", "local:/does/not/exist"};
    static const struct datastore_ops *const backends[] = {&backend_local, &backend_memory, &backend_fault, NULL};
    for (unsigned i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        struct sentence why = {""};
        struct datastore *datastore = NULL;
        struct datastore_options options = {.name = "two", .url = urls[i], .threads = 1};
        expect_equal(datastore_new(&datastore, &options, backends, &why), 0);
        expect(datastore_open(datastore, &why) < 0);
        expect(strstr(why.text, "datastore two: "));
        expect(atomic_load(&datastore->away));
        datastore_free(datastore);
    }
}
