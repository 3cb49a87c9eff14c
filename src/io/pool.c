#include "io/pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct pool {
    /* set at creation */
    char name[16];
    unsigned limit;
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t work;
    struct list queue;
    unsigned started, idle, queued;
    bool closing;
    pthread_t *threads;
};

static void *pool_thread(void *argument)
{
    struct pool *pool = argument;
    pthread_setname_np(pthread_self(), pool->name);
    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        struct list *link = list_pop(&pool->queue);
        if (link) {
            pool->queued--;
            pthread_mutex_unlock(&pool->mutex);
            struct work *work = container_of(link, struct work, link);
            behalf_set(work->behalf);
            work->run(work);
            behalf_set((struct behalf){NULL, 0});
            pthread_mutex_lock(&pool->mutex);
        } else if (pool->closing) {
            break;
        } else {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->mutex);
            pool->idle--;
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

static int start_thread(struct pool *pool)
{
    int error = pthread_create(&pool->threads[pool->started], NULL, pool_thread, pool);
    if (!error)
        pool->started++;
    return -error;
}

/* The first thread is started here, so that a pool that opened can always work. */
int pool_open(struct pool **out, const char *name, unsigned threads)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return -ENOMEM;
    pool->limit = threads ? threads : 1;
    pool->threads = calloc(pool->limit, sizeof(*pool->threads));
    if (!pool->threads) {
        free(pool);
        return -ENOMEM;
    }
    snprintf(pool->name, sizeof(pool->name), "%s", name);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->work, NULL);
    list_init(&pool->queue);
    int error = start_thread(pool);
    if (error) {
        pool_close(pool);
        return error;
    }
    *out = pool;
    return 0;
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    pthread_mutex_lock(&pool->mutex);
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned i = 0; i < pool->started; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->threads);
    free(pool);
}

void pool_run(struct pool *pool, struct work *work)
{
    work->behalf = behalf_now;
    pthread_mutex_lock(&pool->mutex);
    list_append(&pool->queue, &work->link);
    pool->queued++;
    /* A thread that cannot be started now is no error: those that run take the queue. */
    if (pool->queued > pool->idle && pool->started < pool->limit)
        start_thread(pool);
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->mutex);
}
