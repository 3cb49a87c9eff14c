#include "raw_cases.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define KIB 1024ull
#define MIB (1024 * KIB)

static uint64_t size_of(struct raw_rig *raw)
{
    return atomic_load(&raw->image->size);
}

void raw_case_limits(struct raw_rig *raw)
{
    const struct image_limits *limits = &raw->image->limits;
    expect(limits->block == 512 || limits->block == 4096);
    expect(limits->max_transfer >= MIB);
    expect(size_of(raw) >= 64 * MIB && size_of(raw) % limits->block == 0);
}

void raw_case_read_back(struct raw_rig *raw)
{
    struct rig *rig = &raw->rig;
    struct image *image = raw->image;
    uint32_t block = image->limits.block;
    unsigned char *wrote = rig_memory(2 * MIB), *got = rig_memory(2 * MIB);
    size_t sizes[] = {block, 2 * block, 7 * block, 64 * KIB, 256 * KIB + block, MIB - block, MIB};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (unsigned odd = 0; odd < 2; odd++) { /* memory anywhere */
            uint64_t at = (i + 1) * 3 * block;
            rig_fill(wrote + odd, sizes[i], i * 2 + odd);
            memset(got, 0, sizes[i] + 1);
            expect_equal(rig_write(rig, image, at, wrote + odd, sizes[i], IO_DIRECT), 0);
            expect_equal(rig_read(rig, image, at, got + !odd, sizes[i], IO_DIRECT), 0);
            expect(memcmp(wrote + odd, got + !odd, sizes[i]) == 0);
        }
    }
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    free(wrote);
    free(got);
}

void raw_case_ends(struct raw_rig *raw)
{
    struct rig *rig = &raw->rig;
    struct image *image = raw->image;
    uint64_t size = size_of(raw), block = image->limits.block;
    unsigned char *memory = rig_memory(64 * KIB);
    memset(memory, 3, 64 * KIB);
    expect_equal(rig_write(rig, image, size - 32 * KIB, memory, 32 * KIB, 0), 0);
    expect(rig_all(rig, image, size - 32 * KIB, size, 3, 0));
    expect(rig_all(rig, image, size, size + 32 * KIB, 0, 0));
    memset(memory, 9, 64 * KIB);
    expect_equal(rig_read(rig, image, size - block, memory, 8 * KIB, 0), 0);
    for (size_t i = 0; i < 8 * KIB; i++)
        expect_equal(memory[i], i < block ? 3 : 0);
    expect_equal(rig_write(rig, image, size, memory, 4 * KIB, 0), -ENOSPC);
    expect_equal(rig_write(rig, image, size - 4 * KIB, memory, 8 * KIB, 0), -ENOSPC);
    expect(rig_all(rig, image, size - 32 * KIB, size, 3, 0));
    expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, size / 2, 0), -EINVAL);
    expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, size * 2, 0), -EINVAL);
    expect_equal(size_of(raw), size);
    expect_equal(rig_verb(rig, image, VERB_ZERO, size - 8 * KIB, size + 8 * KIB, 0), 0);
    expect_equal(size_of(raw), size);
    expect(rig_all(rig, image, size - 8 * KIB, size, 0, 0));
    expect(rig_all(rig, image, size - 32 * KIB, size - 8 * KIB, 3, 0));
    free(memory);
}

void raw_case_zero(struct raw_rig *raw)
{
    struct rig *rig = &raw->rig;
    struct image *image = raw->image;
    unsigned char *memory = rig_memory(MIB);
    memset(memory, 5, MIB);
    for (unsigned unmap = 0; unmap <= IO_MAY_UNMAP; unmap += IO_MAY_UNMAP) {
        for (unsigned i = 0; i < 8; i++)
            expect_equal(rig_write(rig, image, i * MIB, memory, MIB, 0), 0);
        expect_equal(rig_verb(rig, image, VERB_ZERO, 12 * KIB, 300 * KIB, unmap), 0);
        expect_equal(rig_verb(rig, image, VERB_ZERO, 2 * MIB, 7 * MIB + 8 * KIB, unmap), 0);
        expect(rig_all(rig, image, 0, 12 * KIB, 5, 0));
        expect(rig_all(rig, image, 12 * KIB, 300 * KIB, 0, 0));
        expect(rig_all(rig, image, 300 * KIB, 2 * MIB, 5, 0));
        expect(rig_all(rig, image, 2 * MIB, 7 * MIB + 8 * KIB, 0, 0));
        expect(rig_all(rig, image, 7 * MIB + 8 * KIB, 8 * MIB, 5, 0));
        expect_equal(rig_write(rig, image, 3 * MIB, memory, 64 * KIB, 0), 0);
        expect(rig_all(rig, image, 3 * MIB, 3 * MIB + 64 * KIB, 5, 0));
        expect(rig_all(rig, image, 3 * MIB + 64 * KIB, 4 * MIB, 0, 0));
        expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    }
    expect_equal(rig_verb(rig, image, VERB_ZERO, 0, size_of(raw), IO_MAY_UNMAP), 0);
    expect(rig_all(rig, image, 0, 9 * MIB, 0, 0));
    expect(rig_all(rig, image, size_of(raw) - MIB, size_of(raw), 0, 0));
    free(memory);
}

