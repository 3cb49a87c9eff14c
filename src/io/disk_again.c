/* A read that the source could not answer, law 1's only exception: disk.c asks the target for it, under the lock. */
#include "base/log.h"
#include "io/datastore.h"
#include "io/disk_private.h"
#include "io/mirror.h"

bool disk_may_ask_again(struct disk_io *io)
{
    return io->mirror && !io->is_answered &&
           route_again(mirror_phase(io->mirror), io->verb, LEG_SOURCE, io->legs[0].result,
               mirror_holds(io->mirror, io->extent));
}

int disk_result_again(struct disk_io *io)
{
    const char *target = mirror_target(io->mirror)->datastore->name;
    unsigned long long disk = io->disk->id, offset = io->extent.start;
    if (io->to != LEG_TARGET)
        return io->legs[0].result;
    if (io->legs[1].result < 0) {
        log_warning(
            "disk %llu: what the source on datastore %s could not read at offset %llu, the target on datastore %s "
            "could not read either: %s",
            disk, io->truth->datastore->name, offset, target, error_text(io->legs[1].result));
        return io->legs[0].result;
    }
    if (mirror_count_read(io->mirror) == 0)
        log_warning("disk %llu: a read at offset %llu failed on the source, datastore %s: %s; it was answered from the "
                    "target, datastore %s, and so are those that follow, where it has been copied",
            disk, offset, io->truth->datastore->name, error_text(io->legs[0].result), target);
    return 0;
}

void disk_note_both(struct disk_io *io)
{
    if (io->to != (LEG_SOURCE | LEG_TARGET) || io->legs[0].result < 0 || io->legs[1].result < 0)
        return;
    if (io->verb == VERB_WRITE || io->verb == VERB_ZERO)
        mirror_heal(io->mirror, io->extent);
    else if (io->verb == VERB_RESIZE)
        mirror_heal(io->mirror, (struct extent){io->extent.end, UINT64_MAX});
}
