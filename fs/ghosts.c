#include "fs/ghosts.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct ghost {
    uint64_t id;
    struct extent extent;
};

struct ghosts {
    pthread_mutex_t mutex;
    size_t count, room;
    struct ghost *list; /* under mutex; id 0: given */
};

static struct extent range(uint64_t start, uint64_t length)
{
    return (struct extent){start, length > INT64_MAX - start ? INT64_MAX : start + length};
}

struct extent ghosts_extent(const struct fuse_in_header *in, const void *body)
{
    const struct fuse_write_in *write = body;
    const struct fuse_fallocate_in *fallocate = body;
    const struct fuse_setattr_in *setattr = body;
    if (in->opcode == FUSE_WRITE && write->offset < INT64_MAX)
        return range(write->offset, write->size);
    if (in->opcode == FUSE_FALLOCATE && fallocate->offset < INT64_MAX)
        return range(fallocate->offset, fallocate->length);
    if (in->opcode == FUSE_SETATTR && setattr->valid & FATTR_SIZE && setattr->size < INT64_MAX)
        return range(setattr->size, INT64_MAX);
    return (struct extent){0, 0};
}

/* DONE and ANSWERED without an error: the leg has answered too. With an error it may have been given up on. */
static bool may_land(struct slot *slot)
{
    const struct fuse_in_header *in = slot_in(slot);
    uint64_t state = atomic_load(&slot->state);
    if (!in->unique || state == SLOT_FREE)
        return false;
    return (state != SLOT_DONE && state != SLOT_ANSWERED) || slot->error;
}

static int add(struct ghosts *ghosts, struct ghost ghost)
{
    if (ghosts->count == ghosts->room) {
        size_t room = ghosts->room ? 2 * ghosts->room : 16;
        struct ghost *list = realloc(ghosts->list, room * sizeof(*list));
        if (!list)
            return -ENOMEM;
        ghosts->list = list;
        ghosts->room = room;
    }
    ghosts->list[ghosts->count++] = ghost;
    return 0;
}

static int find_in(struct ghosts *ghosts, const struct session *session, unsigned reactor)
{
    uint32_t used = atomic_load(&session->head->slots_used[reactor]); /* looking further would make pages */
    for (uint32_t i = 0; i < used; i++) {
        struct slot *slot = session_slot(session, reactor, i);
        if (!may_land(slot))
            continue;
        struct ghost ghost = {slot_in(slot)->nodeid, ghosts_extent(slot_in(slot), slot_in(slot) + 1)};
        int error = extent_empty(ghost.extent) ? 0 : add(ghosts, ghost);
        if (error)
            return error;
    }
    return 0;
}

int ghosts_find(struct ghosts **out, const struct session *session)
{
    struct ghosts *ghosts = calloc(1, sizeof(*ghosts));
    if (!ghosts)
        return -ENOMEM;
    pthread_mutex_init(&ghosts->mutex, NULL);
    for (unsigned reactor = 0; reactor < session->head->reactors; reactor++) {
        int error = find_in(ghosts, session, reactor);
        if (error) {
            ghosts_free(ghosts);
            return error;
        }
    }
    *out = ghosts;
    return 0;
}

void ghosts_free(struct ghosts *ghosts)
{
    if (!ghosts)
        return;
    pthread_mutex_destroy(&ghosts->mutex);
    free(ghosts->list);
    free(ghosts);
}

bool ghosts_any(struct ghosts *ghosts, uint64_t id)
{
    bool any = false;
    pthread_mutex_lock(&ghosts->mutex);
    for (size_t i = 0; i < ghosts->count && !any; i++)
        any = ghosts->list[i].id == id;
    pthread_mutex_unlock(&ghosts->mutex);
    return any;
}

void ghosts_give(struct ghosts *ghosts, uint64_t id, struct disk *disk)
{
    pthread_mutex_lock(&ghosts->mutex);
    for (size_t i = 0; i < ghosts->count; i++) {
        if (ghosts->list[i].id != id)
            continue;
        disk_add_ghost(disk, ghosts->list[i].extent);
        ghosts->list[i].id = 0;
    }
    pthread_mutex_unlock(&ghosts->mutex);
}
