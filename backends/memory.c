/* A datastore in memory, for tests: a tree of names with attributes, gone when it is closed. It behaves as the contract
 * says and as a local filesystem does, errno by errno; one mutex is over all of it. */
#include "backends/memory.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/backends.h"

#define MODE_BITS 07777

/* ---- nodes ---- */

static void free_node(struct memory *memory, struct memory_node *node)
{
    memory_truncate(memory, node, 0);
    while (!list_empty(&node->attributes))
        memory_free_attribute(container_of(node->attributes.next, struct memory_attribute, link));
    free(node->bytes.pages);
    free(node->name);
    free(node->content);
    free(node);
}

void memory_release(struct memory *memory, struct memory_node *node)
{
    if (node->unlinked && node->opens == 0)
        free_node(memory, node);
}

static struct memory_node *new_node(struct memory *memory, const char *name, const struct stat *st, const char *content)
{
    struct memory_node *node = calloc(1, sizeof(*node));
    if (!node)
        return NULL;
    list_init(&node->link);
    list_init(&node->children);
    list_init(&node->attributes);
    node->name = strdup(name);
    node->content = content ? strdup(content) : NULL;
    if (!node->name || (content && !node->content)) {
        free_node(memory, node);
        return NULL;
    }
    node->st.st_mode = st->st_mode;
    node->st.st_uid = st->st_uid == (uid_t)-1 ? 0 : st->st_uid;
    node->st.st_gid = st->st_gid == (gid_t)-1 ? 0 : st->st_gid;
    node->st.st_rdev = S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode) ? st->st_rdev : 0;
    node->st.st_size = content ? (off_t)strlen(content) : 0;
    node->st.st_nlink = S_ISDIR(st->st_mode) ? 2 : 1;
    node->st.st_blksize = MEMORY_PAGE;
    node->st.st_ino = ++memory->next_ino;
    clock_gettime(CLOCK_REALTIME, &node->st.st_mtim);
    node->st.st_atim = node->st.st_ctim = node->st.st_mtim;
    return node;
}

static struct memory_node *child_of(struct memory_node *directory, const char *name, size_t length)
{
    list_for_each (link, &directory->children) {
        struct memory_node *node = container_of(link, struct memory_node, link);
        if (strlen(node->name) == length && memcmp(node->name, name, length) == 0)
            return node;
    }
    return NULL;
}

/* Walks to path, or to its parent: then *leaf is the last component, checked as a name. */
static int walk(struct memory *memory, const char *path, struct memory_node **out, const char **leaf)
{
    struct memory_node *node = memory->root;
    while (*path) {
        size_t length = strcspn(path, "/");
        if (!S_ISDIR(node->st.st_mode))
            return S_ISLNK(node->st.st_mode) ? -ELOOP : -ENOTDIR;
        if (length > NAME_MAX)
            return -ENAMETOOLONG;
        if (length == 0 || (path[0] == '.' && (length == 1 || (length == 2 && path[1] == '.'))))
            return -EINVAL;
        if (leaf && path[length] == '\0') {
            *leaf = path;
            break;
        }
        node = child_of(node, path, length);
        if (!node)
            return -ENOENT;
        path += length;
        path += *path == '/';
    }
    *out = node;
    return 0;
}

int memory_find(struct memory *memory, const char *path, struct memory_node **out)
{
    return walk(memory, path, out, NULL);
}

static int find_parent(struct memory *memory, const char *path, struct memory_node **parent, const char **leaf)
{
    if (*path == '\0')
        return -EBUSY;
    int error = walk(memory, path, parent, leaf);
    if (!error && !S_ISDIR((*parent)->st.st_mode))
        error = -ENOTDIR;
    return error;
}

static void attach(struct memory_node *parent, struct memory_node *node)
{
    node->parent = parent;
    list_append(&parent->children, &node->link);
    parent->st.st_nlink += S_ISDIR(node->st.st_mode);
    clock_gettime(CLOCK_REALTIME, &parent->st.st_mtim);
}

