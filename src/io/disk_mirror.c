/* A disk's mirror and log: put on, turned, taken off. */
#include <errno.h>

#include "io/disk_private.h"
#include "io/mirror.h"

void disk_set_log(struct disk *disk, struct disk_log *log)
{
    if (log)
        disk_log_get(log);
    pthread_mutex_lock(&disk->mutex);
    struct disk_log *old = disk->log;
    disk->log = log;
    pthread_mutex_unlock(&disk->mutex);
    disk_log_put(old);
}

int disk_attach(struct disk *disk, struct mirror *mirror)
{
    pthread_mutex_lock(&disk->mutex);
    int error = disk->mirror ? -EBUSY : 0;
    if (!error)
        disk->mirror = mirror_get(mirror);
    pthread_mutex_unlock(&disk->mutex);
    return error;
}

void disk_flip(struct disk *disk, struct mirror *mirror)
{
    pthread_mutex_lock(&disk->mutex);
    struct image *source = disk->truth;
    mirror_flip(mirror);
    disk->truth = image_get(mirror_target(mirror));
    pthread_mutex_unlock(&disk->mutex);
    image_put(source);
}

void disk_turn(struct disk *disk, struct mirror *mirror, struct mirror *reverse, struct disk_log *log)
{
    if (log)
        disk_log_get(log);
    pthread_mutex_lock(&disk->mutex);
    struct image *source = disk->truth;
    struct disk_log *old = disk->log;
    mirror_flip(mirror);
    disk->truth = image_get(mirror_target(mirror));
    disk->mirror = mirror_get(reverse);
    disk->log = log;
    pthread_mutex_unlock(&disk->mutex);
    image_put(source);
    mirror_put(mirror);
    disk_log_put(old);
}

void disk_detach(struct disk *disk, struct mirror *mirror)
{
    pthread_mutex_lock(&disk->mutex);
    bool ours = disk->mirror == mirror;
    if (ours)
        disk->mirror = NULL;
    pthread_mutex_unlock(&disk->mutex);
    if (ours)
        mirror_put(mirror);
}

bool disk_mirror_idle(struct disk *disk, struct mirror *mirror)
{
    return atomic_load(&disk->mirrored) == 0;
}

/* Law 5 also after the flip: a request that is still under way to both legs keeps its lock until both have it, else the old
 * source, which gets the newer writes from its own mirror now, would see them in another order. */
bool disk_kept_waits(struct disk_io *io, int source, int target)
{
    struct mirror *kept = io->to == (LEG_SOURCE | LEG_TARGET) ? mirror_reverse(io->mirror) : NULL;
    if (!kept)
        return false;
    if (io->pending)
        return true;
    if (source < 0 && target >= 0)
        mirror_drop(kept, io->extent, io->verb, source);
    else if (target < 0)
        mirror_set_dirty(kept, io->extent);
    return false;
}

bool disk_kept_expires(struct disk_io *io, uint64_t now)
{
    struct mirror *kept = io->mirror && io->to == (LEG_SOURCE | LEG_TARGET) && io->pending == LEG_SOURCE &&
                                  mirror_phase(io->mirror) == MIRROR_FLIPPED
                              ? mirror_reverse(io->mirror)
                              : NULL;
    if (!kept || now - io->sent <= mirror_target_timeout(kept))
        return false;
    mirror_drop(kept, io->extent, io->verb, -ETIMEDOUT);
    return true;
}
