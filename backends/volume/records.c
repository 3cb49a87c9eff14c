#include "backends/volume/records.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* ---- out ---- */

static struct disk_time put_time(const struct timespec *time)
{
    return (struct disk_time){put64((uint64_t)time->tv_sec), put32((uint32_t)time->tv_nsec), put32(0)};
}

void record_node(struct stream *stream, const struct volume_node *node)
{
    size_t name = strlen(node->name), content = node->content ? strlen(node->content) : 0;
    struct disk_node *disk = stream_record(stream, RECORD_NODE, 0, record_round(sizeof(*disk) + name + content));
    if (!disk)
        return;
    disk->id = put64(node->id);
    disk->parent = put64(node->parent_id);
    disk->mode = put32(node->st.st_mode);
    disk->uid = put32(node->st.st_uid);
    disk->gid = put32(node->st.st_gid);
    disk->rdev_major = put32(major(node->st.st_rdev));
    disk->rdev_minor = put32(minor(node->st.st_rdev));
    disk->name_length = put16((uint16_t)name);
    disk->content_length = put16((uint16_t)content);
    disk->size = put64(S_ISREG(node->st.st_mode) ? (uint64_t)node->st.st_size : 0);
    disk->atime = put_time(&node->st.st_atim);
    disk->mtime = put_time(&node->st.st_mtim);
    disk->ctime = put_time(&node->st.st_ctim);
    memcpy(disk->text, node->name, name);
    if (content)
        memcpy(disk->text + name, node->content, content);
}

void record_removed(struct stream *stream, uint64_t id)
{
    struct disk_removed *disk = stream_record(stream, RECORD_REMOVED, 0, sizeof(*disk));
    if (disk)
        disk->id = put64(id);
}

void record_xattrs(struct stream *stream, const struct volume_node *node)
{
    size_t size = sizeof(struct disk_xattrs), count = 0;
    list_for_each (link, &node->xattrs) {
        const struct xattr *xattr = container_of(link, struct xattr, link);
        size += sizeof(struct disk_xattr) + strlen(xattr->name) + xattr->size;
        count++;
    }
    struct disk_xattrs *disk = stream_record(stream, RECORD_XATTRS, 0, record_round(size));
    if (!disk)
        return;
    uint8_t *at = disk->entries;
    disk->id = put64(node->id);
    disk->count = put32((uint32_t)count);
    list_for_each (link, &node->xattrs) {
        const struct xattr *xattr = container_of(link, struct xattr, link);
        size_t name = strlen(xattr->name);
        struct disk_xattr entry = {.name_length = put16((uint16_t)name), .value_length = put32((uint32_t)xattr->size)};
        memcpy(at, &entry, sizeof(entry));
        memcpy(at + sizeof(entry), xattr->name, name);
        memcpy(at + sizeof(entry) + name, xattr->value, xattr->size);
        at += sizeof(entry) + name + xattr->size;
    }
}

/* Entries of one RECORD_RUNS that is being made. */
struct entries {
    struct stream *stream;
    const struct volume_node *node;
    uint32_t count;
    size_t used;
    uint8_t memory[RUNS_BYTES_MAX];
};

static void end_entries(struct entries *entries)
{
    if (entries->count == 0)
        return;
    struct disk_runs *disk = stream_record(
        entries->stream, RECORD_RUNS, 0, record_round(sizeof(*disk) + entries->used));
    if (disk) {
        disk->id = put64(entries->node->id);
        disk->count = put32(entries->count);
        memcpy(disk->entries, entries->memory, entries->used);
    }
    entries->count = 0;
    entries->used = 0;
}

static void add_entry(struct entries *entries, const struct run *run)
{
    if (entries->used + sizeof(struct disk_run) + sizeof(struct disk_bits) > RUNS_BYTES_MAX - sizeof(struct disk_runs))
        end_entries(entries);
    struct disk_run disk = {.logical = put32(run->logical),
        .physical = put32(run->state == RUN_HOLE ? 0 : run->physical),
        .count = put32(run->count),
        .state = run->state,
        .flags = run->flags};
    memcpy(entries->memory + entries->used, &disk, sizeof(disk));
    entries->used += sizeof(disk);
    if (run->state == RUN_PARTIAL) {
        struct disk_bits bits;
        for (unsigned i = 0; i < VOLUME_BLOCKS / 64; i++)
            bits.word[i] = put64(run->bits[i]);
        memcpy(entries->memory + entries->used, &bits, sizeof(bits));
        entries->used += sizeof(bits);
    }
    entries->count++;
}

