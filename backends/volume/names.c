/* The datastore's calls on names and attributes: all in memory, durable with the next commit. */
#include "backends/volume/names.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <time.h>

#include "backends/volume/node.h"

#define MODE_BITS   07777
#define XATTR_SPACE "user."
#define NODE_GUESS  256 /* bytes of a node, to say how many more there may be */

struct volume *volume_enter(struct datastore *datastore)
{
    struct volume_datastore *own = datastore->state;
    if (!own)
        return NULL;
    pthread_mutex_lock(&own->volume->mutex);
    return own->volume;
}

int volume_leave(struct volume *volume, int result)
{
    pthread_mutex_unlock(&volume->mutex);
    return result;
}

/* NULL and *error: there is no volume, or no changes may be made. */
static struct volume *enter_to_change(struct datastore *datastore, int *error)
{
    struct volume *volume = volume_enter(datastore);
    *error = -EIO;
    if (!volume)
        return NULL;
    if ((volume->flags & VOLUME_WRITABLE) && !atomic_load(&volume->failed))
        return volume;
    *error = volume_leave(volume, volume->flags & VOLUME_WRITABLE ? -EIO : -EROFS);
    return NULL;
}

/* What is answered outlives this process. */
static int leave_changed(struct volume *volume, int result)
{
    if (result < 0)
        return volume_leave(volume, result);
    commit_later(volume);
    volume_leave(volume, 0);
    return volume_keep(volume);
}

static void changed(struct volume *volume, struct volume_node *node, unsigned what)
{
    clock_gettime(CLOCK_REALTIME, &node->st.st_ctim);
    nodes_dirty(&volume->tree, node, what);
}

static void entry_changed(struct volume *volume, struct volume_node *directory)
{
    clock_gettime(CLOCK_REALTIME, &directory->st.st_mtim);
    changed(volume, directory, DIRTY_NODE);
}

static struct stat stat_of(const struct volume_node *node)
{
    struct stat st = node->st;
    st.st_blocks = (blkcnt_t)(node->map.blocks * (VOLUME_BLOCK / 512));
    return st;
}

/* ---- looking ---- */

int volume_statfs(struct datastore *datastore, struct statvfs *out)
{
    struct volume *volume = volume_enter(datastore);
    if (!volume)
        return -EIO;
    const struct superblock *superblock = &volume->superblock;
    uint64_t metadata = 2 * (1ull + superblock->journal_extents + 2ull * superblock->area_extents);
    uint64_t available = volume->space.free + volume->releaser.extents;
    uint64_t nodes = volume->tree.bytes < volume->tree.bytes_max
                         ? (volume->tree.bytes_max - volume->tree.bytes) / NODE_GUESS
                         : 0;
    *out = (struct statvfs){.f_bsize = VOLUME_BLOCK, .f_frsize = VOLUME_BLOCK, .f_namemax = VOLUME_NAME_MAX};
    out->f_blocks = (superblock->extents - metadata) * VOLUME_BLOCKS;
    out->f_bfree = out->f_bavail = available * VOLUME_BLOCKS;
    out->f_files = volume->tree.count + nodes;
    out->f_ffree = out->f_favail = nodes;
    return volume_leave(volume, 0);
}

int volume_lookup(struct datastore *datastore, const char *path, struct stat *out)
{
    struct volume *volume = volume_enter(datastore);
    struct volume_node *node;
    if (!volume)
        return -EIO;
    int error = nodes_find(&volume->tree, path, &node);
    if (!error)
        *out = stat_of(node);
    return volume_leave(volume, error);
}

struct listed {
    char name[VOLUME_NAME_MAX + 1];
    struct stat st;
};

/* The entries are copied first, so that entry() may call the datastore. */
int volume_list(struct datastore *datastore, const char *path, datastore_entry *entry, void *argument)
{
    struct volume *volume = volume_enter(datastore);
    struct volume_node *directory;
    size_t count = 0, at = 0;
    if (!volume)
        return -EIO;
    int result = nodes_find(&volume->tree, path, &directory);
    if (!result && !S_ISDIR(directory->st.st_mode))
        result = -ENOTDIR;
    if (result)
        return volume_leave(volume, result);
    list_for_each (link, &directory->children)
        count++;
    struct listed *listed = calloc(count + 1, sizeof(*listed));
    if (!listed)
        return volume_leave(volume, -ENOMEM);
    list_for_each (link, &directory->children) {
        struct volume_node *node = container_of(link, struct volume_node, link);
        if (*path == '\0' && strcmp(node->name, DATASTORE_PRIVATE) == 0)
            continue;
        strcpy(listed[at].name, node->name);
        listed[at++].st = stat_of(node);
    }
    volume_leave(volume, 0);
    for (size_t i = 0; i < at && !result; i++)
        result = entry(argument, listed[i].name, &listed[i].st);
    free(listed);
    return result;
}

