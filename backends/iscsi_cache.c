#include "backends/iscsi_cache.h"

int lun_cache_init(struct lun_cache *cache, bool has_cache)
{
    pthread_mutex_init(&cache->mutex, NULL);
    list_init(&cache->held);
    cache->stamp = 1;
    return has_cache ? unflushed_new(&cache->unflushed, LUN_CACHE_BUDGET) : 0;
}

void lun_cache_destroy(struct lun_cache *cache)
{
    unflushed_free(cache->unflushed);
    pthread_mutex_destroy(&cache->mutex);
}

bool lun_cache_enter(struct lun_cache *cache, bool change, bool owed)
{
    if (!cache->unflushed)
        return true;
    pthread_mutex_lock(&cache->mutex);
    bool open = !cache->lost && (owed || !cache->owing);
    if (open && change)
        cache->out++;
    pthread_mutex_unlock(&cache->mutex);
    return open;
}

void lun_cache_owe(struct lun_cache *cache)
{
    pthread_mutex_lock(&cache->mutex);
    cache->owed++;
    pthread_mutex_unlock(&cache->mutex);
}

bool lun_cache_paid(struct lun_cache *cache)
{
    pthread_mutex_lock(&cache->mutex);
    bool opens = --cache->owed == 0 && cache->owing;
    if (opens)
        cache->owing = false;
    pthread_mutex_unlock(&cache->mutex);
    return opens;
}

struct lun_session *lun_cache_leave(struct lun_cache *cache)
{
    struct lun_session *wake = NULL;
    if (!cache->unflushed)
        return NULL;
    pthread_mutex_lock(&cache->mutex);
    if (--cache->out == 0 && cache->lost)
        wake = cache->replayer;
    pthread_mutex_unlock(&cache->mutex);
    return wake;
}

void lun_cache_lose(struct lun_cache *cache, struct lun_session *session, bool fresh)
{
    if (!cache->unflushed)
        return;
    pthread_mutex_lock(&cache->mutex);
    if (fresh)
        cache->stamp++;
    cache->lost = true;
    cache->again = cache->replaying;
    if (!cache->replayer)
        cache->replayer = session;
    pthread_mutex_unlock(&cache->mutex);
}

bool lun_cache_duty(struct lun_cache *cache, struct lun_session *session)
{
    if (!cache->unflushed)
        return false;
    pthread_mutex_lock(&cache->mutex);
    bool duty = cache->lost && cache->replayer == session;
    pthread_mutex_unlock(&cache->mutex);
    return duty;
}

bool lun_cache_begin(struct lun_cache *cache, struct lun_session *session)
{
    if (!cache->unflushed)
        return false;
    pthread_mutex_lock(&cache->mutex);
    bool begin = cache->lost && cache->out == 0 && cache->replayer == session && !cache->replaying;
    if (begin)
        cache->replaying = true;
    pthread_mutex_unlock(&cache->mutex);
    return begin;
}

bool lun_cache_end(struct lun_cache *cache, uint64_t stamp, int failed)
{
    pthread_mutex_lock(&cache->mutex);
    bool open = cache->stamp == stamp && !cache->again;
    cache->again = false;
    if (open) {
        cache->lost = cache->replaying = false;
        cache->replayer = NULL;
        cache->failed = failed;
        cache->owing = cache->owed > 0;
    }
    pthread_mutex_unlock(&cache->mutex);
    return open;
}
