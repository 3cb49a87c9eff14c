/* Loading: superblock, the checkpoint that counts, the commits behind it. Each page is taken from the primary copy, or
 * from the secondary when its checksum or its place in the object is wrong. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/volume/inside.h"
#include "base/cleanup.h"
#include "base/log.h"

#define WINDOW     VOLUME_EXTENT
#define GAP_WINDOW 256u /* journal pages behind the last commit that are looked at for later ones */

void volume_say(struct volume *volume, enum finding finding, const char *format, ...)
{
    char sentence[SENTENCE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    if (volume->findings.say)
        volume->findings.say(volume->findings.argument, finding, sentence);
    else if (finding == FINDING_NOTE)
        log_info("datastore %s: %s", volume->name, sentence);
    else
        log_error("datastore %s: %s", volume->name, sentence);
}

static void *page_memory(uint64_t bytes)
{
    void *memory = NULL;
    return posix_memalign(&memory, VOLUME_BLOCK, bytes) == 0 ? memory : NULL;
}

static bool checking(const struct volume *volume)
{
    return volume->flags & VOLUME_CHECK;
}

/* ---- superblock ---- */

struct candidate {
    uint64_t at;
    int error;  /* of the reading or the decoding */
    bool looks; /* like a page of a volume */
    struct superblock superblock;
};

static void read_candidate(struct volume *volume, struct page *page, uint64_t at, struct candidate *out)
{
    *out = (struct candidate){.at = at};
    out->error = carrier_read(&volume->carrier, at, VOLUME_BLOCK, page);
    if (out->error)
        return;
    out->looks = get32(page->head.magic) == PAGE_MAGIC;
    out->error = superblock_decode(page, &out->superblock);
}

static void better(const struct candidate **best, const struct candidate *candidate)
{
    if (candidate->error == 0 && (!*best || candidate->superblock.sequence > (*best)->superblock.sequence))
        *best = candidate;
}

static int no_superblock(struct volume *volume, const struct candidate *candidates, struct sentence *why)
{
    const char *name = volume->name;
    bool looks = false;
    for (unsigned i = 0; i < SUPERBLOCK_PLACES; i++) {
        if (candidates[i].error == -EOPNOTSUPP)
            return refuse(why, -EOPNOTSUPP,
                "datastore %s: the volume's format is of a later version than this svmfs knows; use that version",
                name);
        looks |= candidates[i].looks;
    }
    for (unsigned i = 0; i < SUPERBLOCK_PLACES; i++)
        if (candidates[i].error != -EINVAL && candidates[i].error != -EUCLEAN)
            return refuse(why, candidates[i].error, "datastore %s: the raw image cannot be read: %s", name,
                error_text(candidates[i].error));
    if (looks)
        return refuse(why, -EUCLEAN,
            "datastore %s: all four copies of the volume's superblock are damaged; svmfs-volume check tells more, "
            "restore "
            "one of them (docs/VOLUME.md) or the data from a backup",
            name);
    return refuse(why, -EINVAL,
        "datastore %s: there is no volume; if nothing there is needed, make one with svmfs-volume format", name);
}

static int judge_superblock(struct volume *volume, struct sentence *why)
{
    const struct superblock *superblock = &volume->superblock;
    uint64_t image = atomic_load(&volume->carrier.image->size);
    if (superblock->incompatible & ~FEATURES_INCOMPATIBLE)
        return refuse(why, -EOPNOTSUPP,
            "datastore %s: the volume uses features that this svmfs does not know (incompatible %#" PRIx64
            "); use a later version",
            volume->name, superblock->incompatible & ~FEATURES_INCOMPATIBLE);
    if ((superblock->read_only & ~FEATURES_READ_ONLY) && (volume->flags & VOLUME_WRITABLE))
        return refuse(why, -EROFS,
            "datastore %s: the volume uses features that this svmfs can only read (%#" PRIx64 "); use a later version",
            volume->name, superblock->read_only & ~FEATURES_READ_ONLY);
    if (image < superblock->size)
        return refuse(why, -ENOSPC,
            "datastore %s: the raw image has %" PRIu64 " bytes and its volume %" PRIu64
            "; make it at least as large again, nothing was changed",
            volume->name, image, superblock->size);
    if (image / VOLUME_EXTENT > superblock->extents)
        volume_say(volume, FINDING_NOTE,
            "the raw image has %" PRIu64 " MiB more than its volume; svmfs-volume grow takes them",
            image / VOLUME_EXTENT - superblock->extents);
    return 0;
}

int load_superblock(struct volume *volume, struct sentence *why)
{
    struct candidate candidates[SUPERBLOCK_PLACES];
    const struct candidate *best = NULL;
    uint64_t image = atomic_load(&volume->carrier.image->size);
    if (image < (uint64_t)VOLUME_EXTENTS_MIN * VOLUME_EXTENT)
        return refuse(why, -EINVAL, "datastore %s: the raw image has %" PRIu64 " bytes, too few for a volume",
            volume->name, image);
    auto_free struct page *page = page_memory(VOLUME_BLOCK);
    if (!page)
        return -ENOMEM;
    read_candidate(volume, page, 0, &candidates[0]);
    read_candidate(volume, page, HEAD_TWIN, &candidates[1]);
    better(&best, &candidates[0]);
    better(&best, &candidates[1]);
    /* where the other head lies says a good one; without one it is looked for at the image's end */
    uint64_t other = (best ? best->superblock.head[1] : image / VOLUME_EXTENT - 1) * (uint64_t)VOLUME_EXTENT;
    bool inside = other + VOLUME_EXTENT <= image;
    for (unsigned i = 2; i < SUPERBLOCK_PLACES; i++) {
        candidates[i] = (struct candidate){.error = -EINVAL};
        if (inside)
            read_candidate(volume, page, other + (i == 2 ? 0 : HEAD_TWIN), &candidates[i]);
        bool same = !best || (candidates[i].error == 0 &&
                                 memcmp(best->superblock.uuid, candidates[i].superblock.uuid, VOLUME_UUID) == 0);
        if (same)
            better(&best, &candidates[i]);
    }
    if (!best)
        return no_superblock(volume, candidates, why);
    volume->superblock = best->superblock;
    for (unsigned i = 0; i < SUPERBLOCK_PLACES; i++)
        volume->superblock_damaged |= candidates[i].error ||
                                      candidates[i].superblock.sequence != best->superblock.sequence;
    for (unsigned i = 0; i < SUPERBLOCK_PLACES; i++)
        if (candidates[i].error && (i < 2 || inside))
            volume_say(volume, FINDING_COPY, "the superblock at byte %" PRIu64 " is damaged, another copy is used",
                candidates[i].at);
        else if (candidates[i].error == 0 && candidates[i].superblock.sequence != best->superblock.sequence)
            volume_say(volume, FINDING_COPY,
                "the superblock at byte %" PRIu64 " is older than another copy, which is used", candidates[i].at);
    return judge_superblock(volume, why);
}

/* ---- pages of an object, from either copy ---- */

/* Of one object's pages: a window of each copy, read when it is needed. */
struct window {
    struct volume *volume;
    const char *what;
    uint32_t extent[2]; /* where the object's place begins */
    uint32_t pages;     /* of the place */
    enum page_type type;
    struct page *memory[2];
    uint32_t first[2]; /* page at memory[copy][0]; UINT32_MAX: nothing was read */
    uint64_t damaged[2];
};

static int window_open(struct window *window)
{
    for (int copy = 0; copy < 2; copy++) {
        window->first[copy] = UINT32_MAX;
        window->memory[copy] = page_memory(WINDOW);
    }
    return window->memory[0] && window->memory[1] ? 0 : -ENOMEM;
}

static void window_close(struct window *window)
{
    free(window->memory[0]);
    free(window->memory[1]);
}

/* The page of one copy; NULL: it cannot be read, or its checksum or type is wrong. */
static const struct page *window_page(struct window *window, int copy, uint32_t index, struct page_info *info)
{
    uint32_t in_window = WINDOW / VOLUME_BLOCK, first = index / in_window * in_window;
    if (window->first[copy] != first) {
        uint32_t count = window->pages - first < in_window ? window->pages - first : in_window;
        uint64_t at = (uint64_t)window->extent[copy] * VOLUME_EXTENT + (uint64_t)first * VOLUME_BLOCK;
        memset(window->memory[copy], 0, WINDOW);
        window->first[copy] = first;
        if (carrier_read(&window->volume->carrier, at, (uint64_t)count * VOLUME_BLOCK, window->memory[copy]) < 0) {
            memset(window->memory[copy], 0, WINDOW);
            for (uint32_t i = 0; i < count; i++) /* one bad sector is no reason to lose the others */
                if (carrier_read(&window->volume->carrier, at + (uint64_t)i * VOLUME_BLOCK, VOLUME_BLOCK,
                        &window->memory[copy][i]) < 0)
                    memset(&window->memory[copy][i], 0, VOLUME_BLOCK);
        }
    }
    const struct page *page = &window->memory[copy][index - first];
    return page_open(page, window->volume->superblock.uuid, window->type, info) ? page : NULL;
}

/* What a page must say; number, index, pages (0: any). */
static const struct page *expected(struct window *window, int copy, uint32_t place, uint64_t number, uint32_t index,
    uint32_t pages, struct page_info *info)
{
    const struct page *page = window_page(window, copy, place, info);
    bool good = page && info->number == number && info->index == index && (pages == 0 || info->pages == pages);
    return good ? page : NULL;
}

/* From the primary, else from the secondary. */
static const struct page *either(
    struct window *window, uint32_t place, uint64_t number, uint32_t index, uint32_t pages, struct page_info *info)
{
    const struct page *page = expected(window, 0, place, number, index, pages, info);
    return page ? page : expected(window, 1, place, number, index, pages, info);
}

static void tell_damaged(struct window *window)
{
    static const char *const names[] = {"primary", "secondary"};
    for (int copy = 0; copy < 2; copy++)
        if (window->damaged[copy])
            volume_say(window->volume, FINDING_COPY,
                "%" PRIu64 " damaged pages in the %s copy of %s; the other copy is used", window->damaged[copy],
                names[copy], window->what);
}

/* ---- checkpoint ---- */

static int load_anchor(struct volume *volume, struct anchor *best, struct sentence *why)
{
    auto_free struct page *page = page_memory(VOLUME_BLOCK);
    struct anchor found[2][2];
    int error[2][2];
    *best = (struct anchor){0};
    if (!page)
        return -ENOMEM;
    for (unsigned copy = 0; copy < 2; copy++)
        for (unsigned area = 0; area < 2; area++) {
            uint64_t at = (uint64_t)volume->superblock.head[copy] * VOLUME_EXTENT + HEAD_ANCHOR(area);
            error[area][copy] = carrier_read(&volume->carrier, at, VOLUME_BLOCK, page);
            if (!error[area][copy])
                error[area][copy] = anchor_decode(page, &volume->superblock, area, &found[area][copy]);
            if (!error[area][copy] && found[area][copy].generation > best->generation)
                *best = found[area][copy];
        }
    if (best->generation == 0)
        return refuse(why, -EUCLEAN,
            "datastore %s: no copy of the volume's anchors can be read; svmfs-volume check tells more, the data "
            "itself may be whole (docs/VOLUME.md)",
            volume->name);
    for (unsigned copy = 0; copy < 2; copy++)
        if (error[best->area][copy] || found[best->area][copy].generation != best->generation)
            volume_say(volume, FINDING_COPY,
                "the anchor of area %u in the %s head is damaged or older; the other is used", best->area,
                copy ? "secondary" : "primary");
    return 0;
}

static int checkpoint_stream(struct window *window, const struct anchor *anchor, uint8_t *stream, struct sentence *why)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < anchor->pages; i++) {
        struct page_info info = {0};
        for (int copy = 0; copy < (checking(window->volume) ? 2 : 1); copy++)
            window->damaged[copy] += !expected(window, copy, i, anchor->generation, i, anchor->pages, &info);
        const struct page *page = either(window, i, anchor->generation, i, anchor->pages, &info);
        if (!page)
            return refuse(why, -EUCLEAN,
                "datastore %s: page %u of the volume's checkpoint %" PRIu64 " (area %u) is damaged in both copies; "
                "svmfs-volume check tells more, restore the metadata or the data from a backup",
                window->volume->name, i, anchor->generation, anchor->area);
        if (info.used > anchor->bytes - at)
            return refuse(why, -EUCLEAN, "datastore %s: page %u of the volume's checkpoint says more than its anchor",
                window->volume->name, i);
        memcpy(stream + at, page->payload, info.used);
        at += info.used;
    }
    return at == anchor->bytes
               ? 0
               : refuse(why, -EUCLEAN, "datastore %s: the volume's checkpoint is shorter than its anchor says",
                     window->volume->name);
}