static void detach(struct memory_node *node)
{
    list_remove(&node->link);
    node->parent->st.st_nlink -= S_ISDIR(node->st.st_mode);
    clock_gettime(CLOCK_REALTIME, &node->parent->st.st_mtim);
    node->parent = NULL;
}

static void unlink_node(struct memory *memory, struct memory_node *node)
{
    detach(node);
    node->st.st_nlink = 0;
    node->unlinked = true;
    memory_release(memory, node);
}

struct memory *memory_enter(struct datastore *datastore)
{
    struct memory *memory = datastore->state;
    if (memory)
        pthread_mutex_lock(&memory->mutex);
    return memory;
}

int memory_leave(struct memory *memory, int result)
{
    pthread_mutex_unlock(&memory->mutex);
    return result;
}

/* ---- the datastore ---- */

/* Bytes, or with a suffix K, M, G, T; empty is 0. */
static int parse_size(const char *text, uint64_t *out)
{
    static const char suffixes[] = "KMGT";
    char *end;
    errno = 0;
    unsigned long long value = *text ? strtoull(text, &end, 10) : 0;
    *out = value;
    if (!*text || (*end == '\0' && errno == 0))
        return *text == '-' ? -EINVAL : 0;
    const char *suffix = strchr(suffixes, *end);
    if (errno || !suffix || end[1] != '\0' || end == text || *text == '-')
        return -EINVAL;
    unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
    *out = value << shift;
    return *out >> shift == value ? 0 : -EINVAL;
}

static int open_memory(struct datastore *datastore, const char *rest, struct sentence *why)
{
    uint64_t capacity;
    if (parse_size(rest, &capacity) < 0)
        return refuse(
            why, -EINVAL, "datastore %s: memory: takes a size such as 64M, not \"%s\"", datastore->name, rest);
    struct memory *memory = calloc(1, sizeof(*memory));
    const struct stat st = {.st_mode = S_IFDIR | 0755};
    if (!memory || !(memory->root = new_node(memory, "", &st, NULL))) {
        free(memory);
        return refuse(why, -ENOMEM, "datastore %s: no memory", datastore->name);
    }
    pthread_mutex_init(&memory->mutex, NULL);
    memory->capacity = capacity;
    datastore->state = memory;
    return 0;
}

static void close_memory(struct datastore *datastore)
{
    struct memory *memory = datastore->state;
    if (!memory)
        return;
    struct memory_node *node = memory->root;
    while (node) {
        struct memory_node *parent = node->parent;
        if (!list_empty(&node->children)) {
            node = container_of(node->children.next, struct memory_node, link);
            continue;
        }
        list_remove(&node->link);
        free_node(memory, node);
        node = parent;
    }
    pthread_mutex_destroy(&memory->mutex);
    free(memory);
    datastore->state = NULL;
}

static int statfs_memory(struct datastore *datastore, struct statvfs *out)
{
    struct memory *memory = memory_enter(datastore);
    if (!memory)
        return -EIO;
    uint64_t capacity = memory->capacity ? memory->capacity : 1ull << 40;
    *out = (struct statvfs){.f_bsize = MEMORY_PAGE, .f_frsize = MEMORY_PAGE, .f_namemax = NAME_MAX};
    out->f_blocks = capacity / MEMORY_PAGE;
    out->f_bfree = out->f_bavail = (capacity - memory->used) / MEMORY_PAGE;
    out->f_files = out->f_ffree = out->f_favail = 1u << 20;
    return memory_leave(memory, 0);
}

static struct stat stat_of(const struct memory_node *node)
{
    struct stat st = node->st;
    st.st_blocks = (blkcnt_t)(node->bytes.held * (MEMORY_PAGE / 512));
    return st;
}

static int lookup(struct datastore *datastore, const char *path, struct stat *out)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *node;
    if (!memory)
        return -EIO;
    int error = memory_find(memory, path, &node);
    if (!error)
        *out = stat_of(node);
    return memory_leave(memory, error);
}

