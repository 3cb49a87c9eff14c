#include "catalog/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BUCKETS 1024

int tree_init(struct tree *tree)
{
    pthread_condattr_t monotonic;
    memset(tree, 0, sizeof(*tree));
    tree->by_id = calloc(FIRST_BUCKETS, sizeof(*tree->by_id));
    tree->by_name = calloc(FIRST_BUCKETS, sizeof(*tree->by_name));
    if (!tree->by_id || !tree->by_name) {
        free(tree->by_id);
        free(tree->by_name);
        return -ENOMEM;
    }
    tree->mask = FIRST_BUCKETS - 1;
    pthread_mutex_init(&tree->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&tree->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return 0;
}

void tree_free(struct tree *tree)
{
    for (size_t i = 0; i <= tree->mask; i++)
        for (struct entry *entry = tree->by_id[i], *next; entry; entry = next) {
            next = entry->id_next;
            entry_free(entry);
        }
    free(tree->by_id);
    free(tree->by_name);
    pthread_cond_destroy(&tree->changed);
    pthread_mutex_destroy(&tree->mutex);
}

struct entry *entry_new(uint64_t id, const char *name, const struct stat *st, const char *content)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return NULL;
    entry->id = id;
    entry->st = *st;
    entry->name = strdup(name);
    entry->content = content ? strdup(content) : NULL;
    if (!entry->name || (content && !entry->content)) {
        entry_free(entry);
        return NULL;
    }
    return entry;
}

void entry_free(struct entry *entry)
{
    if (!entry)
        return;
    free(entry->name);
    free(entry->content);
    free(entry->file);
    free(entry->children);
    free(entry);
}

void entry_node(const struct entry *entry, struct node *out)
{
    memset(out, 0, sizeof(*out));
    out->id = entry->id;
    out->parent = entry->parent ? entry->parent->id : entry->id == NODE_ROOT ? NODE_ROOT : 0;
    out->datastore = entry->datastore;
    out->known = entry->known;
    out->orphan = entry->orphan;
    out->conflict = entry->trouble != TROUBLE_NONE;
    out->st = entry->st;
    out->st.st_dev = 0;
    out->st.st_ino = entry->id;
    out->st.st_nlink = entry->orphan ? 0 : entry_is_directory(entry) ? 2 + entry->directories : 1;
}

void entry_touch(struct entry *entry)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    entry->st.st_mtim = entry->st.st_ctim = now;
}

bool entry_is_below(const struct entry *entry, const struct entry *directory)
{
    for (; entry; entry = entry->parent)
        if (entry == directory)
            return true;
    return false;
}

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
}

/* FNV-1a, started from the parent. */
static uint64_t hash_name(uint64_t parent, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325ull ^ mix(parent);
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3ull;
    return mix(hash);
}

/* Twice the buckets; without memory the chains get longer. */
static void grow(struct tree *tree)
{
    size_t buckets = (tree->mask + 1) * 2;
    struct entry **by_id = calloc(buckets, sizeof(*by_id)), **by_name = calloc(buckets, sizeof(*by_name));
    if (!by_id || !by_name) {
        free(by_id);
        free(by_name);
        return;
    }
    for (size_t i = 0; i <= tree->mask; i++) {
        for (struct entry *entry = tree->by_id[i], *next; entry; entry = next) {
            struct entry **bucket = &by_id[mix(entry->id) & (buckets - 1)];
            next = entry->id_next;
            entry->id_next = *bucket;
            *bucket = entry;
        }
        for (struct entry *entry = tree->by_name[i], *next; entry; entry = next) {
            struct entry **bucket = &by_name[entry->name_hash & (buckets - 1)];
            next = entry->name_next;
            entry->name_next = *bucket;
            *bucket = entry;
        }
    }
    free(tree->by_id);
    free(tree->by_name);
    tree->by_id = by_id;
    tree->by_name = by_name;
    tree->mask = buckets - 1;
}