static int apply_stream(struct volume *volume, const uint8_t *memory, size_t size, struct sentence *why)
{
    struct reader reader = {memory, size, 0};
    struct sentence detail = {""};
    int error;
    for (const struct disk_record *record; (record = reader_next(&reader, &error));) {
        error = record_apply(&volume->tree, record, &detail);
        if (error)
            return refuse(why, error, "datastore %s: %s", volume->name, *detail.text ? detail.text : error_text(error));
    }
    return error ? refuse(why, error, "datastore %s: a record of the volume has a wrong length", volume->name) : 0;
}

static int load_checkpoint(struct volume *volume, const struct anchor *anchor, struct sentence *why)
{
    struct window window = {.volume = volume,
        .what = "the checkpoint",
        .extent = {volume->superblock.area[anchor->area][0], volume->superblock.area[anchor->area][1]},
        .pages = area_pages(&volume->superblock),
        .type = PAGE_CHECKPOINT};
    auto_free uint8_t *stream = malloc(anchor->bytes + 1);
    int error = stream ? window_open(&window) : -ENOMEM;
    if (!error)
        error = checkpoint_stream(&window, anchor, stream, why);
    tell_damaged(&window);
    window_close(&window);
    if (!error)
        error = apply_stream(volume, stream, anchor->bytes, why);
    if (error)
        return error;
    uint64_t runs = 0;
    for (size_t i = 0; i < volume->tree.buckets; i++)
        for (struct volume_node *node = volume->tree.by_id[i]; node; node = node->next_by_id)
            runs += node->map.runs;
    if (volume->tree.count != anchor->nodes || runs != anchor->runs)
        return refuse(why, -EUCLEAN,
            "datastore %s: the volume's checkpoint has %zu nodes and %" PRIu64 " runs and its anchor says %" PRIu64
            " and %" PRIu64,
            volume->name, volume->tree.count, runs, anchor->nodes, anchor->runs);
    if (anchor->next_node > volume->tree.next_id)
        volume->tree.next_id = anchor->next_node;
    return 0;
}

