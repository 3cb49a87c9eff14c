/* tree: the nodes of a volume in memory: numbers, names, attributes, maps; and what of them is not durable yet. No I/O;
 * the owner's lock is over all of it. */
#pragma once

#include <sys/stat.h>

#include "backends/volume/map.h"
#include "base/error.h"
#include "base/list.h"

struct xattr {
    struct list link;
    char *name;
    void *value;
    size_t size;
};

struct range {
    uint32_t start, end; /* extents */
};

/* Logical extents that a commit must tell of. */
struct ranges {
    struct range *list;
    uint32_t count, room;
};

int ranges_add(struct ranges *ranges, uint32_t start, uint32_t end);
/* Sorted, without overlaps. */
void ranges_settle(struct ranges *ranges);
void ranges_clear(struct ranges *ranges);

enum dirty {
    DIRTY_NODE = 1,
    DIRTY_XATTRS = 2,
    DIRTY_RUNS = 4,
    DIRTY_TIMES = 8, /* alone it makes no commit */
};

struct volume_node {
    uint64_t id, parent_id;
    struct volume_node *parent;
    struct list link;     /* in parent->children, in order of creation */
    struct list children; /* of a directory */
    struct volume_node *next_by_id, *next_by_name;
    char *name, *content;
    struct stat st; /* mode, owner, rdev, size, times; nlink of a directory */
    struct list xattrs;
    struct map map;
    /* changes */
    unsigned dirty;
    struct list dirty_link; /* in tree->dirty while dirty */
    struct ranges ranges;
    uint64_t change; /* the commit that makes the last change durable */
    bool known;      /* a commit or checkpoint has told of it */
    bool unlinked;
    /* images */
    unsigned opens;
    bool tail_dirty;     /* bytes behind the end, in the last block, may be anything */
    bool tail_busy;      /* they are being zeroed */
    unsigned growing;    /* writes in flight that end behind the size */
    struct list parked;  /* requests that wait for tail or filling */
    struct list filling; /* blocks that are being written for the first time, in part */
};

struct tree {
    struct volume_node *root;
    struct volume_node **by_id, **by_name;
    size_t buckets, count;
    uint64_t next_id;
    uint64_t bytes, bytes_max; /* of nodes and xattrs as encoded */
    struct list dirty;
    uint64_t *removed; /* numbers for the next commit */
    size_t removed_count, removed_room;
    struct list orphans; /* unlinked and open */
    uint64_t commit;     /* the number that the next commit will have */
};

/* With no node but the root (unless bare). 0 or -ENOMEM. */
int nodes_open(struct tree *tree, bool bare);
void nodes_close(struct tree *tree);

struct volume_node *nodes_by_id(const struct tree *tree, uint64_t id);
struct volume_node *nodes_child(
    const struct tree *tree, const struct volume_node *directory, const char *name, size_t length);

/* path as datastore.h says. 0 or -errno as the filesystem has it. */
int nodes_find(const struct tree *tree, const char *path, struct volume_node **out);
/* The directory that holds path; leaf: the last component. */
int nodes_parent(const struct tree *tree, const char *path, struct volume_node **parent, const char **leaf);

/* Without a name and a number (0: the next). NULL without memory. */
struct volume_node *nodes_new(struct tree *tree, uint64_t id);
int nodes_set_name(struct volume_node *node, const char *name, size_t length);
void nodes_attach(struct tree *tree, struct volume_node *parent, struct volume_node *node);
void nodes_detach(struct tree *tree, struct volume_node *node);
/* Frees the node; its name is gone, nobody has it open, its extents are the caller's. */
void nodes_drop(struct tree *tree, struct volume_node *node);
void nodes_free_xattr(struct xattr *xattr);

/* The change goes into the next commit. 0 or -ENOMEM. */
void nodes_dirty(struct tree *tree, struct volume_node *node, unsigned what);
int nodes_dirty_runs(struct tree *tree, struct volume_node *node, uint32_t start, uint32_t end);
/* Room for one more removed number; then note it. */
int nodes_removed_room(struct tree *tree);
void nodes_removed(struct tree *tree, struct volume_node *node);

/* Bytes that a checkpoint needs for it. */
size_t nodes_node_bytes(const struct volume_node *node);
bool nodes_has_room(const struct tree *tree, size_t more);

/* Is there anything for a commit? */
bool nodes_is_dirty(const struct tree *tree);
