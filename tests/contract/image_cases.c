#include "image_cases.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KIB 1024ull
#define MIB (1024 * KIB)

/* Buffered, then direct. */
#define for_both_ways(flags) for (unsigned flags = 0; flags <= IO_DIRECT; flags += IO_DIRECT)

void case_unaligned(struct rig *rig)
{
    static const struct {
        uint64_t at;
        size_t size;
    } pieces[] = {{0, 1}, {511, 2}, {4095, 1}, {4097, 4096}, {12345, 70001}, {131071, 131074}, {513, 511}};
    unsigned char *wrote = rig_memory(MIB), *got = rig_memory(MIB);
    for_both_ways(flags)
    {
        struct image *image = rig_image(rig, flags ? "direct" : "buffered", MIB);
        memset(wrote, 0xa5, MIB);
        expect_equal(rig_write(rig, image, 0, wrote, MIB, flags), 0);
        for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
            rig_fill(wrote + pieces[i].at, pieces[i].size, i);
            expect_equal(rig_write(rig, image, pieces[i].at, wrote + pieces[i].at, pieces[i].size, flags), 0);
            expect_equal(rig_read(rig, image, pieces[i].at, got, pieces[i].size, flags), 0);
            expect(memcmp(got, wrote + pieces[i].at, pieces[i].size) == 0);
        }
        for_both_ways(read_flags)
        {
            expect_equal(rig_read(rig, image, 0, got, MIB, read_flags), 0);
            expect(memcmp(got, wrote, MIB) == 0);
        }
        image_put(image);
    }
    free(wrote);
    free(got);
}

void case_end_of_file(struct rig *rig)
{
    unsigned char *memory = rig_memory(16 * KIB);
    for_both_ways(flags)
    {
        struct image *image = rig_image(rig, flags ? "direct" : "buffered", 0);
        expect_equal(atomic_load(&image->size), 0);
        expect(rig_all(rig, image, 0, 8192, 0, flags));
        memset(memory, 7, 1000);
        expect_equal(rig_write(rig, image, 0, memory, 1000, flags), 0);
        expect_equal(atomic_load(&image->size), 1000);
        expect_equal(rig_size(rig, flags ? "direct" : "buffered"), 1000);
        memset(memory, 0xff, 16 * KIB);
        expect_equal(rig_read(rig, image, 0, memory, 16 * KIB, flags), 0);
        for (size_t i = 0; i < 16 * KIB; i++)
            expect_equal(memory[i], i < 1000 ? 7 : 0);
        expect(rig_all(rig, image, 1000, 5000, 0, flags));
        expect(rig_all(rig, image, 16 * KIB, 32 * KIB, 0, flags));
        expect_equal(rig_size(rig, flags ? "direct" : "buffered"), 1000);
        image_put(image);
    }
    free(memory);
}

void case_growth(struct rig *rig)
{
    unsigned char *memory = rig_memory(64 * KIB);
    memset(memory, 9, 64 * KIB);
    for_both_ways(flags)
    {
        const char *name = flags ? "direct" : "buffered";
        struct image *image = rig_image(rig, name, 1000);
        expect_equal(rig_write(rig, image, 5000, memory, 10, flags), 0);
        expect_equal(rig_size(rig, name), 5010);
        expect(rig_all(rig, image, 0, 5000, 0, flags));
        expect(rig_all(rig, image, 5000, 5010, 9, flags));
        expect_equal(rig_write(rig, image, MIB, memory, 64 * KIB, flags), 0);
        expect_equal(rig_size(rig, name), MIB + 64 * KIB);
        expect_equal(atomic_load(&image->size), MIB + 64 * KIB);
        expect(rig_all(rig, image, 5010, MIB, 0, flags));
        expect(rig_all(rig, image, MIB, MIB + 64 * KIB, 9, flags));
        image_put(image);
    }
    free(memory);
}

/* Walks [start, end) by MAP: how many bytes of it are data? */
static uint64_t mapped(struct rig *rig, struct image *image, uint64_t start, uint64_t end)
{
    uint64_t data = 0;
    while (start < end) {
        struct rig_io io = {.io = {.verb = VERB_MAP, .extent = {start, end}}};
        rig_start(rig, 0, image, &io);
        expect_equal(rig_wait(&io), 0);
        expect_equal(io.io.extent.start, start);
        expect(io.io.extent.end > start && io.io.extent.end <= end);
        data += io.io.map_data ? extent_length(io.io.extent) : 0;
        start = io.io.extent.end;
    }
    return data;
}

