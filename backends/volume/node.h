/* node: changes of where a file's bytes lie. With the volume's mutex held; 0 or -errno. */
#pragma once

#include "backends/volume/inside.h"

/* Takes away what is in the logical extents [start, end). */
int node_punch(struct volume *volume, struct volume_node *node, uint32_t start, uint32_t end);

/* Drops the node when neither a name nor an image holds it. */
void node_release(struct volume *volume, struct volume_node *node);

/* Each of the extents has a place: those that had none are unwritten (reserved) or partial without a bit. -ENOSPC: too
 * few are free; -EAGAIN: there will be enough when what was freed is released. All or none. */
int node_allocate(struct volume *volume, struct volume_node *node, uint32_t start, uint32_t end, bool reserved);

/* Partial ones count as whole extents. */
int node_reserve(struct volume *volume, struct volume_node *node, uint32_t start, uint32_t end);

/* Blocks [from, to), where they have a place, are written, or not any more. */
int node_mark(struct volume *volume, struct volume_node *node, uint64_t from, uint64_t to, bool written);
bool node_written(const struct volume_node *node, uint64_t block);
