/* Handlers of open directories. They have no state: a position is a cookie (fs/dirent.h), and the list is the
 * catalog's. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <stdio.h>

#include "fs/dirent.h"
#include "fs/handlers.h"
#include "fs/open.h"
#include "fs/removed.h"

struct listing {
    struct filesystem *fs;
    struct dirent_room room;
    bool plus;
};

static bool add(struct listing *listing, const struct node *node, uint64_t cookie, const char *name, bool entry)
{
    struct fuse_entry_out out = {0};
    /* The kernel would cache the name of a conflict, and pass by the EIO of its look-up. */
    if (entry && listing->plus && !node->conflict && node->known)
        fill_entry(listing->fs, node, &out);
    return dirent_add(&listing->room, listing->plus ? &out : NULL, node->id, cookie, node->st.st_mode, name);
}

static int add_entry(void *argument, const char *name, const struct node *node)
{
    return !add(argument, node, dirent_cookie(node->id), name, true);
}

static int fill(struct listing *listing, uint64_t directory, uint64_t cookie)
{
    struct catalog *catalog = listing->fs->catalog;
    struct node node, parent;
    int error = catalog_get(catalog, directory, &node);
    if (error)
        return error;
    if (!S_ISDIR(node.st.st_mode))
        return -ENOTDIR;
    if (catalog_get(catalog, node.parent, &parent) < 0)
        parent = node;
    if (cookie < DIRENT_AFTER_DOT && !add(listing, &node, DIRENT_AFTER_DOT, ".", false))
        return 0;
    if (cookie < DIRENT_AFTER_DOTDOT && !add(listing, &parent, DIRENT_AFTER_DOTDOT, "..", false))
        return 0;
    return catalog_list(catalog, directory, dirent_after(cookie), add_entry, listing);
}

/* A removed directory that is still open has no entries. */
static void list(struct request *request, bool plus)
{
    const struct fuse_read_in *in = request->body;
    struct listing listing = {.fs = request->fs, .plus = plus};
    struct node gone;
    listing.room.size = in->size < MAX_WRITE ? in->size : MAX_WRITE;
    listing.room.data = request->out = malloc(listing.room.size + 1);
    int error = request->out ? fill(&listing, request->in->nodeid, in->offset) : -ENOMEM;
    if (error == -ENOENT && removed_get(request->fs->handlers->removed, request->in->nodeid, &gone) == 0)
        error = 0;
    if (error < 0) {
        request_reply(request, error);
        return;
    }
    struct iovec iov = {listing.room.data, listing.room.used};
    request_reply_iov(request, &iov, 1, listing.room.used);
}

void handle_readdir(struct request *request)
{
    list(request, false);
}

void handle_readdirplus(struct request *request)
{
    list(request, true);
}

void handle_opendir(struct request *request)
{
    struct fuse_open_out out = {0};
    struct iovec iov = {&out, sizeof(out)};
    struct node node;
    int error = catalog_get(request->fs->catalog, request->in->nodeid, &node);
    if (error == -ENOENT)
        error = removed_get(request->fs->handlers->removed, request->in->nodeid, &node);
    if (!error && !S_ISDIR(node.st.st_mode))
        error = -ENOTDIR;
    if (error)
        request_reply(request, error);
    else
        request_reply_iov(request, &iov, 1, sizeof(out));
}

void handle_releasedir(struct request *request)
{
    request_reply(request, 0);
}

/* On every datastore that has the directory: a file may stand in it on another one than its home. The path is of a name below it,
 * so that the directory that holds the name is the one that was asked for. */
static int sync_call(struct request *request)
{
    struct catalog *catalog = request->fs->catalog;
    struct node node;
    char path[PATH_MAX], below[PATH_MAX + 2];
    int error = catalog_get(catalog, request->in->nodeid, &node);
    if (!error)
        error = catalog_path(catalog, request->in->nodeid, path);
    if (error)
        return error == -ENOENT ? 0 : error;
    snprintf(below, sizeof(below), "%s%sx", path, *path ? "/" : "");
    uint64_t carriers = catalog_carriers(catalog, request->in->nodeid);
    for (unsigned i = 0; i < catalog_datastore_count(catalog) && !error; i++) {
        struct datastore *datastore = catalog_datastore(catalog, i);
        /* The root is everywhere, and what hangs must not keep a name elsewhere from being durable: its home alone. */
        if (!(carriers >> i & 1) || (node.id == NODE_ROOT && i != node.datastore))
            continue;
        error = datastore->ops->sync_directory(datastore, below);
        if (error == -ENOENT)
            error = 0;
    }
    return error;
}

void handle_fsyncdir(struct request *request)
{
    struct catalog *catalog = request->fs->catalog;
    struct node node;
    int error = catalog_get(catalog, request->in->nodeid, &node);
    if (error == -ENOENT && removed_get(request->fs->handlers->removed, request->in->nodeid, &node) == 0)
        request_reply(request, 0);
    else if (error)
        request_reply(request, error);
    else
        request_block_control(request, sync_call, request_reply);
}
