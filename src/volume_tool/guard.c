/* libblkid wants a descriptor, and a LUN has none here. Signatures lie near an image's start or its end, so that these
 * two are copied into a file of memory of the same size, which is a hole in between; all kinds of images are looked at in
 * the same way. What a partition table looks like depends on the size of a sector, and an image may have been written
 * with another than it has now: both are tried. */
#include "volume_tool/guard.h"

#include <blkid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backends/volume/volume.h"
#include "base/cleanup.h"

#define LOOKED_AT (4u << 20) /* bytes of either end */
#define PIECE     (1u << 20)

/* ---- a volume ---- */

static int look_for_volume(struct medium *medium, struct sentence *what)
{
    struct superblock superblock = {0};
    int found = volume_probe(medium->image, &superblock, what);
    if (found <= 0)
        return found;
    if (superblock.extents == 0)
        refuse(what, 0, "a volume of svmfs with a damaged superblock");
    else if (superblock.label[0])
        refuse(what, 0, "a volume of svmfs \"%s\" of %u MiB", superblock.label, superblock.extents);
    else
        refuse(what, 0, "a volume of svmfs of %u MiB", superblock.extents);
    return 1;
}

/* ---- what others know ---- */

static int copy_part(struct medium *medium, int fd, uint64_t from, uint64_t to)
{
    auto_free char *memory = malloc(PIECE);
    if (!memory)
        return -ENOMEM;
    while (from < to) {
        uint64_t length = to - from < PIECE ? to - from : PIECE;
        int error = carrier_read(&medium->carrier, from, length, memory);
        if (error)
            return error;
        if (pwrite(fd, memory, length, (off_t)from) != (ssize_t)length)
            return -EIO;
        from += length;
    }
    return 0;
}

static int copy_ends(struct medium *medium, int fd)
{
    uint64_t size = atomic_load(&medium->image->size);
    uint64_t head = size < LOOKED_AT ? size : LOOKED_AT;
    uint64_t tail = (size - head < LOOKED_AT ? head : size - LOOKED_AT) & ~(uint64_t)(VOLUME_BLOCK - 1);
    if (ftruncate(fd, (off_t)size) < 0)
        return -errno;
    int error = copy_part(medium, fd, 0, head);
    return error ? error : copy_part(medium, fd, tail, size);
}

static const char *value(blkid_probe probe, const char *name)
{
    const char *text;
    return blkid_probe_lookup_value(probe, name, &text, NULL) == 0 ? text : NULL;
}

static const char *article(const char *word)
{
    return strchr("aeioxAEIOLX", word[0]) ? "an" : "a";
}

/* "an ext4 filesystem "home" (uuid …)", "a gpt partition table" */
static void describe(blkid_probe probe, struct sentence *what)
{
    const char *type = value(probe, "TYPE"), *table = value(probe, "PTTYPE"), *usage = value(probe, "USAGE");
    const char *label = value(probe, "LABEL"), *uuid = value(probe, "UUID");
    char kind[64] = "", name[160] = "";
    if (!type) {
        refuse(what, 0, "%s %s partition table", article(table ? table : "unknown"), table ? table : "unknown");
        return;
    }
    if (usage && strcmp(usage, "filesystem") == 0)
        snprintf(kind, sizeof(kind), "filesystem");
    else if (usage && strcmp(usage, "raid") == 0)
        snprintf(kind, sizeof(kind), "member of an array or a volume group");
    else
        snprintf(kind, sizeof(kind), "signature");
    if (label && *label)
        snprintf(name, sizeof(name), " \"%s\"", label);
    else if (uuid)
        snprintf(name, sizeof(name), " (uuid %s)", uuid);
    refuse(what, 0, "%s %s %s%s", article(type), type, kind, name);
}

static int probe(int fd, unsigned sector, struct sentence *what)
{
    blkid_probe blkid = blkid_new_probe();
    if (!blkid)
        return -ENOMEM;
    int result = -EIO;
    if (blkid_probe_set_device(blkid, fd, 0, 0) == 0 && blkid_probe_set_sectorsize(blkid, sector) == 0) {
        blkid_probe_enable_superblocks(blkid, 1);
        blkid_probe_set_superblocks_flags(
            blkid, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID | BLKID_SUBLKS_USAGE);
        blkid_probe_enable_partitions(blkid, 1);
        switch (blkid_do_safeprobe(blkid)) {
        case 0:
            describe(blkid, what);
            result = 1;
            break;
        case 1:
            result = 0;
            break;
        case -2: /* more than one that cannot be together */
            refuse(what, 0, "signatures of several filesystems or tables");
            result = 1;
            break;
        }
    }
    blkid_free_probe(blkid);
    return result;
}

int guard_look(struct medium *medium, struct sentence *what)
{
    static const unsigned sectors[] = {512, 4096};
    int result = look_for_volume(medium, what);
    if (result)
        return result;
    if (atomic_load(&medium->image->size) == 0)
        return 0;
    auto_close int fd = memfd_create("svmfs-volume", MFD_CLOEXEC);
    result = fd < 0 ? -errno : copy_ends(medium, fd);
    for (size_t i = 0; result == 0 && i < sizeof(sectors) / sizeof(sectors[0]); i++)
        result = probe(fd, sectors[i], what);
    if (result < 0)
        refuse(what, result, "%s: what is there could not be read: %s", medium->url, error_text(result));
    return result;
}
