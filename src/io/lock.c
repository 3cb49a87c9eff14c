/* Requests stand in one list in order of arrival. A request counts its blockers: the earlier ones that overlap and
 * conflict; a release walks the later ones and takes one off each. Cost is linear in the requests in flight on one
 * disk, which the guest's queue depth bounds; a tree would cost more for the depths that occur. */
#include "io/lock.h"

#include <stdlib.h>

static const bool waits_for[3][3] = {
    [LOCK_MODE_READ] = {[LOCK_MODE_WRITE] = true},
    [LOCK_MODE_WRITE] = {[LOCK_MODE_WRITE] = true, [LOCK_MODE_COPY] = true},
    [LOCK_MODE_COPY] = {[LOCK_MODE_WRITE] = true, [LOCK_MODE_COPY] = true},
};

static struct lock_request *request_of(struct list *link)
{
    return container_of(link, struct lock_request, link);
}

static bool must_wait(const struct lock_request *later, const struct lock_request *earlier)
{
    return waits_for[later->mode][earlier->mode] && extent_overlaps(later->extent, earlier->extent);
}

void region_lock_init(struct region_lock *lock, uint64_t block)
{
    pthread_mutex_init(&lock->mutex, NULL);
    list_init(&lock->requests);
    lock->block = block;
}

static void grant(struct task *task)
{
    struct lock_request *request = container_of(task, struct lock_request, task);
    struct behalf before = behalf_set(request->behalf);
    request->granted(request);
    behalf_set(before);
}

bool region_lock_acquire(struct region_lock *lock, struct lock_request *request)
{
    request->reactor = reactor_current();
    request->task.run = grant;
    request->behalf = behalf_now;
    request->blockers = 0;
    pthread_mutex_lock(&lock->mutex);
    request->extent = extent_round_out(request->extent, lock->block);
    list_for_each (link, &lock->requests)
        request->blockers += must_wait(request, request_of(link));
    list_append(&lock->requests, &request->link);
    bool held = request->blockers == 0;
    pthread_mutex_unlock(&lock->mutex);
    return held;
}

/* Takes the request out; what waited for it alone is granted. */
static void leave(struct lock_request *request, struct region_lock *lock)
{
    struct list *link = request->link.next;
    list_remove(&request->link);
    for (; link != &lock->requests; link = link->next) {
        struct lock_request *later = request_of(link);
        if (must_wait(later, request) && --later->blockers == 0)
            reactor_post(later->reactor, &later->task);
    }
}

void region_lock_release(struct region_lock *lock, struct lock_request *request)
{
    pthread_mutex_lock(&lock->mutex);
    leave(request, lock);
    pthread_mutex_unlock(&lock->mutex);
}

bool region_lock_cancel(struct region_lock *lock, struct lock_request *request)
{
    pthread_mutex_lock(&lock->mutex);
    bool waiting = request->blockers > 0;
    if (waiting)
        leave(request, lock);
    pthread_mutex_unlock(&lock->mutex);
    return waiting;
}

bool region_lock_busy(struct region_lock *lock, struct extent extent)
{
    bool busy = false;
    pthread_mutex_lock(&lock->mutex);
    list_for_each (link, &lock->requests) {
        struct lock_request *request = request_of(link);
        busy = busy || (request->mode != LOCK_MODE_READ && extent_overlaps(request->extent, extent));
    }
    pthread_mutex_unlock(&lock->mutex);
    return busy;
}