void case_holes(struct rig *rig)
{
    unsigned char *memory = rig_memory(128 * KIB);
    memset(memory, 3, 128 * KIB);
    for_both_ways(flags)
    {
        struct image *image = rig_image(rig, flags ? "direct" : "buffered", 1024 * MIB);
        bool maps = image->limits.can_map; /* else all is said to be data */
        expect_equal(mapped(rig, image, 0, 1024 * MIB), maps ? 0 : 1024 * MIB);
        expect(rig_all(rig, image, 512 * MIB, 514 * MIB, 0, flags));
        expect_equal(rig_write(rig, image, 256 * MIB, memory, 128 * KIB, flags), 0);
        expect_equal(rig_write(rig, image, 768 * MIB + 1, memory, 1, flags), 0);
        expect_equal(mapped(rig, image, 256 * MIB, 256 * MIB + 128 * KIB), 128 * KIB);
        expect_equal(mapped(rig, image, 768 * MIB + 1, 768 * MIB + 2), 1);
        uint64_t all = mapped(rig, image, 0, 1024 * MIB);
        expect(all >= 128 * KIB + 1 && (all <= 2 * MIB || !maps));
        expect(rig_all(rig, image, 255 * MIB, 256 * MIB, 0, flags));
        expect(rig_all(rig, image, 256 * MIB, 256 * MIB + 128 * KIB, 3, flags));
        expect(rig_all(rig, image, 256 * MIB + 128 * KIB, 257 * MIB, 0, flags));
        image_put(image);
    }
    free(memory);
}

static void zero_once(struct rig *rig, unsigned flags, unsigned unmap)
{
    char name[32];
    unsigned char *memory = rig_memory(MIB);
    snprintf(name, sizeof(name), "zero-%u-%u", flags, unmap);
    struct image *image = rig_image(rig, name, 0);
    memset(memory, 5, MIB);
    expect_equal(rig_write(rig, image, 0, memory, MIB, flags), 0);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    uint64_t before = rig_blocks(rig, name);
    expect_equal(rig_verb(rig, image, VERB_ZERO, 1001, 300 * KIB + 3, flags | unmap), 0);
    expect(rig_all(rig, image, 0, 1001, 5, flags));
    expect(rig_all(rig, image, 1001, 300 * KIB + 3, 0, flags));
    expect(rig_all(rig, image, 300 * KIB + 3, MIB, 5, flags));
    /* across the end: the size stays */
    expect_equal(rig_verb(rig, image, VERB_ZERO, MIB - 10, 2 * MIB, flags | unmap), 0);
    expect_equal(rig_size(rig, name), MIB);
    expect_equal(atomic_load(&image->size), MIB);
    expect(rig_all(rig, image, MIB - 10, MIB, 0, flags));
    expect(rig_all(rig, image, MIB - 20, MIB - 10, 5, flags));
    expect_equal(rig_verb(rig, image, VERB_ZERO, 3 * MIB, 4 * MIB, flags | unmap), 0);
    expect_equal(rig_size(rig, name), MIB);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    if (!unmap)
        expect(rig_blocks(rig, name) >= before);
    else if (image->limits.can_punch)
        expect(rig_blocks(rig, name) <= before - 128 * KIB);
    /* what was zeroed can be written again */
    expect_equal(rig_write(rig, image, 64 * KIB, memory, 64 * KIB, flags), 0);
    expect(rig_all(rig, image, 64 * KIB, 128 * KIB, 5, flags));
    image_put(image);
    free(memory);
}

void case_zero(struct rig *rig)
{
    for_both_ways(flags)
    {
        zero_once(rig, flags, 0);
        zero_once(rig, flags, IO_MAY_UNMAP);
    }
}

void case_resize(struct rig *rig)
{
    unsigned char *memory = rig_memory(MIB);
    memset(memory, 8, MIB);
    for_both_ways(flags)
    {
        const char *name = flags ? "direct" : "buffered";
        struct image *image = rig_image(rig, name, 0);
        expect_equal(rig_write(rig, image, 0, memory, MIB, flags), 0);
        expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, 100001, 0), 0);
        expect_equal(rig_size(rig, name), 100001);
        expect_equal(atomic_load(&image->size), 100001);
        expect(rig_all(rig, image, 0, 100001, 8, flags));
        expect(rig_all(rig, image, 100001, 200000, 0, flags));
        expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, MIB + 7, 0), 0);
        expect_equal(rig_size(rig, name), MIB + 7);
        expect(rig_all(rig, image, 0, 100001, 8, flags));
        expect(rig_all(rig, image, 100001, MIB + 7, 0, flags));
        expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, 0, 0), 0);
        expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, 4096, 0), 0);
        expect(rig_all(rig, image, 0, 4096, 0, flags));
        image_put(image);
    }
    free(memory);
}

void case_allocate(struct rig *rig)
{
    unsigned char *memory = rig_memory(64 * KIB);
    memset(memory, 6, 64 * KIB);
    struct image *image = rig_image(rig, "thick", 2 * MIB);
    expect_equal(rig_write(rig, image, 64 * KIB, memory, 64 * KIB, 0), 0);
    expect_equal(rig_verb(rig, image, VERB_ALLOCATE, 0, MIB, 0), 0);
    expect_equal(rig_size(rig, "thick"), 2 * MIB);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    expect(rig_blocks(rig, "thick") >= MIB);
    expect(rig_all(rig, image, 0, 64 * KIB, 0, 0));
    expect(rig_all(rig, image, 64 * KIB, 128 * KIB, 6, 0));
    expect(rig_all(rig, image, 128 * KIB, 2 * MIB, 0, 0));
    expect_equal(rig_verb(rig, image, VERB_ALLOCATE, 2 * MIB, 3 * MIB, 0), 0);
    expect_equal(rig_size(rig, "thick"), 2 * MIB);
    expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, 4 * MIB, 0), 0);
    expect(rig_all(rig, image, 2 * MIB, 4 * MIB, 0, IO_DIRECT));
    image_put(image);
    free(memory);
}

