#include "backends/volume/tree.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BUCKETS_FIRST 64u
#define SETTLE_FIRST  64u

/* ---- ranges ---- */

static int by_start(const void *a, const void *b)
{
    const struct range *left = a, *right = b;
    return left->start < right->start ? -1 : left->start > right->start;
}

void ranges_settle(struct ranges *ranges)
{
    uint32_t kept = 0;
    if (ranges->count == 0)
        return;
    qsort(ranges->list, ranges->count, sizeof(*ranges->list), by_start);
    for (uint32_t i = 1; i < ranges->count; i++) {
        struct range *last = &ranges->list[kept], *next = &ranges->list[i];
        if (next->start <= last->end)
            last->end = next->end > last->end ? next->end : last->end;
        else
            ranges->list[++kept] = *next;
    }
    ranges->count = kept + 1;
}

int ranges_add(struct ranges *ranges, uint32_t start, uint32_t end)
{
    if (ranges->count > 0) {
        struct range *last = &ranges->list[ranges->count - 1];
        if (start >= last->start && start <= last->end) {
            last->end = end > last->end ? end : last->end;
            return 0;
        }
    }
    bool full = ranges->count == ranges->room;
    if (full && ranges->count >= SETTLE_FIRST)
        ranges_settle(ranges);
    if (full && ranges->count >= ranges->room / 2) {
        uint32_t room = ranges->room ? ranges->room * 2 : 4;
        struct range *list = realloc(ranges->list, room * sizeof(*list));
        if (!list)
            return -ENOMEM;
        ranges->list = list;
        ranges->room = room;
    }
    ranges->list[ranges->count++] = (struct range){start, end};
    return 0;
}

void ranges_clear(struct ranges *ranges)
{
    free(ranges->list);
    *ranges = (struct ranges){0};
}

/* ---- tables ---- */

static size_t hash_id(const struct tree *tree, uint64_t id)
{
    return (size_t)((id * 0x9e3779b97f4a7c15ull) >> 20) & (tree->buckets - 1);
}

static size_t hash_name(const struct tree *tree, uint64_t parent, const char *name, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325ull ^ parent * 0x9e3779b97f4a7c15ull;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)name[i]) * 0x100000001b3ull;
    return (size_t)(hash ^ hash >> 29) & (tree->buckets - 1);
}

static void enter_id(struct tree *tree, struct volume_node *node)
{
    struct volume_node **bucket = &tree->by_id[hash_id(tree, node->id)];
    node->next_by_id = *bucket;
    *bucket = node;
}

static void enter_name(struct tree *tree, struct volume_node *node)
{
    struct volume_node **bucket = &tree->by_name[hash_name(tree, node->parent->id, node->name, strlen(node->name))];
    node->next_by_name = *bucket;
    *bucket = node;
}

/* Without memory the chains stay long. */
static void grow_tables(struct tree *tree)
{
    size_t was = tree->buckets;
    struct volume_node **ids = calloc(was * 4, sizeof(struct volume_node *));
    struct volume_node **names = calloc(was * 4, sizeof(struct volume_node *)), **old_ids = tree->by_id;
    if (!ids || !names) {
        free(ids);
        free(names);
        return;
    }
    free(tree->by_name);
    tree->by_id = ids;
    tree->by_name = names;
    tree->buckets = was * 4;
    for (size_t i = 0; i < was; i++)
        for (struct volume_node *node = old_ids[i], *next; node; node = next) {
            next = node->next_by_id;
            enter_id(tree, node);
            if (node->parent)
                enter_name(tree, node);
        }
    free(old_ids);
}

struct volume_node *nodes_by_id(const struct tree *tree, uint64_t id)
{
    struct volume_node *node = tree->by_id[hash_id(tree, id)];
    while (node && node->id != id)
        node = node->next_by_id;
    return node;
}

struct volume_node *nodes_child(
    const struct tree *tree, const struct volume_node *directory, const char *name, size_t length)
{
    struct volume_node *node = tree->by_name[hash_name(tree, directory->id, name, length)];
    while (node && (node->parent != directory || strncmp(node->name, name, length) != 0 || node->name[length] != '\0'))
        node = node->next_by_name;
    return node;
}