static void add_range(struct entries *entries, const struct map *map, uint32_t start, uint32_t end, bool holes)
{
    struct cursor cursor;
    uint32_t at = start;
    for (const struct run *run = map_from(map, start, &cursor); run && run->logical < end;
         run = map_next(map, &cursor)) {
        struct run part = *run;
        if (part.logical < start) {
            part.physical += start - part.logical;
            part.count -= start - part.logical;
            part.logical = start;
        }
        if (part.count > end - part.logical)
            part.count = end - part.logical;
        if (holes && part.logical > at)
            add_entry(entries, &(struct run){.logical = at, .count = part.logical - at, .state = RUN_HOLE});
        add_entry(entries, &part);
        at = part.logical + part.count;
    }
    if (holes && at < end)
        add_entry(entries, &(struct run){.logical = at, .count = end - at, .state = RUN_HOLE});
}

static struct entries *new_entries(struct stream *stream, const struct volume_node *node)
{
    struct entries *entries = malloc(sizeof(*entries));
    if (!entries) {
        stream->failed = true;
        return NULL;
    }
    entries->stream = stream;
    entries->node = node;
    entries->count = 0;
    entries->used = 0;
    return entries;
}

void record_runs(struct stream *stream, const struct volume_node *node, uint32_t start, uint32_t end, bool holes)
{
    struct entries *entries = new_entries(stream, node);
    if (!entries)
        return;
    add_range(entries, &node->map, start, end, holes);
    end_entries(entries);
    free(entries);
}

static void record_ranges(struct stream *stream, struct volume_node *node)
{
    struct entries *entries = new_entries(stream, node);
    if (!entries)
        return;
    ranges_settle(&node->ranges);
    for (uint32_t i = 0; i < node->ranges.count; i++)
        add_range(entries, &node->map, node->ranges.list[i].start, node->ranges.list[i].end, true);
    end_entries(entries);
    free(entries);
}

void record_changes(struct stream *stream, struct tree *tree)
{
    for (size_t i = 0; i < tree->removed_count; i++)
        record_removed(stream, tree->removed[i]);
    list_for_each (link, &tree->dirty) {
        struct volume_node *node = container_of(link, struct volume_node, dirty_link);
        if (node->dirty & (DIRTY_NODE | DIRTY_TIMES))
            record_node(stream, node);
        if (node->dirty & DIRTY_XATTRS)
            record_xattrs(stream, node);
        if (node->dirty & DIRTY_RUNS)
            record_ranges(stream, node);
    }
}

void record_changed(struct tree *tree)
{
    struct list *link;
    tree->removed_count = 0;
    while ((link = list_pop(&tree->dirty))) {
        struct volume_node *node = container_of(link, struct volume_node, dirty_link);
        node->dirty = 0;
        node->known = true;
        ranges_clear(&node->ranges);
    }
}

void record_all(struct stream *stream, const struct tree *tree, uint64_t *nodes, uint64_t *runs)
{
    *nodes = *runs = 0;
    for (size_t i = 0; i < tree->buckets; i++)
        for (struct volume_node *node = tree->by_id[i]; node; node = node->next_by_id) {
            if (node->unlinked)
                continue;
            record_node(stream, node);
            if (!list_empty(&node->xattrs))
                record_xattrs(stream, node);
            if (node->map.runs)
                record_runs(stream, node, 0, UINT32_MAX, false);
            *nodes += 1;
            *runs += node->map.runs;
        }
}

/* ---- in ---- */

static int broken(struct sentence *why, const char *what, uint64_t id)
{
    return refuse(why, -EUCLEAN, "%s (node %" PRIu64 ")", what, id);
}