/* Many pieces of memory, of odd lengths at odd addresses, and aligned ones. */
void case_vectors(struct rig *rig)
{
    enum { PIECES = 300 };
    unsigned char *memory = rig_memory(2 * MIB), *got = rig_memory(MIB);
    for_both_ways(flags)
    {
        for (size_t odd = 0; odd < 2; odd++) {
            struct iovec iov[PIECES];
            size_t total = 0, used = 0;
            rig_fill(memory, 2 * MIB, 77);
            for (size_t i = 0; i < PIECES && total < MIB - 8192; i++, used++) {
                size_t size = odd ? 1 + i * 23 : 4096;
                iov[i] = (struct iovec){memory + i * 6000 / 4096 * 4096 + odd * 3, size};
                total += size;
            }
            char name[32];
            snprintf(name, sizeof(name), "vectors-%u-%zu", flags, odd);
            struct image *image = rig_image(rig, name, MIB);
            struct rig_io io = {.io = {.verb = VERB_WRITE,
                                    .extent = {4096, 4096 + total},
                                    .flags = flags,
                                    .iov = iov,
                                    .iov_count = (int)used}};
            rig_start(rig, 1, image, &io);
            expect_equal(rig_wait(&io), 0);
            expect_equal(rig_read(rig, image, 4096, got, total, 0), 0);
            size_t at = 0;
            for (size_t i = 0; i < used; at += iov[i].iov_len, i++)
                expect(memcmp(got + at, iov[i].iov_base, iov[i].iov_len) == 0);
            struct iovec back[2] = {{got, 4096 - odd}, {got + 8192, total - 4096 + odd}};
            rig_fill(got, MIB, 1);
            struct rig_io read = {
                .io = {.verb = VERB_READ, .extent = {4096, 4096 + total}, .flags = flags, .iov = back, .iov_count = 2}};
            rig_start(rig, 1, image, &read);
            expect_equal(rig_wait(&read), 0);
            memmove(got + 4096 - odd, got + 8192, total - 4096 + odd);
            at = 0;
            for (size_t i = 0; i < used; at += iov[i].iov_len, i++)
                expect(memcmp(got + at, iov[i].iov_base, iov[i].iov_len) == 0);
            image_put(image);
        }
    }
    free(memory);
    free(got);
}

void case_flush(struct rig *rig)
{
    unsigned char *memory = rig_memory(MIB);
    rig_fill(memory, MIB, 4);
    struct image *image = rig_image(rig, "flushed", 0);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    expect_equal(rig_write(rig, image, 0, memory, MIB, 0), 0);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, IO_DATA_ONLY), 0);
    expect_equal(rig_write(rig, image, MIB, memory, MIB, IO_DIRECT), 0);
    expect_equal(rig_verb(rig, image, VERB_FLUSH, 0, 0, 0), 0);
    expect_equal(rig->datastore->ops->sync_directory(rig->datastore, "flushed"), 0);
    image_put(image);
    free(memory);
}

void case_reopened(struct rig *rig)
{
    unsigned char *memory = rig_memory(MIB), *got = rig_memory(MIB);
    rig_fill(memory, MIB, 11);
    struct image *image = rig_image(rig, "kept", 0);
    expect_equal(rig_write(rig, image, 0, memory, MIB - 77, IO_DIRECT), 0);
    image_put(image_get(image));
    image_put(image);
    expect_equal(rig->datastore->ops->open_image(rig->datastore, "kept", true, &image), 0);
    expect_equal(atomic_load(&image->size), MIB - 77);
    expect_equal(rig_read(rig, image, 0, got, MIB - 77, IO_DIRECT), 0);
    expect(memcmp(got, memory, MIB - 77) == 0);
    image_put(image);
    free(memory);
    free(got);
}

void case_read_only(struct rig *rig)
{
    unsigned char *memory = rig_memory(4096);
    struct image *image = rig_image(rig, "sealed", 8192);
    image_put(image);
    expect_equal(rig->datastore->ops->open_image(rig->datastore, "sealed", false, &image), 0);
    expect_equal(rig_read(rig, image, 0, memory, 4096, IO_DIRECT), 0);
    memset(memory, 1, 4096);
    for_both_ways(flags) expect(rig_write(rig, image, 0, memory, 4096, flags) < 0);
    expect(rig_all(rig, image, 0, 8192, 0, 0));
    image_put(image);
    free(memory);
}
