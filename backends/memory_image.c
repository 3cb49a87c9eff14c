/* An image in memory, for tests: sparse pages, a capacity for ENOSPC. Each io runs as a task of its reactor, under the
 * datastore's mutex, so it completes asynchronously and whole. A page that was allocated but never written is a hole to
 * MAP, as an unwritten block of a filesystem is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/fence.h"
#include "backends/memory.h"

#define MAX_TRANSFER (1u << 20)
#define BYTES_MAX    (1ull << 42) /* of one image; the table of pages takes 1/8192 of it in address space */

struct memory_page {
    bool written;
    unsigned char bytes[MEMORY_PAGE];
};

struct memory_image {
    struct image image;
    struct memory *memory;
    struct memory_node *node;
    bool writable;
    struct fence fence;
};

/* In io.scratch. */
struct __attribute__((may_alias)) memory_request {
    struct task task;
    unsigned epoch;
};

static struct memory_page *page_at(const struct memory_bytes *bytes, uint64_t index)
{
    return index < bytes->count ? bytes->pages[index] : NULL;
}

static int grow_table(struct memory_bytes *bytes, uint64_t count)
{
    uint64_t wanted = bytes->count ? bytes->count : 16;
    while (wanted < count)
        wanted *= 2;
    struct memory_page **pages = calloc(wanted, sizeof(*pages));
    if (!pages)
        return -ENOMEM;
    if (bytes->count)
        memcpy(pages, bytes->pages, bytes->count * sizeof(*pages));
    free(bytes->pages);
    bytes->pages = pages;
    bytes->count = wanted;
    return 0;
}

static int need_page(struct memory *memory, struct memory_bytes *bytes, uint64_t index)
{
    if (page_at(bytes, index))
        return 0;
    if (memory->capacity && memory->used + MEMORY_PAGE > memory->capacity)
        return -ENOSPC;
    int error = index < bytes->count ? 0 : grow_table(bytes, index + 1);
    if (error || !(bytes->pages[index] = calloc(1, sizeof(struct memory_page))))
        return error ? error : -ENOMEM;
    bytes->held++;
    memory->used += MEMORY_PAGE;
    return 0;
}

static void drop_page(struct memory *memory, struct memory_bytes *bytes, uint64_t index)
{
    if (!page_at(bytes, index))
        return;
    free(bytes->pages[index]);
    bytes->pages[index] = NULL;
    bytes->held--;
    memory->used -= MEMORY_PAGE;
}

static struct extent page_extent(uint64_t index)
{
    return (struct extent){index * MEMORY_PAGE, (index + 1) * MEMORY_PAGE};
}

/* All pages of extent are there, or none was added. */
static int need_pages(struct memory *memory, struct memory_bytes *bytes, struct extent extent)
{
    for (uint64_t i = extent.start / MEMORY_PAGE; i * MEMORY_PAGE < extent.end; i++) {
        int error = need_page(memory, bytes, i);
        if (error)
            return error;
    }
    return 0;
}

/* Copies between io's memory and the pages. */
static void copy(struct memory_bytes *bytes, const struct io *io)
{
    uint64_t at = io->extent.start;
    for (int i = 0; i < io->iov_count; i++) {
        unsigned char *memory = io->iov[i].iov_base;
        for (size_t left = io->iov[i].iov_len, part; left > 0; left -= part, memory += part, at += part) {
            struct memory_page *page = page_at(bytes, at / MEMORY_PAGE);
            size_t in_page = at % MEMORY_PAGE;
            part = left < MEMORY_PAGE - in_page ? left : MEMORY_PAGE - in_page;
            if (io->verb == VERB_WRITE) {
                page->written = true;
                memcpy(page->bytes + in_page, memory, part);
            } else if (page) {
                memcpy(memory, page->bytes + in_page, part);
            } else {
                memset(memory, 0, part);
            }
        }
    }
}

/* Whole pages go, or are kept as allocated but unwritten; edges become zeroes. */
static void clear(struct memory *memory, struct memory_bytes *bytes, struct extent extent, bool unmap)
{
    for (uint64_t i = extent.start / MEMORY_PAGE; i < bytes->count && i * MEMORY_PAGE < extent.end; i++) {
        struct memory_page *page = bytes->pages[i];
        struct extent whole = page_extent(i), part = extent_intersect(whole, extent);
        if (!page)
            continue;
        bool all = extent_length(part) == MEMORY_PAGE;
        if (all && unmap) {
            drop_page(memory, bytes, i);
            continue;
        }
        memset(page->bytes + (part.start - whole.start), 0, extent_length(part));
        if (all)
            page->written = false;
    }
}

void memory_truncate(struct memory *memory, struct memory_node *node, uint64_t size)
{
    clear(memory, &node->bytes, (struct extent){size, UINT64_MAX - MEMORY_PAGE}, true);
    node->st.st_size = (off_t)size;
}