int volume_readlink(struct datastore *datastore, const char *path, char *out, size_t size)
{
    struct volume *volume = volume_enter(datastore);
    struct volume_node *node;
    if (!volume)
        return -EIO;
    int error = nodes_find(&volume->tree, path, &node);
    if (!error && !S_ISLNK(node->st.st_mode))
        error = -EINVAL;
    if (!error && strlen(node->content) >= size)
        error = -ERANGE;
    if (!error)
        strcpy(out, node->content);
    return volume_leave(volume, error);
}

/* ---- names ---- */

static bool is_type(mode_t mode)
{
    return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISBLK(mode) ||
           S_ISCHR(mode);
}

static void first_attributes(struct volume_node *node, const struct stat *st)
{
    bool device = S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode), symlink = S_ISLNK(st->st_mode);
    node->st.st_mode = (st->st_mode & S_IFMT) | (symlink ? 0777 : st->st_mode & MODE_BITS);
    node->st.st_uid = st->st_uid == (uid_t)-1 ? 0 : st->st_uid;
    node->st.st_gid = st->st_gid == (gid_t)-1 ? 0 : st->st_gid;
    node->st.st_rdev = device ? st->st_rdev : 0;
    node->st.st_size = node->content ? (off_t)strlen(node->content) : 0;
    node->st.st_nlink = S_ISDIR(st->st_mode) ? 2 : 1;
    clock_gettime(CLOCK_REALTIME, &node->st.st_mtim);
    node->st.st_atim = node->st.st_ctim = node->st.st_mtim;
}

static int make(
    struct volume *volume, struct volume_node *parent, const char *leaf, const struct stat *st, const char *content)
{
    struct tree *tree = &volume->tree;
    struct volume_node *node = nodes_new(tree, 0);
    if (!node)
        return -ENOMEM;
    node->content = content ? strdup(content) : NULL;
    int error = (content && !node->content) || nodes_set_name(node, leaf, strlen(leaf)) < 0 ? -ENOMEM : 0;
    if (!error && !nodes_has_room(tree, nodes_node_bytes(node)))
        error = -ENOSPC;
    if (error) {
        nodes_drop(tree, node);
        return error;
    }
    first_attributes(node, st);
    nodes_attach(tree, parent, node);
    tree->bytes += nodes_node_bytes(node);
    nodes_dirty(tree, node, DIRTY_NODE);
    entry_changed(volume, parent);
    return 0;
}

int volume_create(struct datastore *datastore, const char *path, const struct stat *st, const char *content)
{
    bool symlink = S_ISLNK(st->st_mode);
    if (!is_type(st->st_mode) || (symlink && (!content || !*content)))
        return -EINVAL;
    if (symlink && strlen(content) > VOLUME_CONTENT_MAX)
        return -ENAMETOOLONG;
    if (*path == '\0')
        return -EEXIST;
    struct volume_node *parent;
    const char *leaf;
    int error;
    struct volume *volume = enter_to_change(datastore, &error);
    if (!volume)
        return error;
    error = nodes_parent(&volume->tree, path, &parent, &leaf);
    if (!error && nodes_child(&volume->tree, parent, leaf, strlen(leaf)))
        error = -EEXIST;
    if (!error)
        error = make(volume, parent, leaf, st, symlink ? content : NULL);
    return leave_changed(volume, error);
}

static void unlink_node(struct volume *volume, struct volume_node *node)
{
    struct volume_node *parent = node->parent;
    volume->tree.bytes -= nodes_node_bytes(node);
    nodes_detach(&volume->tree, node);
    entry_changed(volume, parent);
    nodes_removed(&volume->tree, node);
    node_release(volume, node);
}

static bool is_below(const struct volume_node *node, const struct volume_node *ancestor)
{
    while (node && node != ancestor)
        node = node->parent;
    return node != NULL;
}

/* May from take the place of to? */
static int may_replace(const struct volume_node *from, const struct volume_node *to, bool replace)
{
    if (!replace)
        return -EEXIST;
    if (S_ISDIR(to->st.st_mode) != S_ISDIR(from->st.st_mode))
        return S_ISDIR(to->st.st_mode) ? -EISDIR : -ENOTDIR;
    return list_empty(&to->children) ? 0 : -ENOTEMPTY;
}

