#include "base.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/volume/volume.h"

#define FILES 24

static void must(int result, const char *what)
{
    if (result >= 0)
        return;
    fprintf(stderr, "the volume to start from cannot be made: %s: %s\n", what, error_text(result));
    exit(1);
}

/* ---- one verb on an image ---- */

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
    static uint8_t bytes[1 << 20];
    struct call call = {
        .io = {.verb = verb, .extent = {start, end}, .iov_count = verb == VERB_WRITE, .done = call_done},
        .iov = {bytes, end - start},
        .image = image,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .ended = PTHREAD_COND_INITIALIZER};
    memset(bytes, 0x5a, sizeof(bytes));
    call.io.iov = &call.iov;
    reactor_call(reactor, call_start, &call);
    pthread_mutex_lock(&call.mutex);
    while (!call.done)
        pthread_cond_wait(&call.ended, &call.mutex);
    pthread_mutex_unlock(&call.mutex);
    return call.io.result;
}

/* ---- files ---- */

static void fill(struct reactor *reactor, struct datastore *datastore, const char *path, int number)
{
    struct image *image;
    uint64_t at = (uint64_t)number * 300000 % 3000000;
    must(datastore->ops->open_image(datastore, path, true, &image), path);
    must(submit(reactor, image, VERB_WRITE, at, at + 1 + (uint64_t)number * 977), path);
    if (number % 3 == 0)
        must(submit(reactor, image, VERB_ALLOCATE, 0, 1 << 20), path);
    if (number % 4 == 0)
        must(submit(reactor, image, VERB_RESIZE, 0, at + 1000), path);
    if (number % 5 == 0)
        must(submit(reactor, image, VERB_RESIZE, 0, 9000000000000ull), path);
    must(submit(reactor, image, VERB_FLUSH, 0, 0), path);
    image_put(image);
}

static void make_files(struct reactor *reactor, struct datastore *datastore)
{
    const struct datastore_ops *ops = datastore->ops;
    char path[300], name[] = "user.name", value[] = "some value";
    struct stat st = {.st_mode = S_IFDIR | 0755, .st_uid = 5, .st_gid = 6};
    must(ops->create(datastore, "a", &st, NULL), "a");
    must(ops->create(datastore, "a/b", &st, NULL), "a/b");
    st.st_mode = S_IFLNK | 0777;
    must(ops->create(datastore, "link", &st, "to/somewhere"), "link");
    st.st_mode = S_IFBLK | 0600;
    st.st_rdev = 0x801;
    must(ops->create(datastore, "node", &st, NULL), "node");
    for (int i = 0; i < FILES; i++) {
        st.st_mode = S_IFREG | 0644;
        snprintf(path, sizeof(path), i % 3 == 0 ? "file%d" : i % 3 == 1 ? "a/file%d" : "a/b/file%0100d", i);
        must(ops->create(datastore, path, &st, NULL), path);
        for (int x = 0; x < i % 4; x++) {
            name[8] = (char)('a' + x);
            must(ops->set_xattr(datastore, path, name, value, sizeof(value) - (size_t)x, 0), "xattr");
        }
        if (i < FILES / 2)
            fill(reactor, datastore, path, i);
    }
    must(ops->remove(datastore, "file3", false), "file3");
    must(ops->rename(datastore, "file6", "a/renamed", false), "rename");
    must(ops->sync_directory(datastore, "a/renamed"), "sync");
}

/* ---- what is where ---- */

static const struct page *page_at(const struct base *base, uint64_t at)
{
    return (const struct page *)(base->bytes + at);
}

static void find_pages(struct base *base)
{
    base->pages = calloc(BASE_BYTES / VOLUME_BLOCK, sizeof(*base->pages));
    for (uint64_t at = 0; at < BASE_BYTES; at += VOLUME_BLOCK)
        if (get32(page_at(base, at)->head.magic) == PAGE_MAGIC)
            base->pages[base->page_count++] = at;
    must(base->page_count > 8 ? 0 : -EUCLEAN, "pages");
}

static void find_checkpoint(struct base *base)
{
    for (unsigned area = 0; area < 2; area++) {
        struct anchor anchor;
        if (anchor_decode(page_at(base, HEAD_ANCHOR(area)), &base->superblock, area, &anchor) == 0 &&
            anchor.generation > base->anchor.generation)
            base->anchor = anchor;
    }
    must(base->anchor.generation ? 0 : -EUCLEAN, "anchor");
    base->stream = malloc(base->anchor.bytes);
    uint64_t from = (uint64_t)base->superblock.area[base->anchor.area][0] * VOLUME_EXTENT, filled = 0;
    for (uint32_t i = 0; i < base->anchor.pages; i++) {
        const struct page *page = page_at(base, from + (uint64_t)i * VOLUME_BLOCK);
        memcpy(base->stream + filled, page->payload, get16(page->head.used));
        filled += get16(page->head.used);
    }
    base->journal_end = base->anchor.journal_page;
    for (struct page_info info;; base->commits += info.index + 1 == info.pages, base->journal_end++) {
        uint64_t at = (uint64_t)base->superblock.journal[0] * VOLUME_EXTENT +
                      (uint64_t)base->journal_end * VOLUME_BLOCK;
        if (!page_open(page_at(base, at), base->superblock.uuid, PAGE_JOURNAL, &info) ||
            info.number != base->anchor.commit + 1 + base->commits)
            break;
    }
}

void base_make(struct base *base, bool closed)
{
    static const struct datastore_ops *const backends[] = {&backend_volume, NULL};
    char path[] = "/tmp/svmfs-fuzz.XXXXXX", url[64];
    struct sentence why = {""};
    struct datastore *datastore;
    struct reactor *reactor;
    struct volume_format_options format = {.label = "fuzz", .uuid = (const uint8_t *)"0123456789abcdef"};
    *base = (struct base){.bytes = malloc(BASE_BYTES)};
    int fd = mkstemp(path);
    must(fd < 0 ? -errno : ftruncate(fd, BASE_BYTES) < 0 ? -errno : 0, path);
    snprintf(url, sizeof(url), "volume:local:%s", path);
    const struct datastore_options options = {.name = "fuzz", .url = url, .timeout_ns = 30000000000, .threads = 4};
    must(datastore_new(&datastore, &options, backends, &why), why.text);
    struct image *raw;
    const struct raw_ops *ops;
    must(raw_open(datastore, backend_raws, url + strlen("volume:"), true, &raw, &ops, &why), why.text);
    must(volume_format(raw, &format, &why), why.text);
    image_close(raw);
    must(datastore_open(datastore, &why), why.text);
    must(reactor_start(&reactor, 0), "reactor");
    make_files(reactor, datastore);
    if (closed) {
        datastore_free(datastore);
        reactor_stop(reactor);
    }
    must(pread(fd, base->bytes, BASE_BYTES, 0) == BASE_BYTES ? 0 : -EIO, path);
    if (!closed) {
        datastore_free(datastore);
        reactor_stop(reactor);
    }
    close(fd);
    unlink(path);
    must(superblock_decode(page_at(base, 0), &base->superblock), "superblock");
    find_pages(base);
    find_checkpoint(base);
}

void base_free(struct base *base)
{
    free(base->bytes);
    free(base->pages);
    free(base->stream);
}
