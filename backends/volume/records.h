/* records: nodes as records of a stream, and back. No I/O. */
#pragma once

#include "backends/volume/tree.h"

void record_node(struct stream *stream, const struct volume_node *node);
void record_removed(struct stream *stream, uint64_t id);
void record_xattrs(struct stream *stream, const struct volume_node *node);
/* What is in the logical extents [start, end); holes: they are told of as well. */
void record_runs(struct stream *stream, const struct volume_node *node, uint32_t start, uint32_t end, bool holes);

/* All that is not durable; nothing is marked as clean by it. */
void record_changes(struct stream *stream, struct tree *tree);
/* Marks what record_changes told of as clean. */
void record_changed(struct tree *tree);
/* The whole tree. */
void record_all(struct stream *stream, const struct tree *tree, uint64_t *nodes, uint64_t *runs);

/* Applies one record: 0, -ENOMEM, or -EUCLEAN with a sentence. Names are entered by records_settle. */
int record_apply(struct tree *tree, const struct disk_record *record, struct sentence *why);