static int give_name(struct volume *volume, struct volume_node *node, struct volume_node *parent, const char *leaf,
    struct volume_node *old)
{
    struct tree *tree = &volume->tree;
    struct volume_node *from = node->parent;
    char *name = strdup(leaf);
    if (!name || nodes_removed_room(tree) < 0 || !nodes_has_room(tree, strlen(leaf) + 8)) {
        free(name);
        return name ? (nodes_has_room(tree, strlen(leaf) + 8) ? -ENOMEM : -ENOSPC) : -ENOMEM;
    }
    if (old)
        unlink_node(volume, old);
    tree->bytes -= nodes_node_bytes(node);
    nodes_detach(tree, node);
    free(node->name);
    node->name = name;
    nodes_attach(tree, parent, node);
    tree->bytes += nodes_node_bytes(node);
    changed(volume, node, DIRTY_NODE);
    entry_changed(volume, from);
    entry_changed(volume, parent);
    return 0;
}

static int move(struct volume *volume, const char *from, const char *to, bool replace)
{
    struct volume_node *from_parent, *to_parent;
    const char *from_leaf, *to_leaf;
    int error = nodes_parent(&volume->tree, from, &from_parent, &from_leaf);
    if (!error)
        error = nodes_parent(&volume->tree, to, &to_parent, &to_leaf);
    if (error)
        return error;
    struct volume_node *node = nodes_child(&volume->tree, from_parent, from_leaf, strlen(from_leaf));
    struct volume_node *old = nodes_child(&volume->tree, to_parent, to_leaf, strlen(to_leaf));
    if (!node)
        return -ENOENT;
    if (S_ISDIR(node->st.st_mode) && is_below(to_parent, node))
        return -EINVAL;
    if (old)
        error = may_replace(node, old, replace);
    if (error || old == node)
        return error;
    return give_name(volume, node, to_parent, to_leaf, old);
}

int volume_rename(struct datastore *datastore, const char *from, const char *to, bool replace)
{
    int error;
    struct volume *volume = enter_to_change(datastore, &error);
    return volume ? leave_changed(volume, move(volume, from, to, replace)) : error;
}

int volume_unlink(struct volume *volume, const char *path, bool directory)
{
    struct volume_node *parent, *node = NULL;
    const char *leaf;
    int error = nodes_parent(&volume->tree, path, &parent, &leaf);
    if (!error && !(node = nodes_child(&volume->tree, parent, leaf, strlen(leaf))))
        error = -ENOENT;
    if (!error && S_ISDIR(node->st.st_mode) != directory)
        error = directory ? -ENOTDIR : -EISDIR;
    if (!error && !list_empty(&node->children))
        error = -ENOTEMPTY;
    if (!error)
        error = nodes_removed_room(&volume->tree);
    if (!error)
        unlink_node(volume, node);
    return error;
}

int volume_remove_path(struct datastore *datastore, const char *path, bool directory)
{
    int error;
    struct volume *volume = enter_to_change(datastore, &error);
    return volume ? leave_changed(volume, volume_unlink(volume, path, directory)) : error;
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
}

int volume_set_attributes(struct datastore *datastore, const char *path, const struct stat *st, unsigned mask)
{
    struct volume_node *node;
    int error;
    struct volume *volume = enter_to_change(datastore, &error);
    if (!volume)
        return error;
    error = nodes_find(&volume->tree, path, &node);
    if (!error && S_ISLNK(node->st.st_mode) && (mask & ATTRIBUTE_MODE))
        error = -EOPNOTSUPP;
    if (!error) {
        change(&node->st, st, mask);
        changed(volume, node, DIRTY_NODE);
    }
    return leave_changed(volume, error);
}

static struct xattr *find_xattr(struct volume_node *node, const char *name)
{
    list_for_each (link, &node->xattrs) {
        struct xattr *xattr = container_of(link, struct xattr, link);
        if (strcmp(xattr->name, name) == 0)
            return xattr;
    }
    return NULL;
}

/* The kernel lets only files and directories have user.* ones. */
static int find_node(struct volume *volume, const char *path, const char *name, bool to_set, struct volume_node **out)
{
    int error = nodes_find(&volume->tree, path, out);
    if (error)
        return error;
    if (strncmp(name, XATTR_SPACE, strlen(XATTR_SPACE)) != 0)
        return -EOPNOTSUPP;
    if (!S_ISREG((*out)->st.st_mode) && !S_ISDIR((*out)->st.st_mode))
        return to_set ? -EPERM : -ENODATA;
    return 0;
}

