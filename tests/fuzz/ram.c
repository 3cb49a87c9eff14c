#include "ram.h"

#include <stdlib.h>
#include <string.h>

struct ram_image {
    struct image image;
    struct ram *ram;
};

static const struct datastore_ops no_names = {.scheme = "volume"};
static const struct datastore_ops *const backends[] = {&no_names, NULL};

bool ram_open(struct ram *ram, const uint8_t *kept, uint64_t size)
{
    struct sentence why;
    const struct datastore_options options = {
        .name = "fuzz", .url = "volume:ram", .timeout_ns = 1000000000, .threads = 1};
    *ram = (struct ram){.kept = kept, .size = size};
    ram->bytes = malloc(size);
    ram->touched = calloc(size / RAM_PAGE + 1, 1);
    if (!ram->bytes || !ram->touched || datastore_new(&ram->datastore, &options, backends, &why) < 0)
        return false;
    memcpy(ram->bytes, kept, size);
    return true;
}

void ram_close(struct ram *ram)
{
    datastore_free(ram->datastore);
    free(ram->bytes);
    free(ram->touched);
}

void *ram_page(struct ram *ram, uint64_t at)
{
    ram->touched[at / RAM_PAGE] = true;
    return ram->bytes + at / RAM_PAGE * RAM_PAGE;
}

void ram_restore(struct ram *ram)
{
    for (uint64_t at = 0; at < ram->size; at += RAM_PAGE)
        if (ram->touched[at / RAM_PAGE])
            memcpy(ram->bytes + at, ram->kept + at, RAM_PAGE);
    memset(ram->touched, 0, ram->size / RAM_PAGE + 1);
}

/* ---- the image ---- */

static struct ram *ram_of(const struct image *image)
{
    return container_of(image, struct ram_image, image)->ram;
}

static void touch(struct ram *ram, struct extent extent)
{
    for (uint64_t at = extent.start / RAM_PAGE * RAM_PAGE; at < extent.end; at += RAM_PAGE)
        ram_page(ram, at);
}

static int execute(struct image *image, struct io *io)
{
    struct ram *ram = ram_of(image);
    uint64_t at = io->extent.start, size = atomic_load(&image->size);
    if (io->verb == VERB_FLUSH || io->verb == VERB_MAP || io->verb == VERB_ALLOCATE) {
        io->map_data = true;
        return 0;
    }
    if (io->verb == VERB_RESIZE || io->extent.end > size)
        return io->verb == VERB_READ ? -EIO : -ENOSPC;
    if (io->verb != VERB_READ)
        touch(ram, io->extent);
    if (io->verb == VERB_ZERO)
        memset(ram->bytes + at, 0, io->extent.end - at);
    else
        for (int i = 0; i < io->iov_count; at += io->iov[i].iov_len, i++)
            if (io->verb == VERB_READ)
                memcpy(io->iov[i].iov_base, ram->bytes + at, io->iov[i].iov_len);
            else
                memcpy(ram->bytes + at, io->iov[i].iov_base, io->iov[i].iov_len);
    return 0;
}

/* The middle answers by a task of the reactor, so that nobody is re-entered. */
static void submit(struct image *image, struct io *io)
{
    io_finish(io, execute(image, io));
}

struct fence_work {
    struct work work;
    void (*fenced)(void *argument);
    void *argument;
};

static void fence_run(struct work *work)
{
    struct fence_work *fence = container_of(work, struct fence_work, work);
    fence->fenced(fence->argument);
    free(fence);
}

static void fence(struct image *image, void (*fenced)(void *argument), void *argument)
{
    struct fence_work *waiting = malloc(sizeof(*waiting));
    if (!waiting)
        abort();
    *waiting = (struct fence_work){.work.run = fence_run, .fenced = fenced, .argument = argument};
    pool_run(image->datastore->pool, &waiting->work);
}

static void close_image(struct image *image)
{
    free(container_of(image, struct ram_image, image));
}

static const struct image_ops ops = {.submit = submit, .fence = fence, .close = close_image};

struct image *ram_image(struct ram *ram, uint64_t size)
{
    struct ram_image *image = calloc(1, sizeof(*image));
    if (!image)
        abort();
    image->ram = ram;
    image->image.limits = (struct image_limits){.block = 512,
        .max_transfer = 1 << 20,
        .can_zero = true,
        .can_punch = true,
        .can_allocate = true,
        .can_map = true};
    image_init(&image->image, &ops, ram->datastore, size);
    return &image->image;
}
