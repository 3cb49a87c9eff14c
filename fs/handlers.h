/* handlers: one function per FUSE opcode that is served (fs/verbs.c says which), and the state that they share. Each
 * runs on its channel's reactor, never blocks, and answers its request once, now or later. */
#pragma once

#include <string.h>

#include "fs/filesystem.h"

struct removed;
struct spaces;

struct handlers {
    struct removed *removed;
    struct spaces *spaces;
};

/* Makes fs->handlers and fs->files. After catalog, session, pool and reactors are set, before the first channel_open:
 * the session's handles are counted here and the writes of a dead worker are found in its slots. 0 or -errno. */
int handlers_open(struct filesystem *fs);

/* After the channels are idle and control is closed, before the catalog is. Waits for what runs in the background. */
void handlers_close(struct filesystem *fs);

/* The string at offset of the body, or NULL when it does not end inside of it; *next is where what follows starts. */
static inline const char *request_string(const struct request *request, size_t offset, size_t *next)
{
    const char *start = (const char *)request->body + offset;
    const char *end = offset < request->body_length ? memchr(start, 0, request->body_length - offset) : NULL;
    if (end && next)
        *next = offset + (size_t)(end - start) + 1;
    return end ? start : NULL;
}

/* Answers with an entry: LOOKUP, MKNOD, MKDIR, SYMLINK. changes: kept in the slot (law 9). */
void reply_entry(struct request *request, const struct node *node, bool changes);
/* The entry for READDIRPLUS and CREATE. */
void fill_entry(struct filesystem *fs, const struct node *node, struct fuse_entry_out *out);

/* node.c */
void handle_lookup(struct request *request);
void handle_getattr(struct request *request);
void handle_setattr(struct request *request);
void handle_forget(struct request *request);
void handle_batch_forget(struct request *request);
void handle_readlink(struct request *request);
void handle_access(struct request *request);

/* space.c */
void handle_statfs(struct request *request);

/* dir.c, unlink.c, list.c */
void handle_mknod(struct request *request);
void handle_mkdir(struct request *request);
void handle_symlink(struct request *request);
void handle_create(struct request *request);
void handle_unlink(struct request *request);
void handle_rmdir(struct request *request);
void handle_rename(struct request *request);
void handle_rename2(struct request *request);
void handle_opendir(struct request *request);
void handle_readdir(struct request *request);
void handle_readdirplus(struct request *request);
void handle_releasedir(struct request *request);
void handle_fsyncdir(struct request *request);

/* FOPEN_ bits of the answer to an open with these flags of open(2). Pure. */
uint32_t file_open_flags(uint32_t flags);

/* file.c, sparse.c */
void handle_open(struct request *request);
void handle_release(struct request *request);
void handle_read(struct request *request);
void handle_write(struct request *request);
void handle_fsync(struct request *request);
void handle_fallocate(struct request *request);
void handle_lseek(struct request *request);

/* xattr.c */
void handle_setxattr(struct request *request);
void handle_getxattr(struct request *request);
void handle_listxattr(struct request *request);
void handle_removexattr(struct request *request);
