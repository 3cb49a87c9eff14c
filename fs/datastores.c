#include "fs/datastores.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "catalog/names.h"

#define AGAIN_NS (2 * NS_PER_S)

struct opener {
    struct datastores *datastores;
    struct datastore *datastore;
    pthread_t thread;
    bool running; /* the thread was started and is to be joined */
    /* under the mutex */
    bool tried, late, ended, syncing;
};

struct datastores {
    /* set at creation */
    struct datastore *array[CONFIG_DATASTORES_MAX];
    struct opener openers[CONFIG_DATASTORES_MAX];
    unsigned count;
    /* under the mutex */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool started; /* nobody waits any more: who comes now is late */
    bool stopping;
    struct catalog *catalog;
};

/* The mutex is held. */
static void wait_until(struct datastores *datastores, uint64_t end)
{
    struct timespec until = {.tv_sec = (time_t)(end / NS_PER_S), .tv_nsec = (long)(end % NS_PER_S)};
    pthread_cond_timedwait(&datastores->changed, &datastores->mutex, &until);
}

/* True: it is there. False: not yet, after a while; or the mount ends. */
static bool try_once(struct opener *opener, bool first, struct sentence *before)
{
    struct datastores *datastores = opener->datastores;
    struct sentence why = {""};
    int error = datastore_open(opener->datastore, &why);
    if (error && why.text[0] == '\0')
        refuse(&why, error, "datastore %s: %s", opener->datastore->name, error_text(error));
    if (error && error != -EINTR && strcmp(why.text, before->text) != 0) /* EINTR: the mount ends */
        log_warning("%s; it is tried again until it is there", why.text);
    if (!error && !first)
        log_info("datastore %s is there", opener->datastore->name);
    *before = why;
    pthread_mutex_lock(&datastores->mutex);
    opener->tried = true;
    opener->late = !error && datastores->started;
    pthread_cond_broadcast(&datastores->changed);
    uint64_t end = clock_now() + AGAIN_NS;
    while (error && !datastores->stopping && clock_now() < end)
        wait_until(datastores, end);
    pthread_mutex_unlock(&datastores->mutex);
    return error == 0;
}

static void scan_late(struct datastores *datastores, const struct datastore *datastore)
{
    unsigned found = 0, gone = 0;
    struct sentence why = {""};
    int error = names_rescan(datastores->catalog, &found, &gone, &why);
    if (error)
        log_warning(
            "the names of datastore %s were not read: %s", datastore->name, why.text[0] ? why.text : error_text(error));
    else
        log_info("datastore %s came late: %u names found, %u gone", datastore->name, found, gone);
}

static void *opener_thread(void *argument)
{
    struct opener *opener = argument;
    struct datastores *datastores = opener->datastores;
    struct sentence before = {""};
    bool there = false, stopping = false;
    pthread_setname_np(pthread_self(), "datastore-open");
    for (bool first = true; !there && !stopping; first = false) {
        there = try_once(opener, first, &before);
        pthread_mutex_lock(&datastores->mutex);
        stopping = datastores->stopping;
        bool late = opener->late;
        while (late && !datastores->stopping && !datastores->catalog)
            pthread_cond_wait(&datastores->changed, &datastores->mutex);
        late = late && !datastores->stopping;
        pthread_mutex_unlock(&datastores->mutex);
        if (late)
            scan_late(datastores, opener->datastore);
    }
    pthread_mutex_lock(&datastores->mutex);
    opener->ended = true;
    pthread_cond_broadcast(&datastores->changed);
    pthread_mutex_unlock(&datastores->mutex);
    return NULL;
}

static bool all(struct datastores *datastores, bool (*is)(const struct opener *opener))
{
    for (unsigned i = 0; i < datastores->count; i++)
        if (datastores->openers[i].running && !is(&datastores->openers[i]))
            return false;
    return true;
}

static bool was_tried(const struct opener *opener)
{
    return opener->tried;
}

static bool has_ended(const struct opener *opener)
{
    return opener->ended;
}