void raw_case_vectors(struct raw_rig *raw)
{
    enum { PIECES = 23 };
    struct rig *rig = &raw->rig;
    struct image *image = raw->image;
    unsigned char *memory = rig_memory(2 * MIB), *got = rig_memory(MIB);
    struct iovec iov[PIECES];
    size_t total = 0, at = 0;
    rig_fill(memory, 2 * MIB, 7);
    for (size_t i = 0; i < PIECES; i++) {
        size_t length = i == PIECES - 1 ? (MIB - total) : 1 + i * 1777 % 90000;
        iov[i] = (struct iovec){memory + i * 61000 + i, length};
        total += length;
    }
    struct rig_io io = {.io = {.verb = VERB_WRITE, .extent = {4096, 4096 + MIB}, .iov = iov, .iov_count = PIECES}};
    expect_equal(total, MIB);
    rig_start(rig, 1, image, &io);
    expect_equal(rig_wait(&io), 0);
    struct iovec back[3] = {{got, 1}, {got + 1, 300 * KIB}, {got + 1 + 300 * KIB, MIB - 1 - 300 * KIB}};
    struct rig_io read = {.io = {.verb = VERB_READ, .extent = {4096, 4096 + MIB}, .iov = back, .iov_count = 3}};
    rig_start(rig, 0, image, &read);
    expect_equal(rig_wait(&read), 0);
    for (size_t i = 0; i < PIECES; at += iov[i].iov_len, i++)
        expect(memcmp(got + at, iov[i].iov_base, iov[i].iov_len) == 0);
    free(memory);
    free(got);
}

/* What MAP calls a hole reads as zero, and what was written is data. */
void raw_case_map(struct raw_rig *raw)
{
    struct rig *rig = &raw->rig;
    struct image *image = raw->image;
    unsigned char *memory = rig_memory(MIB);
    uint64_t at = 0, holes = 0;
    memset(memory, 6, MIB);
    expect_equal(rig_verb(rig, image, VERB_ZERO, 0, 16 * MIB, IO_MAY_UNMAP), 0);
    expect_equal(rig_write(rig, image, 4 * MIB, memory, MIB, 0), 0);
    expect_equal(rig_write(rig, image, 9 * MIB, memory, 64 * KIB, 0), 0);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    while (at < 16 * MIB) {
        struct rig_io io = {.io = {.verb = VERB_MAP, .extent = {at, 16 * MIB}}};
        rig_start(rig, 0, image, &io);
        expect_equal(rig_wait(&io), 0);
        struct extent found = io.io.extent;
        expect(found.start == at && found.end > at && found.end <= 16 * MIB);
        if (!io.io.map_data) {
            expect(rig_all(rig, image, found.start, found.end, 0, 0));
            holes += extent_length(found);
        }
        at = found.end;
    }
    expect(holes <= 16 * MIB - MIB - 64 * KIB);
    if (image->limits.can_map && image->limits.can_punch)
        expect(holes >= 8 * MIB);
    free(memory);
}

void raw_case_thousand(struct raw_rig *raw)
{
    enum { COUNT = 1000, SIZE = 4096 };
    struct rig *rig = &raw->rig;
    unsigned char *memory = rig_memory(COUNT * SIZE), *got = rig_memory(COUNT * SIZE);
    struct rig_io *ios = calloc(COUNT, sizeof(*ios));
    struct iovec *iov = calloc(COUNT, sizeof(*iov));
    rig_fill(memory, COUNT * SIZE, 5);
    for (unsigned round = 0; round < 3; round++) {
        unsigned char *from = round == 1 ? got : memory;
        for (unsigned i = 0; i < COUNT; i++) {
            unsigned at = i * 7 % COUNT * SIZE;
            iov[i] = (struct iovec){from + at, SIZE};
            ios[i].io = (struct io){.verb = round == 1 ? VERB_READ : VERB_WRITE,
                .extent = {at, at + SIZE},
                .flags = IO_DIRECT,
                .iov = &iov[i],
                .iov_count = 1};
            rig_start(rig, i, raw->image, &ios[i]);
        }
        for (unsigned i = 0; i < COUNT; i++)
            expect_equal(rig_wait(&ios[i]), 0);
    }
    expect(memcmp(memory, got, COUNT * SIZE) == 0);
    for (unsigned i = 0; i < COUNT; i++)
        expect_equal(ios[i].done, 1);
    free(memory);
    free(got);
    free(ios);
    free(iov);
}

