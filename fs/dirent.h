/* dirent: packs directory entries into the reply of READDIR and READDIRPLUS. Pure.
 *
 * A cookie is where to go on: 1 after ".", 2 after "..", else the entry's id plus 1. Ids are never reused, so a cookie
 * stays good whatever is removed or made beside it. */
#pragma once

#include <linux/fuse.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#define DIRENT_AFTER_DOT    1u
#define DIRENT_AFTER_DOTDOT 2u

struct dirent_room {
    char *data;
    size_t size, used;
};

static inline uint64_t dirent_cookie(uint64_t id)
{
    return id + 1;
}

/* The id after which the list goes on. */
static inline uint64_t dirent_after(uint64_t cookie)
{
    return cookie > DIRENT_AFTER_DOTDOT ? cookie - 1 : 0;
}

/* False: it does not fit, nothing was changed. entry: READDIRPLUS's, else NULL. */
bool dirent_add(struct dirent_room *room, const struct fuse_entry_out *entry, uint64_t ino, uint64_t cookie,
    mode_t mode, const char *name);