ssize_t volume_get_xattr(struct datastore *datastore, const char *path, const char *name, void *value, size_t size)
{
    struct volume *volume = volume_enter(datastore);
    struct volume_node *node;
    if (!volume)
        return -EIO;
    int error = find_node(volume, path, name, false, &node);
    const struct xattr *found = error ? NULL : find_xattr(node, name);
    if (!error && !found)
        error = -ENODATA;
    if (!error && size && found->size > size)
        error = -ERANGE;
    if (error)
        return volume_leave(volume, error);
    if (size)
        memcpy(value, found->value, found->size);
    return volume_leave(volume, (int)found->size);
}

static int store_xattr(
    struct volume *volume, struct volume_node *node, const char *name, const void *value, size_t size, int flags)
{
    struct xattr *found = find_xattr(node, name), *made = found;
    size_t before = nodes_node_bytes(node), more = sizeof(struct disk_xattr) + strlen(name) + size + 32;
    if (found && (flags & XATTR_CREATE))
        return -EEXIST;
    if (!found && (flags & XATTR_REPLACE))
        return -ENODATA;
    if (!nodes_has_room(&volume->tree, more) || before + more > VOLUME_XATTRS_MAX)
        return -ENOSPC;
    void *copy = malloc(size + 1);
    if (!found && (made = calloc(1, sizeof(*made)))) {
        list_init(&made->link);
        made->name = strdup(name);
    }
    if (!copy || !made || !made->name) {
        free(copy);
        if (made && !found)
            nodes_free_xattr(made);
        return -ENOMEM;
    }
    memcpy(copy, value, size);
    free(made->value);
    made->value = copy;
    made->size = size;
    if (!found)
        list_append(&node->xattrs, &made->link);
    volume->tree.bytes += nodes_node_bytes(node);
    volume->tree.bytes -= before;
    changed(volume, node, DIRTY_NODE | DIRTY_XATTRS);
    return 0;
}

int volume_set_xattr(
    struct datastore *datastore, const char *path, const char *name, const void *value, size_t size, int flags)
{
    struct volume_node *node;
    int error;
    struct volume *volume = enter_to_change(datastore, &error);
    if (!volume)
        return error;
    error = find_node(volume, path, name, true, &node);
    if (!error && strlen(name) > VOLUME_NAME_MAX)
        error = -ERANGE;
    if (!error && size > XATTR_SIZE_MAX)
        error = -E2BIG;
    if (!error)
        error = store_xattr(volume, node, name, value, size, flags);
    return leave_changed(volume, error);
}

ssize_t volume_list_xattr(struct datastore *datastore, const char *path, char *out, size_t size)
{
    struct volume *volume = volume_enter(datastore);
    struct volume_node *node;
    size_t used = 0;
    if (!volume)
        return -EIO;
    int error = nodes_find(&volume->tree, path, &node);
    if (error)
        return volume_leave(volume, error);
    list_for_each (link, &node->xattrs) {
        const char *name = container_of(link, struct xattr, link)->name;
        size_t bytes = strlen(name) + 1;
        if (size && used + bytes > size)
            return volume_leave(volume, -ERANGE);
        if (size)
            memcpy(out + used, name, bytes);
        used += bytes;
    }
    return volume_leave(volume, (int)used);
}

int volume_remove_xattr(struct datastore *datastore, const char *path, const char *name)
{
    struct volume_node *node;
    int error;
    struct volume *volume = enter_to_change(datastore, &error);
    if (!volume)
        return error;
    error = find_node(volume, path, name, true, &node);
    struct xattr *found = error ? NULL : find_xattr(node, name);
    if (!error && !found)
        error = -ENODATA;
    if (!error) {
        volume->tree.bytes -= nodes_node_bytes(node);
        nodes_free_xattr(found);
        volume->tree.bytes += nodes_node_bytes(node);
        changed(volume, node, DIRTY_NODE | DIRTY_XATTRS);
    }
    return leave_changed(volume, error);
}

int volume_sync_directory(struct datastore *datastore, const char *path)
{
    struct volume *volume = volume_enter(datastore);
    struct volume_node *parent;
    const char *leaf;
    if (!volume)
        return -EIO;
    int error = *path ? nodes_parent(&volume->tree, path, &parent, &leaf) : 0;
    volume_leave(volume, error);
    return error || !(volume->flags & VOLUME_WRITABLE) ? error : volume_sync(volume, false);
}
