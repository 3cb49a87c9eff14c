/* Images under load: many requests in flight, neighbours within one page, a model, the fence, a full datastore. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/local.h"
#include "image_cases.h"

#define MIB (1024ull * 1024)

/* A thousand in flight at once, from two reactors, in both ways, for guests and for copiers; each is done once. */
void case_thousand(struct rig *rig)
{
    enum { COUNT = 1000, SIZE = 4096 };
    unsigned char *memory = rig_memory(COUNT * SIZE), *got = rig_memory(COUNT * SIZE);
    struct rig_io *ios = calloc(COUNT, sizeof(*ios));
    struct iovec *iov = calloc(COUNT, sizeof(*iov));
    struct image *image = rig_image(rig, "busy", 0);
    rig_fill(memory, COUNT * SIZE, 5);
    for (unsigned round = 0; round < 3; round++) {
        unsigned char *from = round == 1 ? got : memory;
        for (unsigned i = 0; i < COUNT; i++) {
            unsigned at = i * 7 % COUNT * SIZE; /* 7 and COUNT have no common factor */
            iov[i] = (struct iovec){from + at, SIZE};
            ios[i].io = (struct io){.verb = round == 1 ? VERB_READ : VERB_WRITE,
                .extent = {at, at + SIZE},
                .flags = (i % 3 ? IO_DIRECT : 0) | (i % 5 ? 0 : IO_COPY),
                .iov = &iov[i],
                .iov_count = 1};
            rig_start(rig, i, image, &ios[i]);
        }
        for (unsigned i = 0; i < COUNT; i++)
            expect_equal(rig_wait(&ios[i]), 0);
        expect_equal(atomic_load(&image->in_flight), 0);
        expect_equal(datastore_guests(rig->datastore) + datastore_copies(rig->datastore), 0);
    }
    expect(memcmp(memory, got, COUNT * SIZE) == 0);
    image_put(image);
    datastore_free(rig->datastore); /* whatever could still call done has ended */
    rig->datastore = NULL;
    for (unsigned i = 0; i < COUNT; i++)
        expect_equal(ios[i].done, 1);
    free(memory);
    free(got);
    free(ios);
    free(iov);
}

/* Writers of single blocks side by side, so that direct and buffered ones meet in the same page. Each block has at most
 * one request in flight, as the region lock has it. What was written last is there. */
void case_neighbours(struct rig *rig)
{
    enum { BLOCKS = 64, ROUNDS = 60 };
    struct image *image = rig_image(rig, "neighbours", 0);
    size_t block = image->limits.block, size = BLOCKS * block;
    unsigned char *memory = rig_memory(size), *got = rig_memory(size);
    struct rig_io ios[BLOCKS];
    struct iovec iov[BLOCKS];
    memset(memory, 0, size);
    expect_equal(rig_write(rig, image, 0, memory, size, IO_DIRECT), 0);
    unsigned random = 1;
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < BLOCKS; i++) {
            if (round > 0)
                expect_equal(rig_wait(&ios[i]), 0);
            random = random * 1664525u + 1013904223u;
            rig_fill(memory + i * block, block, random);
            iov[i] = (struct iovec){memory + i * block, block};
            ios[i].io = (struct io){.verb = VERB_WRITE,
                .extent = {i * block, (i + 1) * block},
                .flags = random >> 30 & 1 ? IO_DIRECT : 0,
                .iov = &iov[i],
                .iov_count = 1};
            rig_start(rig, i, image, &ios[i]);
        }
    }
    for (unsigned i = 0; i < BLOCKS; i++)
        expect_equal(rig_wait(&ios[i]), 0);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    expect_equal(rig_read(rig, image, 0, got, size, IO_DIRECT), 0);
    expect(memcmp(memory, got, size) == 0);
    expect_equal(rig_read(rig, image, 0, got, size, 0), 0);
    expect(memcmp(memory, got, size) == 0);
    image_put(image);
    free(memory);
    free(got);
}

struct model {
    unsigned char bytes[4 * MIB];
    uint64_t size;
};

static unsigned next(unsigned *random)
{
    *random = *random * 1664525u + 1013904223u;
    return *random >> 8;
}

/* 1 byte to 1 MiB, small ones more often. */
static size_t some_size(unsigned *random)
{
    return 1 + next(random) % (1u << next(random) % 21);
}