static unsigned next(unsigned *random)
{
    *random = *random * 1664525u + 1013904223u;
    return *random >> 8;
}

void raw_case_model(struct raw_rig *raw)
{
    enum { SPACE = 8 << 20 };
    struct rig *rig = &raw->rig;
    struct image *image = raw->image;
    unsigned char *model = rig_memory(SPACE), *memory = rig_memory(2 * MIB);
    size_t block = image->limits.block;
    unsigned random = 4711;
    memset(model, 0, SPACE);
    expect_equal(rig_verb(rig, image, VERB_ZERO, 0, SPACE, 0), 0);
    for (unsigned i = 0; i < 800; i++) {
        size_t size = (1 + next(&random) % (1u << next(&random) % 20) / block) * block;
        uint64_t at = next(&random) % ((SPACE - size) / block + 1) * block;
        unsigned odd = next(&random) % 2;
        switch (next(&random) % 8) {
        case 0:
            expect_equal(rig_verb(rig, image, VERB_ZERO, at, at + size, next(&random) % 2 ? IO_MAY_UNMAP : 0), 0);
            memset(model + at, 0, size);
            break;
        case 1:
            expect_equal(next(&random) % 2 ? rig_verb(rig, image, VERB_FLUSH, 0, 0, 0)
                                           : rig_verb(rig, image, VERB_ALLOCATE, at, at + size, 0),
                0);
            break;
        case 2:
        case 3:
        case 4:
            expect_equal(rig_read(rig, image, at, memory + odd, size, 0), 0);
            expect(memcmp(memory + odd, model + at, size) == 0);
            break;
        default:
            rig_fill(memory + odd, size, random);
            expect_equal(rig_write(rig, image, at, memory + odd, size, 0), 0);
            memcpy(model + at, memory + odd, size);
        }
    }
    for (uint64_t at = 0; at < SPACE; at += MIB) {
        expect_equal(rig_read(rig, image, at, memory, MIB, 0), 0);
        expect(memcmp(memory, model + at, MIB) == 0);
    }
    free(model);
    free(memory);
}

void raw_case_reopened(struct raw_rig *raw)
{
    struct rig *rig = &raw->rig;
    struct sentence why = {""};
    unsigned char *memory = rig_memory(MIB), *got = rig_memory(MIB);
    rig_fill(memory, MIB, 21);
    expect_equal(rig_write(rig, raw->image, 5 * MIB, memory, MIB, 0), 0);
    expect_equal(rig_verb(rig, raw->image, VERB_FLUSH, 0, 0, 0), 0);
    uint64_t size = size_of(raw);
    image_put(raw->image);
    raw->image = NULL;
    expect_equal(raw_rig_again(raw, rig->datastore->identity.mount, true, &raw->image, &why), 0);
    expect_equal(size_of(raw), size);
    expect_equal(rig_read(rig, raw->image, 5 * MIB, got, MIB, 0), 0);
    expect(memcmp(got, memory, MIB) == 0);
    free(memory);
    free(got);
}

void raw_case_read_only(struct raw_rig *raw)
{
    struct rig *rig = &raw->rig;
    struct sentence why = {""};
    struct image *sealed;
    unsigned char *memory = rig_memory(4096);
    memset(memory, 1, 4096);
    expect_equal(rig_write(rig, raw->image, 0, memory, 4096, 0), 0);
    expect_equal(raw_rig_again(raw, 0, false, &sealed, &why), 0);
    expect(rig_all(rig, sealed, 0, 4096, 1, 0));
    memset(memory, 2, 4096);
    expect(rig_write(rig, sealed, 0, memory, 4096, 0) < 0);
    expect(rig_verb(rig, sealed, VERB_ZERO, 0, 4096, 0) < 0);
    expect_equal(rig_verb(rig, sealed, VERB_FLUSH, 0, 0, 0), 0);
    expect(rig_all(rig, sealed, 0, 4096, 1, 0));
    image_put(sealed);
    free(memory);
}

void raw_case_refresh(struct raw_rig *raw)
{
    uint64_t size = size_of(raw);
    expect_equal(raw->ops->refresh(raw->image), 0);
    expect_equal(size_of(raw), size);
}