static void map(const struct memory_node *node, struct io *io)
{
    const struct memory_bytes *bytes = &node->bytes;
    uint64_t index = io->extent.start / MEMORY_PAGE;
    const struct memory_page *page = page_at(bytes, index);
    uint64_t size = (uint64_t)node->st.st_size;
    io->map_data = page && page->written && io->extent.start < size;
    if (io->map_data && size < io->extent.end)
        io->extent.end = size;
    for (index++; index * MEMORY_PAGE < io->extent.end; index++) {
        if (index >= bytes->count && !io->map_data)
            return;
        page = page_at(bytes, index);
        if ((page && page->written) != io->map_data) {
            io->extent.end = index * MEMORY_PAGE;
            return;
        }
    }
}

static int write_bytes(struct memory *memory, struct memory_node *node, struct io *io)
{
    if (io->extent.end > BYTES_MAX)
        return -EFBIG;
    int error = need_pages(memory, &node->bytes, io->extent);
    if (error)
        return error;
    copy(&node->bytes, io);
    if (io->extent.end > (uint64_t)node->st.st_size)
        node->st.st_size = (off_t)io->extent.end;
    return 0;
}

static int zero(struct memory *memory, struct memory_node *node, const struct io *io)
{
    bool unmap = io->flags & IO_MAY_UNMAP;
    struct extent extent = extent_intersect(io->extent, (struct extent){0, (uint64_t)node->st.st_size});
    int error = unmap || extent_empty(extent) ? 0 : need_pages(memory, &node->bytes, extent);
    if (!error && !extent_empty(extent))
        clear(memory, &node->bytes, extent, unmap);
    return error;
}

static int execute(struct memory_image *image, struct io *io)
{
    struct memory_node *node = image->node;
    if (!image->writable && fence_counts(io->verb))
        return -EBADF;
    if (fence_counts(io->verb))
        clock_gettime(CLOCK_REALTIME, &node->st.st_mtim);
    switch (io->verb) {
    case VERB_READ:
        copy(&node->bytes, io);
        return 0;
    case VERB_WRITE:
        return write_bytes(image->memory, node, io);
    case VERB_ZERO:
        return zero(image->memory, node, io);
    case VERB_ALLOCATE:
        return io->extent.end > BYTES_MAX ? -EFBIG : need_pages(image->memory, &node->bytes, io->extent);
    case VERB_FLUSH:
        return 0;
    case VERB_RESIZE:
        if (io->extent.end > BYTES_MAX)
            return -EFBIG;
        memory_truncate(image->memory, node, io->extent.end);
        return 0;
    case VERB_MAP:
        map(node, io);
        return 0;
    }
    abort();
}

static void run(struct task *task)
{
    struct memory_request *request = container_of(task, struct memory_request, task);
    struct io *io = container_of((uint64_t(*)[12])request, struct io, scratch);
    struct memory_image *image = container_of(io->image, struct memory_image, image);
    pthread_mutex_lock(&image->memory->mutex);
    int result = execute(image, io);
    pthread_mutex_unlock(&image->memory->mutex);
    if (fence_counts(io->verb))
        fence_leave(&image->fence, request->epoch);
    io_finish(io, result);
}

static void submit(struct image *base, struct io *io)
{
    struct memory_image *image = container_of(base, struct memory_image, image);
    struct memory_request *request = (struct memory_request *)io->scratch;
    if (fence_counts(io->verb))
        request->epoch = fence_enter(&image->fence);
    request->task.run = run;
    reactor_post(io->reactor, &request->task);
}

/* A write of a dead process died with its memory. */
static void fence(struct image *base, void (*fenced)(void *argument), void *argument)
{
    struct memory_image *image = container_of(base, struct memory_image, image);
    fence_wait(&image->fence, base->datastore->pool, fenced, argument);
}

static void close_image(struct image *base)
{
    struct memory_image *image = container_of(base, struct memory_image, image);
    pthread_mutex_lock(&image->memory->mutex);
    image->node->opens--;
    memory_release(image->memory, image->node);
    pthread_mutex_unlock(&image->memory->mutex);
    fence_destroy(&image->fence);
    free(image);
}

static const struct image_ops image_ops = {.submit = submit, .fence = fence, .close = close_image};

int memory_open_image(struct datastore *datastore, const char *path, bool writable, struct image **out)
{
    struct memory *memory = datastore->state;
    struct memory_image *image = memory ? calloc(1, sizeof(*image)) : NULL;
    if (!image)
        return memory ? -ENOMEM : -EIO;
    pthread_mutex_lock(&memory->mutex);
    int error = memory_find(memory, path, &image->node);
    if (!error && !S_ISREG(image->node->st.st_mode))
        error = S_ISDIR(image->node->st.st_mode) ? -EISDIR : S_ISLNK(image->node->st.st_mode) ? -ELOOP : -EINVAL;
    if (!error) {
        image->node->opens++;
        image_init(&image->image, &image_ops, datastore, (uint64_t)image->node->st.st_size);
    }
    pthread_mutex_unlock(&memory->mutex);
    if (error) {
        free(image);
        return error;
    }
    image->memory = memory;
    image->writable = writable;
    fence_init(&image->fence);
    image->image.limits = (struct image_limits){.block = 512,
        .max_transfer = MAX_TRANSFER,
        .can_zero = true,
        .can_punch = true,
        .can_allocate = true,
        .can_map = true};
    *out = &image->image;
    return 0;
}