void tree_add(struct tree *tree, struct entry *entry)
{
    if (++tree->count > tree->mask)
        grow(tree);
    struct entry **bucket = &tree->by_id[mix(entry->id) & tree->mask];
    entry->id_next = *bucket;
    *bucket = entry;
}

void tree_drop(struct tree *tree, struct entry *entry)
{
    struct entry **at = &tree->by_id[mix(entry->id) & tree->mask];
    while (*at != entry)
        at = &(*at)->id_next;
    *at = entry->id_next;
    tree->count--;
}

struct entry *tree_get(const struct tree *tree, uint64_t id)
{
    struct entry *entry = tree->by_id[mix(id) & tree->mask];
    while (entry && entry->id != id)
        entry = entry->id_next;
    return entry;
}

int tree_reserve(struct entry *directory)
{
    unsigned need = directory->child_count + directory->users + 1;
    if (need <= directory->child_space)
        return 0;
    unsigned space = need < 8 ? 8 : need * 2;
    struct entry **children = realloc(directory->children, space * sizeof(struct entry *));
    if (!children)
        return -ENOMEM;
    directory->children = children;
    directory->child_space = space;
    return 0;
}

void tree_link(struct tree *tree, struct entry *directory, struct entry *entry)
{
    unsigned at = tree_child_after(directory, entry->id);
    memmove(
        directory->children + at + 1, directory->children + at, (directory->child_count - at) * sizeof(struct entry *));
    directory->children[at] = entry;
    directory->child_count++;
    if (entry_is_directory(entry))
        directory->directories++;
    entry->parent = directory;
    entry->name_hash = hash_name(directory->id, entry->name);
    struct entry **bucket = &tree->by_name[entry->name_hash & tree->mask];
    entry->name_next = *bucket;
    *bucket = entry;
}

void tree_unlink(struct tree *tree, struct entry *entry)
{
    struct entry *directory = entry->parent;
    struct entry **bucket = &tree->by_name[entry->name_hash & tree->mask];
    unsigned at = tree_child_after(directory, entry->id) - 1;
    while (*bucket != entry)
        bucket = &(*bucket)->name_next;
    *bucket = entry->name_next;
    directory->child_count--;
    memmove(
        directory->children + at, directory->children + at + 1, (directory->child_count - at) * sizeof(struct entry *));
    if (entry_is_directory(entry))
        directory->directories--;
    entry->parent = NULL;
}

struct entry *tree_child(const struct tree *tree, const struct entry *directory, const char *name)
{
    uint64_t hash = hash_name(directory->id, name);
    struct entry *entry = tree->by_name[hash & tree->mask];
    while (entry && (entry->name_hash != hash || entry->parent != directory || strcmp(entry->name, name) != 0))
        entry = entry->name_next;
    return entry;
}

unsigned tree_child_after(const struct entry *directory, uint64_t after)
{
    unsigned low = 0, high = directory->child_count;
    if (high && directory->children[high - 1]->id <= after)
        return high;
    while (low < high) {
        unsigned middle = low + (high - low) / 2;
        if (directory->children[middle]->id <= after)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int tree_path(const struct entry *entry, char out[PATH_MAX])
{
    size_t at = PATH_MAX - 1;
    out[at] = '\0';
    for (; entry && entry->id != NODE_ROOT; entry = entry->parent) {
        size_t length = strlen(entry->name);
        bool slash = out[at] != '\0';
        if (length + slash > at)
            return -ENAMETOOLONG;
        if (slash)
            out[--at] = '/';
        at -= length;
        memcpy(out + at, entry->name, length);
    }
    memmove(out, out + at, PATH_MAX - at);
    return 0;
}

int tree_path_of(const struct entry *directory, const char *name, char out[PATH_MAX])
{
    int error = tree_path(directory, out);
    size_t length = error ? 0 : strlen(out), more = strlen(name);
    if (error || length + 1 + more + 1 > PATH_MAX)
        return -ENAMETOOLONG;
    if (length)
        out[length++] = '/';
    memcpy(out + length, name, more + 1);
    return 0;
}