struct fenced {
    pthread_mutex_t mutex;
    pthread_cond_t called;
    unsigned calls;
};

static void fenced(void *argument)
{
    struct fenced *told = argument;
    pthread_mutex_lock(&told->mutex);
    told->calls++;
    pthread_cond_broadcast(&told->called);
    pthread_mutex_unlock(&told->mutex);
}

void raw_case_fence(struct raw_rig *raw)
{
    enum { COUNT = 64, SIZE = 4096 };
    struct fenced told = {.mutex = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER};
    unsigned char *memory = rig_memory(COUNT * SIZE);
    struct rig_io ios[COUNT];
    struct iovec iov[COUNT];
    memset(memory, 2, COUNT * SIZE);
    for (unsigned i = 0; i < COUNT; i++) {
        iov[i] = (struct iovec){memory + i * SIZE, SIZE};
        ios[i].io = (struct io){
            .verb = VERB_WRITE, .extent = {i * SIZE, (i + 1) * SIZE}, .iov = &iov[i], .iov_count = 1};
        rig_start(&raw->rig, i, raw->image, &ios[i]);
    }
    image_fence(raw->image, fenced, &told);
    pthread_mutex_lock(&told.mutex);
    while (told.calls == 0)
        pthread_cond_wait(&told.called, &told.mutex);
    expect_equal(told.calls, 1);
    pthread_mutex_unlock(&told.mutex);
    for (unsigned i = 0; i < COUNT; i++)
        expect_equal(rig_wait(&ios[i]), 0);
    free(memory);
}

/* Skips where the device has no such thing. */
static void reserve(struct raw_rig *raw, uint64_t key)
{
    struct sentence why = {""};
    int error = raw->ops->reserve ? raw->ops->reserve(raw->image, key, false, &why) : -EOPNOTSUPP;
    if (error == -EOPNOTSUPP) {
        raw_rig_close(raw);
        rig_skip("there are no reservations here");
    }
    if (error)
        rig_fail(__FILE__, __LINE__, why.text);
}

void raw_case_reserve(struct raw_rig *raw)
{
    struct rig *rig = &raw->rig;
    struct sentence why = {""};
    struct image *other;
    unsigned char *memory = rig_memory(4096);
    memset(memory, 4, 4096);
    expect_equal(rig_write(rig, raw->image, 0, memory, 4096, 0), 0);
    reserve(raw, 0xabc1);
    expect_equal(rig_write(rig, raw->image, 0, memory, 4096, 0), 0);
    expect_equal(raw->ops->reserve(raw->image, 0xabc1, false, &why), 0);
    expect_equal(raw_rig_again(raw, 77, true, &other, &why), 0);
    expect(rig_all(rig, other, 0, 4096, 4, 0));
    memset(memory, 5, 4096);
    expect(rig_write(rig, other, 0, memory, 4096, 0) < 0);
    expect_equal(raw->ops->reserve(other, 0xabc2, false, &why), -EBUSY);
    expect(strstr(why.text, "abc1"));
    expect(rig_all(rig, raw->image, 0, 4096, 4, 0));
    raw->ops->release(raw->image, 0xabc1);
    expect_equal(raw->ops->reserve(other, 0xabc2, false, &why), 0);
    expect_equal(rig_write(rig, other, 0, memory, 4096, 0), 0);
    expect(rig_all(rig, other, 0, 4096, 5, 0));
    raw->ops->release(other, 0xabc2);
    image_put(other);
    free(memory);
}

void raw_case_takeover(struct raw_rig *raw)
{
    struct rig *rig = &raw->rig;
    struct sentence why = {""};
    struct image *other;
    unsigned char *memory = rig_memory(4096);
    memset(memory, 7, 4096);
    reserve(raw, 0xdef1);
    expect_equal(rig_write(rig, raw->image, 0, memory, 4096, 0), 0);
    expect_equal(raw_rig_again(raw, 78, true, &other, &why), 0);
    expect_equal(raw->ops->reserve(other, 0xdef2, true, &why), 0);
    memset(memory, 8, 4096);
    expect_equal(rig_write(rig, other, 0, memory, 4096, 0), 0);
    memset(memory, 9, 4096);
    expect_equal(rig_write(rig, raw->image, 0, memory, 4096, 0), -EBUSY);
    expect_equal(rig_write(rig, raw->image, 0, memory, 4096, 0), -EBUSY);
    expect(rig_all(rig, other, 0, 4096, 8, 0));
    raw->ops->release(raw->image, 0xdef1);
    expect_equal(rig_write(rig, other, 4096, memory, 4096, 0), 0);
    raw->ops->release(other, 0xdef2);
    image_put(other);
    free(memory);
}
