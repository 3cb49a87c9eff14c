/* Settling: once all records are there, names are entered, and space is counted; whatever contradicts itself is found
 * here. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "backends/volume/inside.h"

#define EXTENT_BYTES (sizeof(struct disk_run) + sizeof(struct disk_bits))

/* Without VOLUME_CHECK the first contradiction ends it; with it all are told and what can be is used. */
static int contradiction(struct volume *volume, struct sentence *why, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int contradiction(struct volume *volume, struct sentence *why, const char *format, ...)
{
    char text[SENTENCE_MAX / 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (volume->flags & VOLUME_CHECK) {
        volume_say(volume, FINDING_DAMAGED, "%s", text);
        if (!(volume->flags & VOLUME_WRITABLE))
            return 0;
    }
    return refuse(why, -EUCLEAN, "datastore %s: the volume contradicts itself: %s; svmfs-volume check tells more",
        volume->name, text);
}

static int enter(struct volume *volume, struct volume_node *node, struct sentence *why)
{
    struct tree *tree = &volume->tree;
    if (node == tree->root)
        return node->parent_id == VOLUME_ROOT ? 0 : contradiction(volume, why, "the root is below something");
    struct volume_node *parent = nodes_by_id(tree, node->parent_id);
    if (!parent || !S_ISDIR(parent->st.st_mode))
        return contradiction(volume, why, "node %" PRIu64 " \"%s\" is in directory %" PRIu64 ", which there is not",
            node->id, node->name, node->parent_id);
    if (nodes_child(tree, parent, node->name, strlen(node->name)))
        return contradiction(volume, why, "directory %" PRIu64 " has two entries \"%s\"", parent->id, node->name);
    nodes_attach(tree, parent, node);
    return 0;
}

/* How many nodes are reached from the root? In a circle none is. */
static size_t reached(const struct tree *tree)
{
    size_t count = 1;
    const struct volume_node *node = tree->root;
    const struct list *link = node->children.next;
    for (;;) {
        while (link == &node->children) {
            if (node == tree->root)
                return count;
            link = node->link.next;
            node = node->parent;
        }
        node = container_of(link, struct volume_node, link);
        link = node->children.next;
        count++;
    }
}

static int take_runs(struct volume *volume, struct volume_node *node, struct sentence *why)
{
    struct cursor cursor;
    int error = 0;
    for (const struct run *run = map_from(&node->map, 0, &cursor); run && !error; run = map_next(&node->map, &cursor)) {
        if (!space_take(&volume->space, run->physical, run->count))
            error = contradiction(volume, why,
                "file %" PRIu64 " \"%s\" has extents %u to %u, of which some belong to another file or to the metadata",
                node->id, node->name, run->physical, run->physical + run->count - 1);
    }
    return error;
}

/* Extents of which nothing was ever durable go back. */
static int drop_empty(struct volume_node *node)
{
    struct cursor cursor;
    struct run *run = map_from(&node->map, 0, &cursor);
    while (run) {
        uint64_t any = run->bits[0] | run->bits[1] | run->bits[2] | run->bits[3];
        uint32_t next = run->logical + run->count;
        if (run->state == RUN_PARTIAL && !any) {
            int error = map_set(&node->map, &(struct run){.logical = run->logical, .count = 1, .state = RUN_HOLE});
            if (error)
                return error;
        }
        run = map_from(&node->map, next, &cursor);
    }
    return 0;
}

static int settle_node(struct volume *volume, struct volume_node *node, struct sentence *why)
{
    uint64_t size = (uint64_t)node->st.st_size, until, place;
    int error = enter(volume, node, why);
    if (!error)
        error = drop_empty(node);
    if (!error)
        error = take_runs(volume, node, why);
    node->tail_dirty = S_ISREG(node->st.st_mode) && size % VOLUME_BLOCK != 0 &&
                       map_written(&node->map, size / VOLUME_BLOCK, UINT64_MAX, &until, &place);
    volume->tree.bytes += nodes_node_bytes(node);
    return error;
}

int settle_space(struct volume *volume)
{
    const struct superblock *superblock = &volume->superblock;
    int error = space_open(&volume->space, superblock->extents);
    if (error)
        return error;
    for (int copy = 0; copy < 2; copy++) {
        space_take(&volume->space, superblock->head[copy], 1);
        space_take(&volume->space, superblock->journal[copy], superblock->journal_extents);
        for (int area = 0; area < 2; area++)
            space_take(&volume->space, superblock->area[area][copy], superblock->area_extents);
    }
    return 0;
}

void settle_room(struct volume *volume)
{
    uint64_t room = (uint64_t)area_pages(&volume->superblock) * PAGE_PAYLOAD;
    uint64_t runs = (uint64_t)volume->superblock.extents * EXTENT_BYTES;
    runs += runs / 1024; /* heads of records */
    volume->tree.bytes_max = room > runs ? room - runs : 0;
}

int settle_tree(struct volume *volume, struct sentence *why)
{
    struct tree *tree = &volume->tree;
    int error = settle_space(volume);
    if (error)
        return error;
    if (!tree->root) {
        error = contradiction(volume, why, "there is no root directory");
        if (error || !(tree->root = nodes_new(tree, VOLUME_ROOT)) || nodes_set_name(tree->root, "", 0) < 0)
            return error ? error : -ENOMEM;
        tree->root->st.st_mode = S_IFDIR | 0755;
        tree->root->parent_id = VOLUME_ROOT;
    }
    settle_room(volume);
    for (size_t i = 0; i < tree->buckets && !error; i++)
        for (struct volume_node *node = tree->by_id[i]; node && !error; node = node->next_by_id)
            error = settle_node(volume, node, why);
    if (error)
        return error;
    size_t found = reached(tree);
    if (found != tree->count)
        error = contradiction(
            volume, why, "%zu nodes are below no directory that the root leads to", tree->count - found);
    return error;
}