static void step(struct rig *rig, struct image *image, struct model *model, unsigned char *memory, unsigned *random)
{
    size_t size = some_size(random);
    uint64_t at = next(random) % (sizeof(model->bytes) - size + 1);
    unsigned flags = next(random) % 2 ? IO_DIRECT : 0;
    if (next(random) % 2) {
        at &= ~4095ull;
        size = size > 4095 ? size & ~4095ull : 4096;
        if (at + size > sizeof(model->bytes))
            at = 0;
    }
    uint64_t end = at + size, inside = end < model->size ? end : model->size;
    switch (next(random) % 8) {
    case 0:
        expect_equal(rig_verb(rig, image, VERB_ZERO, at, end, next(random) % 2 ? IO_MAY_UNMAP : 0), 0);
        if (at < inside)
            memset(model->bytes + at, 0, inside - at);
        return;
    case 1:
        if (next(random) % 4 == 0) {
            expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, at, 0), 0);
            memset(model->bytes + at, 0, sizeof(model->bytes) - at);
            model->size = at;
        } else {
            expect_equal(rig_verb(rig, image, VERB_ALLOCATE, at, end, 0), 0);
        }
        return;
    case 2:
    case 3:
    case 4:
        expect_equal(rig_read(rig, image, at, memory + (flags ? 0 : 1), size, flags), 0);
        expect(memcmp(memory + (flags ? 0 : 1), model->bytes + at, size) == 0);
        return;
    default:
        rig_fill(memory, size, *random);
        expect_equal(rig_write(rig, image, at, memory, size, flags), 0);
        memcpy(model->bytes + at, memory, size);
        if (end > model->size)
            model->size = end;
        return;
    }
}

void case_model(struct rig *rig)
{
    struct model *model = calloc(1, sizeof(*model));
    unsigned char *memory = rig_memory(2 * MIB);
    struct image *image = rig_image(rig, "model", 0);
    unsigned random = 42;
    for (unsigned i = 0; i < 1500; i++) {
        step(rig, image, model, memory, &random);
        expect_equal(atomic_load(&image->size), model->size);
    }
    expect_equal(rig_size(rig, "model"), model->size);
    for (uint64_t at = 0; at < sizeof(model->bytes); at += MIB) {
        expect_equal(rig_read(rig, image, at, memory, MIB, IO_DIRECT), 0);
        expect(memcmp(memory, model->bytes + at, MIB) == 0);
    }
    image_put(image);
    free(memory);
    free(model);
}

struct fenced {
    pthread_mutex_t mutex;
    pthread_cond_t called;
    unsigned calls;
};

static void fenced(void *argument)
{
    struct fenced *fenced = argument;
    pthread_mutex_lock(&fenced->mutex);
    fenced->calls++;
    pthread_cond_broadcast(&fenced->called);
    pthread_mutex_unlock(&fenced->mutex);
}

static void wait_fenced(struct fenced *fenced, unsigned calls)
{
    pthread_mutex_lock(&fenced->mutex);
    while (fenced->calls < calls)
        pthread_cond_wait(&fenced->called, &fenced->mutex);
    expect_equal(fenced->calls, calls);
    pthread_mutex_unlock(&fenced->mutex);
}

/* Fences with nothing in flight, and among writes that never cease: each comes once, and none waits for ever. */
void case_fence(struct rig *rig)
{
    enum { SIZE = 4096, FENCES = 20 };
    struct fenced fenced_now = {.mutex = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER};
    unsigned char *memory = rig_memory(2 * SIZE);
    struct image *image = rig_image(rig, "fenced", 0);
    struct rig_io ios[2];
    struct iovec iov[2];
    memset(memory, 2, 2 * SIZE);
    image_fence(image, fenced, &fenced_now);
    wait_fenced(&fenced_now, 1);
    for (unsigned i = 0; i < FENCES * 8; i++) {
        unsigned n = i % 2;
        if (i > 1)
            expect_equal(rig_wait(&ios[n]), 0);
        iov[n] = (struct iovec){memory + n * SIZE, SIZE};
        ios[n].io = (struct io){.verb = VERB_WRITE,
            .extent = {i * SIZE, (i + 1) * SIZE},
            .flags = i % 3 ? IO_DIRECT : 0,
            .iov = &iov[n],
            .iov_count = 1};
        rig_start(rig, n, image, &ios[n]);
        if (i % 8 == 7)
            image_fence(image, fenced, &fenced_now);
    }
    expect_equal(rig_wait(&ios[0]), 0);
    expect_equal(rig_wait(&ios[1]), 0);
    wait_fenced(&fenced_now, 1 + FENCES);
    image_put(image);
    free(memory);
}

