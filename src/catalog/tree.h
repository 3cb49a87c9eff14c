/* tree: the names in memory. Entries are found by id and by (parent, name); a directory's children stand in the order
 * of their ids. All functions want the tree's mutex held, none blocks. */
#pragma once

#include <pthread.h>
#include <time.h>

#include "catalog/catalog.h"

/* Why a name answers EIO. Stored in the records: values are fixed. */
enum trouble {
    TROUBLE_NONE = 0,
    TROUBLE_CONFLICT = 1,  /* on several datastores; the record knows which one was there first */
    TROUBLE_AMBIGUOUS = 2, /* on several datastores, none of them was there first */
    TROUBLE_ABSENT = 3,    /* its datastore is not configured any more */
    TROUBLE_LOST = 4,      /* a committed move's file is not where it should be */
};

struct entry {
    struct entry *id_next, *name_next;
    struct entry *parent; /* NULL: the root, an orphan */
    uint64_t id, name_hash;
    char *name;
    char *content; /* a symlink's target */
    char *file;    /* hidden path on the datastore, or NULL: the logical path */
    struct stat st;
    unsigned datastore;
    uint64_t carriers; /* directories: datastores that have it, by the bits of the records (catalog_bit) */
    enum trouble trouble;
    bool known, orphan;
    /* directories */
    struct entry **children;
    unsigned child_count, child_space, directories;
    /* holds (hold.h) */
    unsigned users;
    bool owned;
    uint64_t wanted;
    /* counts of changes, to see that something came in between */
    unsigned writes, attribute_changes;
    /* directories: for which directory's job, and at which count of changes, the attributes were copied to its target */
    uint64_t copied_for;
    unsigned copied_changes;
    unsigned stamp; /* of the last scan that saw it */
};

struct tree {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* a hold was given back */
    struct entry **by_id, **by_name;
    size_t mask, count;
};

int tree_init(struct tree *tree);
void tree_free(struct tree *tree);

struct entry *entry_new(uint64_t id, const char *name, const struct stat *st, const char *content);
void entry_free(struct entry *entry);
static inline bool entry_is_directory(const struct entry *entry)
{
    return S_ISDIR(entry->st.st_mode);
}
void entry_node(const struct entry *entry, struct node *out);
/* mtime and ctime become now. */
void entry_touch(struct entry *entry);
/* Below or at directory. */
bool entry_is_below(const struct entry *entry, const struct entry *directory);

/* By id. An entry that was added may be linked below a directory, under its name. */
void tree_add(struct tree *tree, struct entry *entry);
void tree_drop(struct tree *tree, struct entry *entry);
struct entry *tree_get(const struct tree *tree, uint64_t id);

/* Room for one more child for each user of the directory: tree_link cannot fail afterwards. 0 or -ENOMEM. */
int tree_reserve(struct entry *directory);
void tree_link(struct tree *tree, struct entry *directory, struct entry *entry);
void tree_unlink(struct tree *tree, struct entry *entry);
struct entry *tree_child(const struct tree *tree, const struct entry *directory, const char *name);
/* The index of the first child with an id greater than after. */
unsigned tree_child_after(const struct entry *directory, uint64_t after);

/* 0 or -ENAMETOOLONG. */
int tree_path(const struct entry *entry, char out[PATH_MAX]);
/* The path of a name that may not exist. */
int tree_path_of(const struct entry *directory, const char *name, char out[PATH_MAX]);
