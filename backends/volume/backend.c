/* The datastore volume:URL. What it lies on is opened for a datastore of its own, the same but for its pool: the end of
 * a volume needs its raw image when the datastore's pool has ended already. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/backends.h"
#include "backends/owner.h"
#include "backends/volume/inside.h"
#include "backends/volume/names.h"
#include "base/cleanup.h"

/* ---- the datastore below ---- */

static int open_below(struct datastore **out, struct datastore *datastore, struct sentence *why)
{
    struct datastore *below = calloc(1, sizeof(*below));
    if (!below)
        return refuse(why, -ENOMEM, "datastore %s: no memory", datastore->name);
    strcpy(below->name, datastore->name);
    below->ops = datastore->ops;
    below->url = datastore->url;
    below->options = datastore->options;
    below->timeout_ns = datastore->timeout_ns;
    below->identity = datastore->identity;
    below->reactors = datastore->reactors;
    below->notes = datastore_note(datastore, 0);
    below->index = datastore->index;
    below->above = datastore;
    int error = pool_open(&below->pool, datastore->name, datastore->options.threads);
    if (error) {
        free(below);
        return refuse(why, error, "datastore %s: no threads: %s", datastore->name, error_text(error));
    }
    *out = below;
    return 0;
}

static void close_below(struct datastore *below)
{
    pool_close(below->pool);
    free(below);
}

/* ---- the owner's record: in both heads; a beat is written to one of them, in turn ---- */

static uint64_t owner_at(const struct volume *volume, int copy)
{
    return (uint64_t)volume->superblock.head[copy] * VOLUME_EXTENT + HEAD_OWNER;
}

/* Into text, if it is newer than *newest. Length, -ENOENT, or -errno of the carrier. */
static ssize_t read_copy(struct volume *volume, int copy, char *text, uint64_t *newest)
{
    auto_free void *memory = NULL;
    if (posix_memalign(&memory, VOLUME_BLOCK, VOLUME_BLOCK) != 0)
        return -ENOMEM;
    struct page *page = memory;
    struct page_info info;
    struct disk_owner *disk = (struct disk_owner *)page->payload;
    int error = carrier_read(&volume->carrier, owner_at(volume, copy), VOLUME_BLOCK, page);
    if (error)
        return error;
    if (!page_open(page, volume->superblock.uuid, PAGE_OWNER, &info) || info.number <= *newest ||
        get16(disk->length) > OWNER_RECORD || get16(disk->length) > info.used)
        return -ENOENT;
    *newest = info.number;
    memcpy(text, disk->text, get16(disk->length));
    return get16(disk->length);
}

static ssize_t read_owner(void *argument, char *text)
{
    struct volume_datastore *own = argument;
    uint64_t newest = 0;
    ssize_t length = -ENOENT;
    for (int copy = 0; copy < 2; copy++) {
        ssize_t got = read_copy(own->volume, copy, text, &newest);
        if (got >= 0 || (length < 0 && got != -ENOENT))
            length = got;
    }
    atomic_store(&own->owner_number, newest);
    return length;
}

/* Whose turn the next beat is. */
static int next_copy(struct volume_datastore *own)
{
    return (int)((atomic_load(&own->owner_number) + 1) % 2);
}

static ssize_t peek_owner(void *argument, char *text)
{
    struct volume_datastore *own = argument;
    uint64_t newest = 0;
    return read_copy(own->volume, next_copy(own), text, &newest);
}

static int write_copies(struct volume_datastore *own, int first, int end, const char *text, size_t length)
{
    struct volume *volume = own->volume;
    auto_free void *memory = NULL;
    if (posix_memalign(&memory, VOLUME_BLOCK, VOLUME_BLOCK) != 0)
        return -ENOMEM;
    struct page *page = memory;
    struct disk_owner *disk = (struct disk_owner *)page->payload;
    disk->length = put16((uint16_t)length);
    memcpy(disk->text, text, length);
    page_seal(page, volume->superblock.uuid,
        &(struct page_info){.type = PAGE_OWNER,
            .used = (uint16_t)(sizeof(*disk) + length),
            .pages = 1,
            .number = atomic_fetch_add(&own->owner_number, 1) + 1});
    int error = 0;
    for (int copy = first; copy < end && !error; copy++)
        error = carrier_write(&volume->carrier, owner_at(volume, copy), VOLUME_BLOCK, page);
    return error ? error : carrier_flush(&volume->carrier);
}