/* ---- journal ---- */

/* Where the reading of the journal is. */
struct position {
    uint32_t place;
    uint64_t number; /* of the next commit */
    uint64_t commits, pages;
};

/* One commit: 1 it is whole (and applied, if asked for), 0 it is not, or an error. */
static int replay_commit(
    struct window *window, struct position *position, bool apply, bool *sealed, struct sentence *why)
{
    struct page_info info = {0};
    const struct page *page = either(window, position->place, position->number, 0, 0, &info);
    if (!page || info.pages == 0 || info.pages > window->pages - position->pages)
        return 0;
    uint32_t pages = info.pages;
    auto_free uint8_t *stream = malloc((size_t)pages * PAGE_PAYLOAD);
    size_t size = 0;
    if (!stream)
        return -ENOMEM;
    *sealed = info.flags & PAGE_SEALED;
    for (uint32_t i = 0; i < pages; i++) {
        uint32_t place = (position->place + i) % window->pages;
        page = either(window, place, position->number, i, pages, &info);
        if (!page)
            return 0;
        memcpy(stream + size, page->payload, info.used);
        size += info.used;
        for (int copy = 0; apply && copy < (checking(window->volume) ? 2 : 1); copy++)
            window->damaged[copy] += !expected(window, copy, place, position->number, i, pages, &info);
    }
    int error = apply ? apply_stream(window->volume, stream, size, why) : 0;
    position->place = (position->place + pages) % window->pages;
    position->pages += pages;
    position->number++;
    position->commits++;
    return error ? error : 1;
}

