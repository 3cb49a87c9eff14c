/* stage: what the catalog's tests stand on: local datastores in a directory of the test's own, behind a hook that sees
 * every call that changes something, and a catalog over them that can be closed, opened again, or left by a death. */
#pragma once

#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "catalog/jobs.h"
#include "catalog/names.h"

#define STAGE_MAX 4

struct stage {
    char root[64];
    unsigned count;
    struct datastore *datastores[STAGE_MAX];
    struct catalog *catalog;
};

/* Called before the datastore's call; non-zero is returned in its place. */
extern int (*stage_hook)(const char *call, const struct datastore *datastore, const char *path);

/* Datastores a, b, c … in root/a …, state in root/state. */
void stage_open(struct stage *stage, unsigned count);
/* The mount's first worker, or one that follows. */
void stage_mount(struct stage *stage, bool first);
void stage_unmount(struct stage *stage);
void stage_close(struct stage *stage);

/* Runs act in a process that dies (true) when event is passed for the count-th time; the catalog must not be open here.
 */
bool stage_die(struct stage *stage, const char *event, int count, bool first, void (*act)(struct stage *stage));

/* Around the catalog. */
void stage_put(struct stage *stage, unsigned datastore, const char *path, const char *content);
void stage_mkdir(struct stage *stage, unsigned datastore, const char *path);
void stage_drop(struct stage *stage, unsigned datastore, const char *path);
bool stage_has(struct stage *stage, unsigned datastore, const char *path);
/* "": not there. */
const char *stage_content(struct stage *stage, unsigned datastore, const char *path);
/* How many hidden files the datastore has whose name starts so. */
unsigned stage_hidden(struct stage *stage, unsigned datastore, const char *prefix);

/* Through the catalog, by path; these fail the test. */
uint64_t stage_id(struct stage *stage, const char *path);
uint64_t stage_make(struct stage *stage, const char *path, mode_t mode);

/* Returns what the calls return. *name: the last component. */
uint64_t stage_parent(struct stage *stage, const char *path, const char **name);
int stage_look(struct stage *stage, const char *path, struct node *out);
int stage_create(struct stage *stage, const struct origin *origin, const char *path, mode_t mode, struct node *out);
int stage_unlink(struct stage *stage, const struct origin *origin, const char *path, bool open, uint64_t *removed);
int stage_rmdir(struct stage *stage, const struct origin *origin, const char *path);
int stage_rename(struct stage *stage, const struct origin *origin, const char *path, const char *to, unsigned flags,
    bool open, uint64_t *replaced);
/* The datastore of the path's node. */
unsigned stage_where(struct stage *stage, const char *path);
