#include "fs/dirent.h"

#include <string.h>

bool dirent_add(struct dirent_room *room, const struct fuse_entry_out *entry, uint64_t ino, uint64_t cookie,
    mode_t mode, const char *name)
{
    size_t head = entry ? sizeof(*entry) : 0, length = strlen(name);
    size_t used = head + FUSE_NAME_OFFSET + length, whole = FUSE_DIRENT_ALIGN(used);
    if (whole > room->size - room->used)
        return false;
    char *at = room->data + room->used;
    struct fuse_dirent dirent = {.ino = ino, .off = cookie, .namelen = (uint32_t)length, .type = (mode & S_IFMT) >> 12};
    if (entry)
        memcpy(at, entry, sizeof(*entry));
    memcpy(at + head, &dirent, FUSE_NAME_OFFSET);
    memcpy(at + head + FUSE_NAME_OFFSET, name, length);
    memset(at + used, 0, whole - used);
    room->used += whole;
    return true;
}