/* Is there a page of a later sealed commit behind the place where the journal ended? All before it were flushed. */
static bool goes_on(struct window *window, const struct position *position)
{
    uint32_t count = checking(window->volume) || window->pages < GAP_WINDOW ? window->pages : GAP_WINDOW;
    for (uint32_t i = 0; i < count; i++)
        for (int copy = 0; copy < 2; copy++) {
            struct page_info info;
            if (window_page(window, copy, (position->place + i) % window->pages, &info) &&
                info.number > position->number && (info.flags & PAGE_SEALED))
                return true;
        }
    return false;
}

/* How many commits count? Those up to the last sealed one; all, when they are of this mount's earlier worker and none is
 * missing: then no power was lost. */
static int count_commits(struct window *window, struct position position, uint64_t *count, struct sentence *why)
{
    struct volume *volume = window->volume;
    uint64_t note = atomic_load(volume->note), durable = 0;
    bool sealed = false;
    int result;
    while ((result = replay_commit(window, &position, false, &sealed, why)) > 0)
        if (sealed)
            durable = position.commits;
    bool lost = note >= position.number;
    *count = note && !lost ? position.commits : durable;
    if (result < 0)
        return result;
    if (lost)
        volume_say(volume, FINDING_DAMAGED,
            "the raw image has lost what was written to it and not flushed (commits %" PRIu64 " to %" PRIu64
            "): disks may have lost their last writes",
            position.number, note);
    if (goes_on(window, &position))
        return refuse(why, -EUCLEAN,
            "datastore %s: commit %" PRIu64
            " of the volume's journal is damaged in both copies, and later ones are there; "
            "svmfs-volume check tells more, restore the metadata or the data from a backup",
            volume->name, position.number);
    return 0;
}

