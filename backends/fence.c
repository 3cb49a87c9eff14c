#include "backends/fence.h"

#include <stdlib.h>

#include "base/log.h"

struct waiter {
    struct work work;
    struct pool *pool;
    void (*fenced)(void *argument);
    void *argument;
};

bool fence_counts(enum verb verb)
{
    switch (verb) {
    case VERB_WRITE:
    case VERB_ZERO:
    case VERB_ALLOCATE:
    case VERB_RESIZE:
        return true;
    case VERB_READ:
    case VERB_FLUSH:
    case VERB_MAP:
        return false;
    }
    abort();
}

void fence_init(struct fence *fence)
{
    pthread_mutex_init(&fence->mutex, NULL);
    fence->epoch = 0;
    fence->writes[0] = fence->writes[1] = 0;
    list_init(&fence->first);
    list_init(&fence->then);
}

void fence_destroy(struct fence *fence)
{
    pthread_mutex_destroy(&fence->mutex);
}

unsigned fence_enter(struct fence *fence)
{
    pthread_mutex_lock(&fence->mutex);
    unsigned epoch = fence->epoch;
    fence->writes[epoch]++;
    pthread_mutex_unlock(&fence->mutex);
    return epoch;
}

static void tell(struct work *work)
{
    struct waiter *waiter = container_of(work, struct waiter, work);
    waiter->fenced(waiter->argument);
    free(waiter);
}

/* While nobody waits the other epoch's count is zero, so that turning the epoch over separates old from new. */
static void advance(struct fence *fence, struct list *told)
{
    while (fence->writes[fence->epoch ^ 1] == 0) {
        list_splice(told, &fence->first);
        if (list_empty(&fence->then))
            return;
        list_splice(&fence->first, &fence->then);
        fence->epoch ^= 1;
    }
}

static void tell_all(struct list *told)
{
    struct list *link;
    while ((link = list_pop(told))) {
        struct waiter *waiter = container_of(link, struct waiter, work.link);
        pool_run(waiter->pool, &waiter->work);
    }
}

void fence_leave(struct fence *fence, unsigned epoch)
{
    struct list told;
    list_init(&told);
    pthread_mutex_lock(&fence->mutex);
    fence->writes[epoch]--;
    if (epoch != fence->epoch)
        advance(fence, &told);
    pthread_mutex_unlock(&fence->mutex);
    tell_all(&told);
}

void fence_wait(struct fence *fence, struct pool *pool, void (*fenced)(void *argument), void *argument)
{
    struct waiter *waiter = calloc(1, sizeof(*waiter));
    struct list told;
    if (!waiter) {
        log_error("no memory to fence an image: its ghosts keep their locks");
        return;
    }
    *waiter = (struct waiter){.work.run = tell, .pool = pool, .fenced = fenced, .argument = argument};
    list_init(&told);
    pthread_mutex_lock(&fence->mutex);
    list_append(&fence->then, &waiter->work.link);
    if (list_empty(&fence->first))
        advance(fence, &told);
    pthread_mutex_unlock(&fence->mutex);
    tell_all(&told);
}