/* Writes until there is no room: -ENOSPC, nothing that was acknowledged is lost, and room that is given back is there.
 */
void case_full(struct rig *rig)
{
    enum { LIMIT = 64 };
    unsigned char *memory = rig_memory(MIB);
    for (unsigned way = 0; way < 2; way++) {
        unsigned flags = way ? IO_DIRECT : 0, written = 0;
        struct image *image = rig_image(rig, way ? "direct" : "buffered", LIMIT * MIB);
        int error = 0;
        while (written < LIMIT && !error) {
            memset(memory, (int)written + 1, MIB);
            error = rig_write(rig, image, written * MIB, memory, MIB, flags);
            written += !error;
        }
        expect_equal(error, -ENOSPC);
        expect(written > 4 && written < 20);
        expect_equal(rig_verb(rig, image, VERB_ALLOCATE, 40 * MIB, 60 * MIB, 0), -ENOSPC);
        for (unsigned i = 0; i < written; i++)
            expect(rig_all(rig, image, i * MIB, (i + 1) * MIB, (int)i + 1, flags));
        expect_equal(rig_verb(rig, image, VERB_ZERO, 0, 2 * MIB, IO_MAY_UNMAP), 0);
        expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
        memset(memory, 99, MIB);
        expect_equal(rig_write(rig, image, 0, memory, MIB, flags), 0);
        expect(rig_all(rig, image, 0, MIB, 99, flags));
        expect(rig_all(rig, image, MIB, 2 * MIB, 0, flags));
        expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, 0, 0), 0);
        expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
        image_put(image);
    }
    free(memory);
}

struct blocker {
    struct work work;
    pthread_mutex_t mutex;
};

static void block(struct work *work)
{
    struct blocker *blocker = container_of(work, struct blocker, work);
    pthread_mutex_lock(&blocker->mutex);
    pthread_mutex_unlock(&blocker->mutex);
}

static uint64_t room(struct rig *rig)
{
    struct statvfs st;
    expect_equal(rig->datastore->ops->statfs(rig->datastore, &st), 0);
    return (uint64_t)st.f_bavail * st.f_frsize;
}

/* The room of a removed file is there at once, even if its blocks are given back later. */
void case_removed_room(struct rig *rig)
{
    enum { PIECES = 10 };
    struct blocker blocker = {.work.run = block, .mutex = PTHREAD_MUTEX_INITIALIZER};
    bool late = rig->kind == RIG_LOCAL;
    if (rig->kind >= RIG_FAULT_MEMORY)
        return; /* the wrapped one's business */
    unsigned char *memory = rig_memory(MIB);
    struct rig_io ios[PIECES];
    struct iovec iov = {memory, MIB};
    memset(memory, 3, MIB);
    struct image *image = rig_image(rig, "removed", PIECES * MIB);
    for (unsigned i = 0; i < PIECES; i++)
        expect_equal(rig_write(rig, image, i * MIB, memory, MIB, 0), 0);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    image_close(image);
    pthread_mutex_lock(&blocker.mutex);
    if (late)
        pool_run(((struct local *)rig->datastore->state)->cutter.pool, &blocker.work);
    uint64_t before = room(rig);
    expect_equal(rig->datastore->ops->remove(rig->datastore, "removed", false), 0);
    expect(room(rig) >= before + PIECES * MIB);
    image = rig_image(rig, "next", PIECES * MIB);
    for (unsigned i = 0; i < PIECES; i++) {
        ios[i].io = (struct io){
            .verb = VERB_WRITE, .extent = {i * MIB, (i + 1) * MIB}, .flags = IO_DIRECT, .iov = &iov, .iov_count = 1};
        rig_start(rig, 0, image, &ios[i]);
    }
    usleep(late ? 200000 : 0);
    bool waits = false;
    for (unsigned i = 0; i < PIECES; i++)
        waits |= !rig_ended(&ios[i]);
    expect(waits || !late);
    pthread_mutex_unlock(&blocker.mutex);
    for (unsigned i = 0; i < PIECES; i++)
        expect_equal(rig_wait(&ios[i]), 0);
    expect(rig_all(rig, image, 0, PIECES * MIB, 3, 0));
    image_put(image);
    free(memory);
}