/* ---- paths ---- */

/* Walks to path, or to its parent: then *leaf is the last component, checked as a name. */
static int walk(const struct tree *tree, const char *path, struct volume_node **out, const char **leaf)
{
    struct volume_node *node = tree->root;
    while (*path) {
        size_t length = strcspn(path, "/");
        if (!S_ISDIR(node->st.st_mode))
            return S_ISLNK(node->st.st_mode) ? -ELOOP : -ENOTDIR;
        if (length > VOLUME_NAME_MAX)
            return -ENAMETOOLONG;
        if (length == 0 || (path[0] == '.' && (length == 1 || (length == 2 && path[1] == '.'))))
            return -EINVAL;
        if (leaf && path[length] == '\0') {
            *leaf = path;
            break;
        }
        node = nodes_child(tree, node, path, length);
        if (!node)
            return -ENOENT;
        path += length;
        path += *path == '/';
    }
    *out = node;
    return 0;
}

int nodes_find(const struct tree *tree, const char *path, struct volume_node **out)
{
    return walk(tree, path, out, NULL);
}

int nodes_parent(const struct tree *tree, const char *path, struct volume_node **parent, const char **leaf)
{
    if (*path == '\0')
        return -EBUSY;
    int error = walk(tree, path, parent, leaf);
    if (!error && !S_ISDIR((*parent)->st.st_mode))
        error = -ENOTDIR;
    return error;
}

/* ---- nodes ---- */

struct volume_node *nodes_new(struct tree *tree, uint64_t id)
{
    struct volume_node *node = calloc(1, sizeof(*node));
    if (!node)
        return NULL;
    node->id = id ? id : tree->next_id++;
    list_init(&node->link);
    list_init(&node->children);
    list_init(&node->xattrs);
    list_init(&node->dirty_link);
    list_init(&node->parked);
    list_init(&node->filling);
    node->st.st_ino = node->id;
    node->st.st_nlink = 1;
    node->st.st_blksize = VOLUME_BLOCK;
    if (tree->count >= tree->buckets)
        grow_tables(tree);
    tree->count++;
    enter_id(tree, node);
    return node;
}

int nodes_set_name(struct volume_node *node, const char *name, size_t length)
{
    char *own = strndup(name, length);
    if (!own)
        return -ENOMEM;
    free(node->name);
    node->name = own;
    return 0;
}

void nodes_attach(struct tree *tree, struct volume_node *parent, struct volume_node *node)
{
    node->parent = parent;
    node->parent_id = parent->id;
    list_append(&parent->children, &node->link);
    parent->st.st_nlink += S_ISDIR(node->st.st_mode);
    enter_name(tree, node);
}

void nodes_detach(struct tree *tree, struct volume_node *node)
{
    struct volume_node **at = &tree->by_name[hash_name(tree, node->parent->id, node->name, strlen(node->name))];
    while (*at != node)
        at = &(*at)->next_by_name;
    *at = node->next_by_name;
    list_remove(&node->link);
    node->parent->st.st_nlink -= S_ISDIR(node->st.st_mode);
    node->parent = NULL;
}

void nodes_free_xattr(struct xattr *xattr)
{
    list_remove(&xattr->link);
    free(xattr->name);
    free(xattr->value);
    free(xattr);
}

static void free_node(struct volume_node *node)
{
    while (!list_empty(&node->xattrs))
        nodes_free_xattr(container_of(node->xattrs.next, struct xattr, link));
    map_clear(&node->map);
    ranges_clear(&node->ranges);
    free(node->name);
    free(node->content);
    free(node);
}

void nodes_drop(struct tree *tree, struct volume_node *node)
{
    struct volume_node **at = &tree->by_id[hash_id(tree, node->id)];
    while (*at != node)
        at = &(*at)->next_by_id;
    *at = node->next_by_id;
    tree->count--;
    list_remove(&node->link);
    list_remove(&node->dirty_link);
    free_node(node);
}

