/* Ghosts of a dead worker: locks that are held until the truth's image is fenced (law 6). */
#include <stdlib.h>

#include "io/disk_private.h"

struct ghost {
    struct lock_request lock;
    struct disk *disk;
    struct image *truth;
};

static void fenced(void *argument)
{
    struct ghost *ghost = argument;
    region_lock_release(&ghost->disk->lock, &ghost->lock);
    atomic_fetch_sub(&ghost->disk->ghosts, 1);
    image_put(ghost->truth);
    disk_put(ghost->disk);
    free(ghost);
}

/* Called before the first submit, so that the lock is held at once unless ghosts overlap, in which case any of them
 * will do. */
static void ghost_granted(struct lock_request *request)
{
    struct ghost *ghost = container_of(request, struct ghost, lock);
    image_fence(ghost->truth, fenced, ghost);
}

void disk_add_ghost(struct disk *disk, struct extent extent)
{
    struct ghost *ghost = calloc(1, sizeof(*ghost));
    if (!ghost)
        abort(); /* a lost ghost loses data; the next worker tries again */
    ghost->disk = disk_get(disk);
    ghost->truth = disk_truth(disk);
    ghost->lock.mode = LOCK_MODE_WRITE;
    ghost->lock.extent = extent;
    ghost->lock.granted = ghost_granted;
    atomic_fetch_add(&disk->ghosts, 1);
    if (region_lock_acquire(&disk->lock, &ghost->lock))
        ghost_granted(&ghost->lock);
}
