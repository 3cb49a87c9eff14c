#include "fs/poison.h"

#include "base/log.h"
#include "fs/ghosts.h"
#include "fs/slots.h"
#include "fs/verbs.h"

static struct extent extent_of(const struct fuse_in_header *in)
{
    const struct fuse_read_in *read = (const void *)(in + 1);
    if (in->opcode == FUSE_READ && read->offset < INT64_MAX)
        return (struct extent){read->offset, read->offset + read->size};
    return ghosts_extent(in, in + 1);
}

void poison_tell(struct filesystem *fs, struct slot *slot)
{
    const struct fuse_in_header *in = slot_in(slot);
    char path[PATH_MAX];
    struct extent extent = extent_of(in);
    if (catalog_path(fs->catalog, in->nodeid, path) < 0)
        snprintf(path, sizeof(path), "(no name)");
    if (extent_empty(extent))
        log_error("%s of %s (node %llu) has crashed the worker %u times: it is answered with an I/O error",
            verb_of(in->opcode)->name, path, (unsigned long long)in->nodeid, atomic_load(&slot->crashes));
    else
        log_error("%s of %s (node %llu), %llu bytes at offset %llu, has crashed the worker %u times: it is answered "
                  "with an I/O error",
            verb_of(in->opcode)->name, path, (unsigned long long)in->nodeid, (unsigned long long)extent_length(extent),
            (unsigned long long)extent.start, atomic_load(&slot->crashes));
}