int nodes_open(struct tree *tree, bool bare)
{
    *tree = (struct tree){.buckets = BUCKETS_FIRST, .next_id = VOLUME_ROOT + 1, .commit = 1};
    list_init(&tree->dirty);
    list_init(&tree->orphans);
    tree->by_id = calloc(tree->buckets, sizeof(struct volume_node *));
    tree->by_name = calloc(tree->buckets, sizeof(struct volume_node *));
    if (tree->by_id && tree->by_name && bare)
        return 0;
    tree->root = tree->by_id && tree->by_name ? nodes_new(tree, VOLUME_ROOT) : NULL;
    if (!tree->root || nodes_set_name(tree->root, "", 0) < 0) {
        nodes_close(tree);
        return -ENOMEM;
    }
    tree->root->parent_id = VOLUME_ROOT;
    tree->root->st.st_mode = S_IFDIR | 0755;
    tree->root->st.st_nlink = 2;
    clock_gettime(CLOCK_REALTIME, &tree->root->st.st_mtim);
    tree->root->st.st_atim = tree->root->st.st_ctim = tree->root->st.st_mtim;
    return 0;
}

void nodes_close(struct tree *tree)
{
    for (size_t i = 0; tree->by_id && i < tree->buckets; i++)
        for (struct volume_node *node = tree->by_id[i], *next; node; node = next) {
            next = node->next_by_id;
            free_node(node);
        }
    free(tree->by_id);
    free(tree->by_name);
    free(tree->removed);
    *tree = (struct tree){0};
}

/* ---- changes ---- */

void nodes_dirty(struct tree *tree, struct volume_node *node, unsigned what)
{
    if (node->unlinked)
        return;
    if (!node->dirty)
        list_append(&tree->dirty, &node->dirty_link);
    node->dirty |= what;
    if (what & ~(unsigned)DIRTY_TIMES)
        node->change = tree->commit;
}

int nodes_dirty_runs(struct tree *tree, struct volume_node *node, uint32_t start, uint32_t end)
{
    if (node->unlinked)
        return 0;
    int error = ranges_add(&node->ranges, start, end);
    if (!error)
        nodes_dirty(tree, node, DIRTY_RUNS);
    return error;
}

int nodes_removed_room(struct tree *tree)
{
    if (tree->removed_count < tree->removed_room)
        return 0;
    size_t room = tree->removed_room ? tree->removed_room * 2 : 16;
    uint64_t *removed = realloc(tree->removed, room * sizeof(*removed));
    if (!removed)
        return -ENOMEM;
    tree->removed = removed;
    tree->removed_room = room;
    return 0;
}

void nodes_removed(struct tree *tree, struct volume_node *node)
{
    list_remove(&node->dirty_link);
    node->dirty = 0;
    ranges_clear(&node->ranges);
    if (node->known)
        tree->removed[tree->removed_count++] = node->id;
    node->unlinked = true;
    node->st.st_nlink = 0;
    node->change = tree->commit;
}

size_t nodes_node_bytes(const struct volume_node *node)
{
    size_t bytes = sizeof(struct disk_node) + strlen(node->name) + (node->content ? strlen(node->content) : 0);
    bytes = record_round(bytes) + sizeof(struct disk_runs);
    size_t xattrs = 0;
    list_for_each (link, &node->xattrs) {
        const struct xattr *xattr = container_of(link, struct xattr, link);
        xattrs += sizeof(struct disk_xattr) + strlen(xattr->name) + xattr->size;
    }
    return bytes + (xattrs ? record_round(sizeof(struct disk_xattrs) + xattrs) : 0);
}

bool nodes_has_room(const struct tree *tree, size_t more)
{
    return tree->bytes + more <= tree->bytes_max;
}

bool nodes_is_dirty(const struct tree *tree)
{
    if (tree->removed_count > 0)
        return true;
    list_for_each (link, &tree->dirty)
        if (container_of(link, struct volume_node, dirty_link)->dirty & ~(unsigned)DIRTY_TIMES)
            return true;
    return false;
}
