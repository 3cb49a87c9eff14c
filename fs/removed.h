/* removed: the last attributes of nodes that have no name any more and that the kernel may still hold: a working
 * directory, an open fifo, an O_PATH descriptor. (Open regular files are the catalog's orphans.) In the worker's
 * memory, bounded: the oldest goes first; the kernel's FORGET ends an entry. Any thread, nothing blocks. */
#pragma once

#include "catalog/catalog.h"

struct removed;

int removed_new(struct removed **out);
void removed_free(struct removed *removed);

/* With st_nlink 0. */
void removed_add(struct removed *removed, const struct node *node);
void removed_forget(struct removed *removed, uint64_t id);
/* 0 or -ENOENT. */
int removed_get(struct removed *removed, uint64_t id, struct node *out);
/* chmod, chown and utimens of what has no name: mask and st as for names_set_attributes. */
int removed_change(struct removed *removed, uint64_t id, const struct stat *st, unsigned mask, struct node *out);