static struct datastores *new_datastores(void)
{
    struct datastores *datastores = calloc(1, sizeof(*datastores));
    pthread_condattr_t attributes;
    if (!datastores)
        return NULL;
    pthread_mutex_init(&datastores->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&datastores->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return datastores;
}

static void await_openers(struct datastores *datastores, uint64_t patience_ns)
{
    uint64_t end = clock_now() + patience_ns;
    pthread_mutex_lock(&datastores->mutex);
    while (!all(datastores, was_tried) && clock_now() < end)
        wait_until(datastores, end);
    datastores->started = true;
    for (unsigned i = 0; i < datastores->count; i++)
        if (!datastores->openers[i].tried)
            log_warning(
                "datastore %s does not answer; the mount goes on without it until it does", datastores->array[i]->name);
    pthread_mutex_unlock(&datastores->mutex);
}

int datastores_open(struct datastores **out, const struct config *config, const struct datastore_ops *const *backends,
    const struct datastores_mount *mount, uint64_t patience_ns, struct sentence *why)
{
    struct datastores *datastores = new_datastores();
    int error = datastores ? 0 : -ENOMEM;
    for (unsigned i = 0; !error && i < config->datastore_count; i++) {
        error = datastore_new(&datastores->array[i], &config->datastores[i], backends, why);
        if (!error) {
            datastores->array[i]->index = i;
            datastores->array[i]->identity = mount->identity;
            datastores->array[i]->reactors = mount->reactors;
            datastores->array[i]->notes = mount->notes[i];
            datastores->count++;
        }
    }
    for (unsigned i = 0; !error && i < datastores->count; i++) {
        struct opener *opener = &datastores->openers[i];
        opener->datastores = datastores;
        opener->datastore = datastores->array[i];
        error = -pthread_create(&opener->thread, NULL, opener_thread, opener);
        opener->running = !error;
    }
    if (error) {
        if (datastores && datastores_settle(datastores, patience_ns))
            datastores_close(datastores);
        return why->text[0] ? error : refuse(why, error, "the datastores cannot be opened: %s", error_text(error));
    }
    await_openers(datastores, patience_ns);
    *out = datastores;
    return 0;
}

struct datastore **datastores_array(struct datastores *datastores)
{
    return datastores->array;
}

unsigned datastores_count(const struct datastores *datastores)
{
    return datastores->count;
}

void datastores_publish(struct datastores *datastores, struct catalog *catalog)
{
    pthread_mutex_lock(&datastores->mutex);
    datastores->catalog = catalog;
    pthread_cond_broadcast(&datastores->changed);
    pthread_mutex_unlock(&datastores->mutex);
}

static bool is_noted(struct datastore *datastore)
{
    for (unsigned n = 0; n < DATASTORE_NOTES; n++)
        if (atomic_load(datastore_note(datastore, n)))
            return true;
    return false;
}

static bool is_there(const struct opener *opener)
{
    return opener->ended || !is_noted(opener->datastore);
}

void datastores_await_noted(struct datastores *datastores, uint64_t patience_ns)
{
    uint64_t end = clock_now() + patience_ns;
    pthread_mutex_lock(&datastores->mutex);
    while (!all(datastores, is_there) && clock_now() < end)
        wait_until(datastores, end);
    pthread_mutex_unlock(&datastores->mutex);
}

bool datastores_settle(struct datastores *datastores, uint64_t patience_ns)
{
    uint64_t end = clock_now() + patience_ns;
    pthread_mutex_lock(&datastores->mutex);
    datastores->stopping = true;
    for (unsigned i = 0; i < datastores->count; i++)
        datastores->array[i]->stopping = true;
    pthread_cond_broadcast(&datastores->changed);
    while (!all(datastores, has_ended) && clock_now() < end)
        wait_until(datastores, end);
    bool settled = all(datastores, has_ended);
    pthread_mutex_unlock(&datastores->mutex);
    for (unsigned i = 0; settled && i < datastores->count; i++) {
        if (datastores->openers[i].running)
            pthread_join(datastores->openers[i].thread, NULL);
        datastores->openers[i].running = false;
    }
    return settled;
}

static void *sync_thread(void *argument)
{
    struct opener *opener = argument;
    struct datastore *datastore = opener->datastore;
    int error = datastore->ops->sync_directory(datastore, "");
    if (error)
        log_warning("datastore %s: its last changes could not be made durable: %s", datastore->name, error_text(error));
    pthread_mutex_lock(&opener->datastores->mutex);
    opener->syncing = false;
    pthread_cond_broadcast(&opener->datastores->changed);
    pthread_mutex_unlock(&opener->datastores->mutex);
    return NULL;
}

static void start_sync(struct opener *opener)
{
    pthread_t thread;
    opener->syncing = true;
    if (pthread_create(&thread, NULL, sync_thread, opener) == 0)
        pthread_detach(thread);
    else
        log_warning("datastore %s: no thread to make its last changes durable", opener->datastore->name);
}

bool datastores_sync(struct datastores *datastores, uint64_t patience_ns)
{
    uint64_t end = clock_now() + patience_ns;
    bool all = false;
    pthread_mutex_lock(&datastores->mutex);
    for (unsigned i = 0; i < datastores->count; i++) {
        struct opener *opener = &datastores->openers[i];
        if ((opener->ended || !opener->running) && !atomic_load(&opener->datastore->away))
            start_sync(opener);
    }
    while (!all) {
        all = true;
        for (unsigned i = 0; i < datastores->count; i++)
            all = all && !datastores->openers[i].syncing;
        if (all || clock_now() >= end)
            break;
        wait_until(datastores, end);
    }
    pthread_mutex_unlock(&datastores->mutex);
    return all;
}

void datastores_close(struct datastores *datastores)
{
    if (!datastores)
        return;
    for (unsigned i = 0; i < datastores->count; i++)
        datastore_free(datastores->array[i]);
    pthread_cond_destroy(&datastores->changed);
    pthread_mutex_destroy(&datastores->mutex);
    free(datastores);
}
