/* memory: what the datastore in memory and its images share: a store of nodes, and the bytes of a file in sparse pages.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>

#include "io/datastore.h"

#define MEMORY_PAGE (64u << 10)

/* datastore->state of an open memory datastore. The mutex is over everything below, bytes included. */
struct memory {
    pthread_mutex_t mutex;
    uint64_t capacity, used; /* bytes; capacity 0: as much as there is */
    struct memory_node *root;
    ino_t next_ino;
};

struct memory_page;

/* The bytes of a file. A page that is not there is a hole. */
struct memory_bytes {
    struct memory_page **pages; /* by index, NULL beyond count */
    uint64_t count;
    uint64_t held; /* pages that are there */
};

struct memory_attribute {
    struct list link;
    size_t size;
    char *name;
    void *value;
};

/* A name's object. It goes away when neither a name nor an open image holds it. */
struct memory_node {
    struct memory_node *parent;
    struct list link;     /* in parent->children */
    struct list children; /* of a directory, in order of creation */
    struct list attributes;
    struct stat st;
    char *name, *content; /* content: a symlink's */
    unsigned opens;
    bool unlinked;
    struct memory_bytes bytes;
};

/* Takes the mutex; NULL when the datastore is not open. leave gives it back and passes result on. */
struct memory *memory_enter(struct datastore *datastore);
int memory_leave(struct memory *memory, int result);

/* With the mutex held. */
void memory_release(struct memory *memory, struct memory_node *node);
int memory_find(struct memory *memory, const char *path, struct memory_node **out);
void memory_truncate(struct memory *memory, struct memory_node *node, uint64_t size);

void memory_free_attribute(struct memory_attribute *attribute);

/* datastore_ops' */
ssize_t memory_get_xattr(struct datastore *datastore, const char *path, const char *name, void *value, size_t size);
int memory_set_xattr(
    struct datastore *datastore, const char *path, const char *name, const void *value, size_t size, int flags);
ssize_t memory_list_xattr(struct datastore *datastore, const char *path, char *out, size_t size);
int memory_remove_xattr(struct datastore *datastore, const char *path, const char *name);
int memory_open_image(struct datastore *datastore, const char *path, bool writable, struct image **out);
