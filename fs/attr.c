#include "fs/attr.h"

#include <string.h>
#include <sys/sysmacros.h>

uint32_t attr_encode_device(dev_t device)
{
    unsigned high = major(device), low = minor(device);
    return (low & 0xff) | (high << 8) | ((low & ~0xffu) << 12);
}

dev_t attr_decode_device(uint32_t encoded)
{
    return makedev((encoded & 0xfff00) >> 8, (encoded & 0xff) | ((encoded >> 12) & 0xfff00));
}

void attr_fill(struct fuse_attr *out, const struct stat *st)
{
    *out = (struct fuse_attr){
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .blocks = (uint64_t)st->st_blocks,
        .atime = (uint64_t)st->st_atim.tv_sec,
        .mtime = (uint64_t)st->st_mtim.tv_sec,
        .ctime = (uint64_t)st->st_ctim.tv_sec,
        .atimensec = (uint32_t)st->st_atim.tv_nsec,
        .mtimensec = (uint32_t)st->st_mtim.tv_nsec,
        .ctimensec = (uint32_t)st->st_ctim.tv_nsec,
        .mode = st->st_mode,
        .nlink = (uint32_t)st->st_nlink,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .rdev = attr_encode_device(st->st_rdev),
        .blksize = ATTR_BLOCK,
    };
}

void attr_entry(struct fuse_entry_out *out, const struct node *node, bool settled)
{
    memset(out, 0, sizeof(*out));
    out->nodeid = node->id;
    out->generation = ATTR_GENERATION;
    out->entry_valid = node->known ? ATTR_VALID_S : 0;
    out->attr_valid = node->known && settled ? ATTR_VALID_S : 0;
    attr_fill(&out->attr, &node->st);
}

void attr_answer(struct fuse_attr_out *out, const struct node *node, bool settled)
{
    memset(out, 0, sizeof(*out));
    out->attr_valid = node->known && settled ? ATTR_VALID_S : 0;
    attr_fill(&out->attr, &node->st);
}

static struct timespec time_of(uint64_t seconds, uint32_t ns, bool now)
{
    return (struct timespec){.tv_sec = now ? 0 : (time_t)seconds, .tv_nsec = now ? UTIME_NOW : (long)ns};
}

unsigned attr_changes(const struct fuse_setattr_in *in, struct stat *st)
{
    unsigned mask = 0;
    memset(st, 0, sizeof(*st));
    st->st_uid = (uid_t)-1;
    st->st_gid = (gid_t)-1;
    if (in->valid & FATTR_MODE) {
        mask |= ATTRIBUTE_MODE;
        st->st_mode = in->mode;
    }
    if (in->valid & FATTR_UID) {
        mask |= ATTRIBUTE_OWNER;
        st->st_uid = in->uid;
    }
    if (in->valid & FATTR_GID) {
        mask |= ATTRIBUTE_OWNER;
        st->st_gid = in->gid;
    }
    if (in->valid & FATTR_ATIME) {
        mask |= ATTRIBUTE_ATIME;
        st->st_atim = time_of(in->atime, in->atimensec, in->valid & FATTR_ATIME_NOW);
    }
    if (in->valid & FATTR_MTIME) {
        mask |= ATTRIBUTE_MTIME;
        st->st_mtim = time_of(in->mtime, in->mtimensec, in->valid & FATTR_MTIME_NOW);
    }
    if (!mask && !(in->valid & FATTR_SIZE))
        mask = ATTRIBUTE_OWNER;
    return mask;
}

static uint64_t in_blocks(uint64_t count, uint64_t unit)
{
    return (uint64_t)((__uint128_t)count * unit / ATTR_BLOCK);
}

void attr_add_space(struct fuse_kstatfs *sum, const struct statvfs *st)
{
    uint64_t unit = st->f_frsize ? st->f_frsize : st->f_bsize;
    sum->blocks += in_blocks(st->f_blocks, unit);
    sum->bfree += in_blocks(st->f_bfree, unit);
    sum->bavail += in_blocks(st->f_bavail, unit);
    sum->files += st->f_files;
    sum->ffree += st->f_ffree;
    sum->bsize = sum->frsize = ATTR_BLOCK;
    sum->namelen = ATTR_NAME_MAX;
}