static int replay(struct volume *volume, const struct anchor *anchor, struct sentence *why)
{
    struct window window = {.volume = volume,
        .what = "the journal",
        .extent = {volume->superblock.journal[0], volume->superblock.journal[1]},
        .pages = journal_pages(&volume->superblock),
        .type = PAGE_JOURNAL};
    struct position position = {.place = anchor->journal_page, .number = anchor->commit + 1};
    uint64_t count = 0;
    bool sealed;
    int result = window_open(&window);
    int error = result < 0 ? result : count_commits(&window, position, &count, why);
    for (result = 1; result > 0 && position.commits < count && error != -ENOMEM;)
        result = replay_commit(&window, &position, true, &sealed, why);
    volume->replayed = position.commits;
    volume->loaded_commit = position.number - 1;
    volume->journal_page = position.place;
    tell_damaged(&window);
    window_close(&window);
    return error ? error : result < 0 ? result : 0;
}

int load_tree(struct volume *volume, struct sentence *why)
{
    struct anchor anchor = {0};
    int error = nodes_open(&volume->tree, true);
    if (!error)
        error = load_anchor(volume, &anchor, why);
    if (!error)
        error = load_checkpoint(volume, &anchor, why);
    if (!error)
        error = replay(volume, &anchor, why);
    if (error && !checking(volume))
        return error;
    volume->committer.generation = anchor.generation;
    volume->committer.area = anchor.area;
    if (error) /* what was understood is looked at nevertheless */
        volume_say(volume, FINDING_DAMAGED, "%s", why && *why->text ? why->text : error_text(error));
    return error == -ENOMEM ? error : settle_tree(volume, why);
}