static int write_owner(void *argument, const char *text, size_t length)
{
    return write_copies(argument, 0, 2, text, length);
}

static int beat_owner(void *argument, const char *text, size_t length)
{
    int copy = next_copy(argument);
    return write_copies(argument, copy, copy + 1, text, length);
}

static void lost_owner(void *argument, const char *sentence)
{
    struct volume_datastore *own = argument;
    volume_fail(own->volume, sentence);
}

/* ---- open, close ---- */

static int reserve(struct volume_datastore *own, const struct datastore *datastore, struct sentence *why)
{
    const struct raw_ops *ops = own->volume->ops;
    uint64_t key = datastore->identity.mount;
    if (!ops->reserve || key == 0)
        return 0;
    int error = ops->reserve(own->volume->carrier.image, key, datastore->identity.takeover, why);
    if (error == 0)
        own->key = key;
    return error == -EOPNOTSUPP ? 0 : error;
}

static int claim(struct volume_datastore *own, struct datastore *datastore, struct sentence *why)
{
    const struct owner_place place = {.read = read_owner,
        .peek = peek_owner,
        .write = write_owner,
        .beat = beat_owner,
        .lost = lost_owner,
        .argument = own};
    int error = reserve(own, datastore, why);
    return error ? error : owner_claim(&own->owner, datastore, &place, &datastore->stopping, why);
}

/* False: calls are on their way that know what is here. */
static bool give_back(struct volume_datastore *own)
{
    bool ended = owner_release(own->owner);
    own->owner = NULL;
    if (own->key)
        own->volume->ops->release(own->volume->carrier.image, own->key);
    return ended;
}

static int open_on(struct volume_datastore *own, struct datastore *datastore, const char *rest, struct sentence *why)
{
    struct image *raw;
    const struct raw_ops *ops;
    int error = raw_open(own->below, backend_raws, rest, true, &raw, &ops, why);
    if (error)
        return error;
    error = volume_begin(&own->volume, raw, ops, VOLUME_WRITABLE, NULL, why);
    if (error) {
        image_close(raw);
        return error;
    }
    error = claim(own, datastore, why);
    if (!error)
        error = volume_go(own->volume, why);
    if (!error)
        return 0;
    give_back(own);
    image_close(raw);
    volume_drop(own->volume);
    return error;
}

static int open_volume(struct datastore *datastore, const char *rest, struct sentence *why)
{
    struct volume_datastore *own = calloc(1, sizeof(*own));
    if (!own)
        return refuse(why, -ENOMEM, "datastore %s: no memory", datastore->name);
    int error = open_below(&own->below, datastore, why);
    if (!error) {
        error = open_on(own, datastore, rest, why);
        if (error)
            close_below(own->below);
    }
    if (error)
        free(own);
    else
        datastore->state = own;
    return error;
}

static void close_volume(struct datastore *datastore)
{
    struct volume_datastore *own = datastore->state;
    if (!own)
        return;
    datastore->state = NULL;
    int error = volume_finish(own->volume);
    if (!give_back(own) || error == -ETIMEDOUT)
        return; /* what still is on its way may come back */
    image_close(own->volume->carrier.image);
    volume_drop(own->volume);
    close_below(own->below);
    free(own);
}

const struct datastore_ops backend_volume = {
    .scheme = "volume",
    .open = open_volume,
    .close = close_volume,
    .statfs = volume_statfs,
    .lookup = volume_lookup,
    .list = volume_list,
    .create = volume_create,
    .rename = volume_rename,
    .remove = volume_remove_path,
    .readlink = volume_readlink,
    .set_attributes = volume_set_attributes,
    .get_xattr = volume_get_xattr,
    .set_xattr = volume_set_xattr,
    .list_xattr = volume_list_xattr,
    .remove_xattr = volume_remove_xattr,
    .sync_directory = volume_sync_directory,
    .open_image = volume_open_image,
};