struct listed {
    char name[NAME_MAX + 1];
    struct stat st;
};

/* The entries are copied first, so that entry() may call the datastore. */
static int list(struct datastore *datastore, const char *path, datastore_entry *entry, void *argument)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *directory;
    if (!memory)
        return -EIO;
    int result = memory_find(memory, path, &directory);
    if (!result && !S_ISDIR(directory->st.st_mode))
        result = -ENOTDIR;
    if (result)
        return memory_leave(memory, result);
    size_t count = 0, at = 0;
    list_for_each (link, &directory->children)
        count++;
    struct listed *listed = calloc(count + 1, sizeof(*listed));
    if (!listed)
        return memory_leave(memory, -ENOMEM);
    list_for_each (link, &directory->children) {
        struct memory_node *node = container_of(link, struct memory_node, link);
        if (*path == '\0' && strcmp(node->name, DATASTORE_PRIVATE) == 0)
            continue;
        strcpy(listed[at].name, node->name);
        listed[at++].st = stat_of(node);
    }
    memory_leave(memory, 0);
    for (size_t i = 0; i < at && !result; i++)
        result = entry(argument, listed[i].name, &listed[i].st);
    free(listed);
    return result;
}

/* ---- names ---- */

static bool is_type(mode_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISBLK(mode) ||
           S_ISCHR(mode);
}

static int create(struct datastore *datastore, const char *path, const struct stat *st, const char *content)
{
    bool symlink = S_ISLNK(st->st_mode);
    if (!is_type(st->st_mode) || (symlink && !content))
        return -EINVAL;
    if (*path == '\0')
        return -EEXIST;
    struct memory *memory = memory_enter(datastore);
    struct memory_node *parent, *node;
    const char *leaf;
    if (!memory)
        return -EIO;
    int error = find_parent(memory, path, &parent, &leaf);
    if (!error && child_of(parent, leaf, strlen(leaf)))
        error = -EEXIST;
    if (error)
        return memory_leave(memory, error);
    struct stat exact = *st;
    exact.st_mode = (st->st_mode & S_IFMT) | (symlink ? 0777 : st->st_mode & MODE_BITS);
    node = new_node(memory, leaf, &exact, symlink ? content : NULL);
    if (node)
        attach(parent, node);
    return memory_leave(memory, node ? 0 : -ENOMEM);
}

static bool is_below(const struct memory_node *node, const struct memory_node *ancestor)
{
    while (node && node != ancestor)
        node = node->parent;
    return node != NULL;
}

/* May from take the place of to? */
static int may_replace(const struct memory_node *from, const struct memory_node *to, bool replace)
{
    if (!replace)
        return -EEXIST;
    if (S_ISDIR(to->st.st_mode) != S_ISDIR(from->st.st_mode))
        return S_ISDIR(to->st.st_mode) ? -EISDIR : -ENOTDIR;
    return list_empty(&to->children) ? 0 : -ENOTEMPTY;
}

static int move(struct memory *memory, const char *from, const char *to, bool replace)
{
    struct memory_node *from_parent, *to_parent;
    const char *from_leaf, *to_leaf;
    int error = find_parent(memory, from, &from_parent, &from_leaf);
    if (!error)
        error = find_parent(memory, to, &to_parent, &to_leaf);
    if (error)
        return error;
    struct memory_node *node = child_of(from_parent, from_leaf, strlen(from_leaf));
    struct memory_node *old = child_of(to_parent, to_leaf, strlen(to_leaf));
    if (!node)
        return -ENOENT;
    if (S_ISDIR(node->st.st_mode) && is_below(to_parent, node))
        return -EINVAL;
    if (old)
        error = may_replace(node, old, replace);
    if (error || old == node)
        return error;
    char *name = strdup(to_leaf);
    if (!name)
        return -ENOMEM;
    if (old)
        unlink_node(memory, old);
    detach(node);
    free(node->name);
    node->name = name;
    attach(to_parent, node);
    return 0;
}

