/* Formatting: an empty volume, and the superblock's four copies. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "backends/volume/inside.h"
#include "base/cleanup.h"

static void *page_memory(void)
{
    void *memory = NULL;
    if (posix_memalign(&memory, VOLUME_BLOCK, VOLUME_BLOCK) == 0)
        memset(memory, 0, VOLUME_BLOCK);
    else
        memory = NULL;
    return memory;
}

static int write_page(struct carrier *carrier, uint32_t extent, uint32_t at, const struct page *page)
{
    return carrier_write(carrier, (uint64_t)extent * VOLUME_EXTENT + at, VOLUME_BLOCK, page);
}

int superblock_write(struct carrier *carrier, const struct superblock *superblock)
{
    auto_free struct page *page = page_memory();
    int error = page ? 0 : -ENOMEM;
    if (!error)
        superblock_encode(superblock, page);
    for (int copy = 0; copy < 2 && !error; copy++) {
        error = write_page(carrier, superblock->head[copy], HEAD_SUPERBLOCK, page);
        if (!error)
            error = write_page(carrier, superblock->head[copy], HEAD_TWIN, page);
        if (!error)
            error = carrier_flush(carrier);
    }
    return error;
}

/* Whatever was in the heads is no volume any more. */
static int wipe_heads(struct carrier *carrier, const struct superblock *superblock)
{
    static const uint32_t places[] = {HEAD_SUPERBLOCK, HEAD_TWIN, HEAD_ANCHOR(0), HEAD_ANCHOR(1), HEAD_OWNER};
    auto_free struct page *page = page_memory();
    auto_free void *hosts = calloc(1, HEAD_HOSTS_SIZE);
    int error = page && hosts ? 0 : -ENOMEM;
    for (int copy = 0; copy < 2; copy++) {
        for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]) && !error; i++)
            error = write_page(carrier, superblock->head[copy], places[i], page);
        if (!error)
            error = carrier_write(
                carrier, (uint64_t)superblock->head[copy] * VOLUME_EXTENT + HEAD_HOSTS, HEAD_HOSTS_SIZE, hosts);
    }
    return error ? error : carrier_flush(carrier);
}

/* A tree with nothing but its root, as the first checkpoint. */
static int write_root(
    struct carrier *carrier, const struct superblock *superblock, const struct volume_format_options *options)
{
    struct tree tree;
    struct stream stream = {0};
    struct anchor anchor = {.generation = 1};
    int error = nodes_open(&tree, false);
    if (error)
        return error;
    tree.root->st.st_uid = options->uid;
    tree.root->st.st_gid = options->gid;
    if (options->mode)
        tree.root->st.st_mode = S_IFDIR | (options->mode & 07777);
    record_all(&stream, &tree, &anchor.nodes, &anchor.runs);
    anchor.bytes = stream.size;
    anchor.next_node = tree.next_id;
    auto_free struct page *pages = stream_pages(
        &stream, superblock->uuid, PAGE_CHECKPOINT, anchor.generation, &anchor.pages);
    auto_free struct page *page = page_memory();
    stream_free(&stream);
    nodes_close(&tree);
    if (!pages || !page)
        return -ENOMEM;
    for (int copy = 0; copy < 2 && !error; copy++)
        error = carrier_write(
            carrier, (uint64_t)superblock->area[0][copy] * VOLUME_EXTENT, (uint64_t)anchor.pages * VOLUME_BLOCK, pages);
    if (!error)
        error = carrier_flush(carrier);
    anchor_encode(&anchor, superblock->uuid, page);
    for (int copy = 0; copy < 2 && !error; copy++)
        error = write_page(carrier, superblock->head[copy], HEAD_ANCHOR(0), page);
    return error ? error : carrier_flush(carrier);
}

int volume_format(struct image *raw, const struct volume_format_options *options, struct sentence *why)
{
    const char *name = raw->datastore->name;
    struct superblock superblock = {.sequence = 1, .version = VOLUME_VERSION, .created = time(NULL)};
    struct carrier carrier = {0};
    uint64_t size = atomic_load(&raw->size);
    if (!superblock_lay_out(&superblock, size, options->node_bytes))
        return refuse(why, -ENOSPC,
            "datastore %s: %" PRIu64
            " bytes are too few for a volume; it needs %u MiB at least, and room for its metadata",
            name, size, VOLUME_EXTENTS_MIN);
    if (raw->limits.block > VOLUME_BLOCK)
        return refuse(why, -EINVAL, "datastore %s: the raw image's blocks have %u bytes, a volume's at most %u", name,
            raw->limits.block, VOLUME_BLOCK);
    snprintf(superblock.label, sizeof(superblock.label), "%s", options->label ? options->label : "");
    snprintf(superblock.program, sizeof(superblock.program), "svmfs %s", SVMFS_VERSION);
    if (options->uuid)
        memcpy(superblock.uuid, options->uuid, VOLUME_UUID);
    else if (getrandom(superblock.uuid, VOLUME_UUID, 0) != VOLUME_UUID)
        return refuse(why, -EIO, "datastore %s: no random numbers for the volume's uuid", name);
    if (!options->uuid) { /* a random one, as RFC 9562 marks them */
        superblock.uuid[6] = (uint8_t)((superblock.uuid[6] & 0x0f) | 0x40);
        superblock.uuid[8] = (uint8_t)((superblock.uuid[8] & 0x3f) | 0x80);
    }
    int error = carrier_open(&carrier, raw);
    if (!error)
        error = wipe_heads(&carrier, &superblock);
    if (!error)
        error = write_root(&carrier, &superblock, options);
    if (!error)
        error = superblock_write(&carrier, &superblock);
    carrier_close(&carrier);
    return error ? refuse(why, error, "datastore %s: the volume could not be written: %s", name, error_text(error)) : 0;
}

int volume_probe(struct image *raw, struct superblock *out, struct sentence *why)
{
    uint64_t size = atomic_load(&raw->size), last = size / VOLUME_EXTENT;
    uint64_t places[SUPERBLOCK_PLACES] = {
        0, HEAD_TWIN, (last - 1) * VOLUME_EXTENT, (last - 1) * VOLUME_EXTENT + HEAD_TWIN};
    struct carrier carrier = {0};
    auto_free struct page *page = page_memory();
    int error = page ? carrier_open(&carrier, raw) : -ENOMEM, found = 0;
    if (last < VOLUME_EXTENTS_MIN) {
        carrier_close(&carrier);
        return error;
    }
    for (unsigned i = 0; i < SUPERBLOCK_PLACES && !error && !found; i++) {
        error = carrier_read(&carrier, places[i], VOLUME_BLOCK, page);
        if (error)
            refuse(
                why, error, "datastore %s: the raw image cannot be read: %s", raw->datastore->name, error_text(error));
        found = !error && get32(page->head.magic) == PAGE_MAGIC && get16(page->head.type) == PAGE_SUPERBLOCK;
        if (found && out && superblock_decode(page, out) < 0)
            *out = (struct superblock){0};
    }
    carrier_close(&carrier);
    return error ? error : found;
}