static bool get_time(struct timespec *out, const struct disk_time *time)
{
    *out = (struct timespec){.tv_sec = (time_t)get64(time->seconds), .tv_nsec = (long)get32(time->nanoseconds)};
    return get32(time->nanoseconds) < 1000000000;
}

static bool is_type(mode_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISBLK(mode) ||
           S_ISCHR(mode);
}

static bool is_name(const uint8_t *name, size_t length, bool root)
{
    if (root)
        return length == 0;
    if (length == 0 || length > VOLUME_NAME_MAX || memchr(name, '/', length) || memchr(name, 0, length))
        return false;
    return !(name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')));
}

static int apply_node(struct tree *tree, const struct disk_node *disk, size_t length, struct sentence *why)
{
    if (length < sizeof(*disk))
        return refuse(why, -EUCLEAN, "a record of a node is too short");
    size_t name = get16(disk->name_length), content = get16(disk->content_length);
    uint64_t id = get64(disk->id), size = get64(disk->size);
    mode_t mode = get32(disk->mode);
    if (record_round(sizeof(*disk) + name + content) != length || id == 0 || id == UINT64_MAX)
        return broken(why, "a record of a node has a wrong length", id);
    if (!is_type(mode) || mode > 0177777 || (id == VOLUME_ROOT && !S_ISDIR(mode)))
        return broken(why, "a node has a type that there is not", id);
    if (!is_name(disk->text, name, id == VOLUME_ROOT))
        return broken(why, "a node has a name that cannot be", id);
    if (S_ISLNK(mode) != (content > 0) || content > VOLUME_CONTENT_MAX || memchr(disk->text + name, 0, content))
        return broken(why, "a symlink's target cannot be", id);
    if (size > (uint64_t)VOLUME_EXTENTS_MAX * VOLUME_EXTENT || (size && !S_ISREG(mode)))
        return broken(why, "a node's size cannot be", id);
    struct volume_node *node = nodes_by_id(tree, id);
    if (node && (node->st.st_mode & S_IFMT) != (mode & S_IFMT))
        return broken(why, "a node changed its type", id);
    if (!node && !(node = nodes_new(tree, id)))
        return -ENOMEM;
    char *own = content ? strndup((const char *)disk->text + name, content) : NULL;
    if ((content && !own) || nodes_set_name(node, (const char *)disk->text, name) < 0) {
        free(own);
        return -ENOMEM;
    }
    free(node->content);
    node->content = own;
    node->known = true;
    node->parent_id = get64(disk->parent);
    node->st.st_mode = mode;
    node->st.st_uid = get32(disk->uid);
    node->st.st_gid = get32(disk->gid);
    node->st.st_rdev = makedev(get32(disk->rdev_major), get32(disk->rdev_minor));
    node->st.st_size = (off_t)(content ? content : size);
    node->st.st_nlink = S_ISDIR(mode) ? 2 : 1;
    if (!get_time(&node->st.st_atim, &disk->atime) || !get_time(&node->st.st_mtim, &disk->mtime) ||
        !get_time(&node->st.st_ctim, &disk->ctime))
        return broken(why, "a node's time cannot be", id);
    if (id >= tree->next_id)
        tree->next_id = id + 1;
    if (id == VOLUME_ROOT)
        tree->root = node;
    return 0;
}

static int apply_xattr(struct volume_node *node, const uint8_t **at, const uint8_t *end)
{
    struct disk_xattr entry;
    if ((size_t)(end - *at) < sizeof(entry))
        return -EUCLEAN;
    memcpy(&entry, *at, sizeof(entry));
    size_t name = get16(entry.name_length), value = get32(entry.value_length);
    *at += sizeof(entry);
    if ((size_t)(end - *at) < name || (size_t)(end - *at) - name < value || name == 0 || memchr(*at, 0, name))
        return -EUCLEAN;
    struct xattr *xattr = calloc(1, sizeof(*xattr));
    if (!xattr)
        return -ENOMEM;
    list_append(&node->xattrs, &xattr->link);
    xattr->name = strndup((const char *)*at, name);
    xattr->value = malloc(value + 1);
    xattr->size = value;
    if (!xattr->name || !xattr->value)
        return -ENOMEM;
    memcpy(xattr->value, *at + name, value);
    *at += name + value;
    return 0;
}

static int apply_xattrs(struct tree *tree, const struct disk_xattrs *disk, size_t length, struct sentence *why)
{
    if (length < sizeof(*disk))
        return refuse(why, -EUCLEAN, "a record of xattrs is too short");
    uint64_t id = get64(disk->id);
    struct volume_node *node = nodes_by_id(tree, id);
    const uint8_t *at = disk->entries, *end = (const uint8_t *)disk + length;
    if (!node)
        return broken(why, "xattrs of a node that there is not", id);
    while (!list_empty(&node->xattrs))
        nodes_free_xattr(container_of(node->xattrs.next, struct xattr, link));
    for (uint32_t i = 0; i < get32(disk->count); i++) {
        int error = apply_xattr(node, &at, end);
        if (error)
            return error == -EUCLEAN ? broken(why, "an xattr runs over its record", id) : error;
    }
    return 0;
}

static bool get_run(const uint8_t **at, const uint8_t *end, struct run *run)
{
    struct disk_run disk;
    struct disk_bits bits;
    if ((size_t)(end - *at) < sizeof(disk))
        return false;
    memcpy(&disk, *at, sizeof(disk));
    *at += sizeof(disk);
    *run = (struct run){.logical = get32(disk.logical),
        .physical = get32(disk.physical),
        .count = get32(disk.count),
        .state = disk.state,
        .flags = disk.flags};
    if (run->count == 0 || run->state > RUN_PARTIAL || run->logical > VOLUME_EXTENTS_MAX ||
        (run->state != RUN_HOLE && run->count > VOLUME_EXTENTS_MAX - run->logical) ||
        run->count > UINT32_MAX - run->logical || (uint64_t)run->physical + run->count > UINT32_MAX)
        return false;
    if (run->state != RUN_PARTIAL)
        return true;
    if (run->count != 1 || (size_t)(end - *at) < sizeof(bits))
        return false;
    memcpy(&bits, *at, sizeof(bits));
    *at += sizeof(bits);
    for (unsigned i = 0; i < VOLUME_BLOCKS / 64; i++)
        run->bits[i] = get64(bits.word[i]);
    return true;
}

static int apply_runs(struct tree *tree, const struct disk_runs *disk, size_t length, struct sentence *why)
{
    if (length < sizeof(*disk))
        return refuse(why, -EUCLEAN, "a record of runs is too short");
    uint64_t id = get64(disk->id);
    struct volume_node *node = nodes_by_id(tree, id);
    const uint8_t *at = disk->entries, *end = (const uint8_t *)disk + length;
    if (!node || !S_ISREG(node->st.st_mode))
        return broken(why, "runs of something that is no file", id);
    for (uint32_t i = 0; i < get32(disk->count); i++) {
        struct run run;
        if (!get_run(&at, end, &run))
            return broken(why, "a run that cannot be", id);
        int error = map_set(&node->map, &run);
        if (error)
            return error;
    }
    return 0;
}

static int apply_removed(struct tree *tree, const struct disk_removed *disk, size_t length, struct sentence *why)
{
    uint64_t id = length < sizeof(*disk) ? 0 : get64(disk->id);
    struct volume_node *node = nodes_by_id(tree, id);
    if (!node || node == tree->root)
        return broken(why, "a node was removed that there is not", id);
    nodes_drop(tree, node);
    return 0;
}

int record_apply(struct tree *tree, const struct disk_record *record, struct sentence *why)
{
    size_t length = get32(record->length);
    switch (get16(record->type)) {
    case RECORD_NODE:
        return apply_node(tree, (const struct disk_node *)record, length, why);
    case RECORD_REMOVED:
        return apply_removed(tree, (const struct disk_removed *)record, length, why);
    case RECORD_XATTRS:
        return apply_xattrs(tree, (const struct disk_xattrs *)record, length, why);
    case RECORD_RUNS:
        return apply_runs(tree, (const struct disk_runs *)record, length, why);
    default:
        if (get16(record->flags) & RECORD_MAY_SKIP)
            return 0;
        return refuse(why, -EUCLEAN, "a record of type %u, which this program does not know", get16(record->type));
    }
}