static int rename_memory(struct datastore *datastore, const char *from, const char *to, bool replace)
{
    struct memory *memory = memory_enter(datastore);
    return memory ? memory_leave(memory, move(memory, from, to, replace)) : -EIO;
}

static int remove_memory(struct datastore *datastore, const char *path, bool directory)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *parent, *node = NULL;
    const char *leaf;
    if (!memory)
        return -EIO;
    int error = find_parent(memory, path, &parent, &leaf);
    if (!error && !(node = child_of(parent, leaf, strlen(leaf))))
        error = -ENOENT;
    if (!error && S_ISDIR(node->st.st_mode) != directory)
        error = directory ? -ENOTDIR : -EISDIR;
    if (!error && !list_empty(&node->children))
        error = -ENOTEMPTY;
    if (!error)
        unlink_node(memory, node);
    return memory_leave(memory, error);
}

static int readlink_memory(struct datastore *datastore, const char *path, char *out, size_t size)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *node;
    if (!memory)
        return -EIO;
    int error = memory_find(memory, path, &node);
    if (!error && !S_ISLNK(node->st.st_mode))
        error = -EINVAL;
    if (!error && strlen(node->content) >= size)
        error = -ERANGE;
    if (!error)
        strcpy(out, node->content);
    return memory_leave(memory, error);
}

/* ---- attributes ---- */

static void set_time(struct timespec *time, const struct timespec *want)
{
    if (want->tv_nsec == UTIME_NOW)
        clock_gettime(CLOCK_REALTIME, time);
    else if (want->tv_nsec != UTIME_OMIT)
        *time = *want;
}

static void change(struct stat *st, const struct stat *want, unsigned mask)
{
    if (mask & ATTRIBUTE_OWNER) {
        if (want->st_uid != (uid_t)-1)
            st->st_uid = want->st_uid;
        if (want->st_gid != (gid_t)-1)
            st->st_gid = want->st_gid;
        if (S_ISREG(st->st_mode))
            st->st_mode &= ~(mode_t)(S_ISUID | (st->st_mode & S_IXGRP ? S_ISGID : 0));
    }
    if (mask & ATTRIBUTE_MODE)
        st->st_mode = (st->st_mode & S_IFMT) | (want->st_mode & MODE_BITS);
    if (mask & ATTRIBUTE_ATIME)
        set_time(&st->st_atim, &want->st_atim);
    if (mask & ATTRIBUTE_MTIME)
        set_time(&st->st_mtim, &want->st_mtim);
    clock_gettime(CLOCK_REALTIME, &st->st_ctim);
}

static int set_attributes(struct datastore *datastore, const char *path, const struct stat *st, unsigned mask)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *node;
    if (!memory)
        return -EIO;
    int error = memory_find(memory, path, &node);
    if (!error && S_ISLNK(node->st.st_mode) && (mask & ATTRIBUTE_MODE))
        error = -EOPNOTSUPP;
    if (!error)
        change(&node->st, st, mask);
    return memory_leave(memory, error);
}

/* Memory is as durable as it gets; but the directory must be there. */
static int sync_directory(struct datastore *datastore, const char *path)
{
    struct memory *memory = memory_enter(datastore);
    struct memory_node *parent;
    const char *leaf;
    if (!memory)
        return -EIO;
    return memory_leave(memory, *path ? find_parent(memory, path, &parent, &leaf) : 0);
}

const struct datastore_ops backend_memory = {
    .scheme = "memory",
    .open = open_memory,
    .close = close_memory,
    .statfs = statfs_memory,
    .lookup = lookup,
    .list = list,
    .create = create,
    .rename = rename_memory,
    .remove = remove_memory,
    .readlink = readlink_memory,
    .set_attributes = set_attributes,
    .get_xattr = memory_get_xattr,
    .set_xattr = memory_set_xattr,
    .list_xattr = memory_list_xattr,
    .remove_xattr = memory_remove_xattr,
    .sync_directory = sync_directory,
    .open_image = memory_open_image,
};
