/* open: the disks that are open, by node id. One disk for a node, however many handles and jobs use it: two would be
 * two truths.
 *
 * A disk is opened on its datastore's pool when somebody needs it (after a worker's death: when the first request comes
 * for a handle that the session's table knows); requests wait for it. It is closed when no handle, no request and no
 * job uses it. Functions that take a request run on its reactor; the others on any thread. Nothing here blocks but
 * open_files_disk. */
#pragma once

#include "fs/filesystem.h"

struct open_file;
struct open_files;

/* Counts the handles of the session's table and finds the ghosts: writes in the slots that a dead worker may have sent.
 */
int open_files_new(struct open_files **out, struct filesystem *fs);
/* Waits until nothing runs in the background, at most for timeout_ns; then lets the disks go. */
void open_files_free(struct open_files *files, uint64_t timeout_ns);

/* The file behind a handle; NULL when fh is not a handle of the node. It stays while the handle is open. */
struct open_file *open_files_by_handle(struct open_files *files, uint64_t fh, uint64_t id);
/* NULL: not open yet, or not open any more. Stays while the handle is. */
struct disk *open_file_disk(struct open_file *file);

/* ready(request, 0) when request->disk is open: at once or later; or an error: the image's, or -EIO when the
 * datastore's time is over. ready ends with open_files_done, whatever it was told, as soon as it no longer needs the
 * disk. */
void open_files_want(struct request *request, uint64_t id, void (*ready)(struct request *request, int error));
void open_files_done(struct request *request);
/* Between ready and done: the image could be opened for reading only. */
bool open_files_read_only(const struct request *request);

/* Between ready and done: takes a handle in the session's table. fh or -errno. Law 9: notes it in the slot; a retry
 * finds it there. */
int64_t open_files_add_handle(struct request *request, uint32_t flags);
/* RELEASE, first half: the handle counts no more. True when it was the node's last. */
bool open_files_drop_handle(struct open_files *files, uint64_t fh, uint64_t id);
/* Second half: its entry of the table is free. */
void open_files_free_handle(struct open_files *files, uint64_t fh, uint64_t id);

/* Is a handle open, or about to be? */
bool open_files_is_open(struct open_files *files, uint64_t id);

/* For names_unlink and names_rename: argument is a struct open_victim. A node that is not open can no more be opened
 * until open_files_settle, so that none is deleted under a handle. */
struct open_victim {
    struct open_files *files;
    uint64_t id; /* marked, or 0 */
};
bool open_files_keep(void *argument, uint64_t id);
void open_files_settle(struct open_victim *victim);

/* Data was written: the recorded attributes are behind the datastore's. */
void open_file_wrote(struct open_file *file);
/* The size of an open disk is the disk's. False: the attributes will change when they are fetched. Also under the
 * catalog's lock. */
bool open_files_attributes(struct open_files *files, struct node *node);
/* Fetches the attributes in the background where they are behind. woken: called when they are there, or were not within
 * a short time; false: they are as good as they get, woken is not called. request may be NULL: nobody waits. */
bool open_files_refresh(
    struct open_files *files, uint64_t id, struct request *request, void (*woken)(struct request *request, int result));

/* For control_disks.open: argument is the struct open_files. Blocks. */
int open_files_disk(void *argument, uint64_t id, struct disk **out);
