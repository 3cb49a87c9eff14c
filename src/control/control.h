/* control: the control surface of the design (7) as names and values; xattrs are its first door. Knows jobs, not FUSE.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "catalog/names.h"
#include "config.h"

struct control;
struct disk;
struct disk_log;

/* How control reaches the disk of a node: opens it if it is not open. Blocks; called on a job's thread. The caller puts
 * it. */
struct control_disks {
    int (*open)(void *argument, uint64_t id, struct disk **out);
    void *argument;
};

int control_open(struct control **out, const struct config *config, struct catalog *catalog,
    const struct control_disks *disks, struct reactor **reactors, unsigned reactor_count);

/* The log that a disk must have before its first request is served, with a reference; NULL: none. Any thread. */
struct disk_log *control_log(struct control *control, uint64_t node);

/* Lets the jobs run, those that the records know (a dead worker's start over) first, and tidies up what others left.
 * Blocks. */
int control_recover(struct control *control);
/* The mount ends: control_recover comes back soon. Any thread. */
void control_ends(struct control *control);

/* Stops the jobs where they are; records stay. Blocks. Then frees. */
void control_close(struct control *control);

/* "user.svmfs.NAME" is ours? */
bool control_is_ours(const char *xattr);

/* As getxattr: length or -errno (-ENODATA); size 0 asks for the length. Never blocks on a datastore, but on SQLite:
 * pool or reactor of the control pool. */
ssize_t control_get(struct control *control, uint64_t id, const char *xattr, char *out, size_t size);

/* origin: the request, or NULL; a migrate that a dead worker had recorded is not done again (law 9). As setxattr: 0 or
 * -errno, with the sentence kept for user.svmfs.error. Blocks for the checks, not for the work. On a pool. */
int control_set(struct control *control, uint64_t id, const char *xattr, const char *value, size_t size,
    const struct origin *origin);

/* The sentence that user.svmfs.error of the node tells from now on; an empty text: none. Any thread. */
void control_note(struct control *control, uint64_t id, const struct sentence *sentence);

/* The node is unlinked: its job is cancelled. Blocks until the job lets go. On a pool. */
void control_unlinked(struct control *control, uint64_t id);
