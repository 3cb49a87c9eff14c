/* A datastore that wraps another and goes wrong by the rules of its faults file (backends/fault_rules.h); for tests.
 * Without a file, or without rules in it, it passes everything on. A call that hangs holds its thread, as a real one
 * would: a pool whose calls hang cannot be closed until the rule is gone. */
#include "backends/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/backends.h"
#include "base/clock.h"

#define INNER_THREADS 4

/* ---- rules on names ---- */

struct held {
    struct fault_waiting waiting;
    pthread_mutex_t mutex;
    pthread_cond_t gone_on;
    bool go;
};

static void go_on(struct fault_waiting *waiting)
{
    struct held *held = container_of(waiting, struct held, waiting);
    pthread_mutex_lock(&held->mutex);
    held->go = true;
    pthread_cond_signal(&held->gone_on);
    pthread_mutex_unlock(&held->mutex);
}

static void wait_for(struct held *held)
{
    pthread_mutex_lock(&held->mutex);
    while (!held->go)
        pthread_cond_wait(&held->gone_on, &held->mutex);
    pthread_mutex_unlock(&held->mutex);
}

static struct fault *fault_of(const struct datastore *datastore)
{
    return datastore->state;
}

/* Called before each call that blocks: 0 to go on, or the rule's -errno. */
static int pass(struct datastore *datastore, unsigned point, const char *path)
{
    struct fault *fault = fault_of(datastore);
    struct held held = {.waiting.go = go_on};
    if (!fault)
        return -EIO;
    pthread_mutex_init(&held.mutex, NULL);
    pthread_cond_init(&held.gone_on, NULL);
    struct fault_verdict verdict = fault_decide(&fault->rules, point, NULL, path, &held.waiting);
    struct timespec delay = {verdict.ms / 1000, (long)(verdict.ms % 1000) * 1000000};
    int error = 0;
    switch (verdict.action) {
    case FAULT_NONE:
    case FAULT_CHECK:
    case FAULT_CORRUPT:
        break;
    case FAULT_FAIL:
    case FAULT_LATE:
        error = verdict.error;
        break;
    case FAULT_DELAY:
        nanosleep(&delay, NULL);
        break;
    case FAULT_HANG:
        wait_for(&held);
        break;
    }
    pthread_cond_destroy(&held.gone_on);
    pthread_mutex_destroy(&held.mutex);
    return error;
}

/* ---- open and close ---- */

static const struct datastore_ops *find(const char *url, const char **rest)
{
    const char *colon = strchr(url, ':');
    size_t length = colon ? (size_t)(colon - url) : 0;
    *rest = colon ? colon + 1 : NULL;
    for (const struct datastore_ops *const *ops = backend_wrappable; colon && *ops; ops++)
        if (strlen((*ops)->scheme) == length && memcmp((*ops)->scheme, url, length) == 0)
            return *ops;
    return NULL;
}

static void look(struct timer *timer)
{
    struct fault *fault = container_of(timer, struct fault, timer);
    fault_rules_refresh(&fault->rules);
    timer_set(fault->reactor, timer, FAULT_POLL_NS);
}

static void start_looking(void *argument)
{
    look(&((struct fault *)argument)->timer);
}

static void stop_looking(void *argument)
{
    struct fault *fault = argument;
    timer_cancel(&fault->timer);
    fault_land(fault);
}

static void free_fault(struct fault *fault)
{
    reactor_stop(fault->reactor);
    pool_close(fault->inner.pool);
    if (fault->inner.state)
        fault->inner.ops->close(&fault->inner);
    fault_rules_close(&fault->rules);
    pthread_cond_destroy(&fault->landed);
    pthread_mutex_destroy(&fault->mutex);
    free(fault->inner.url);
    free(fault);
}

static int open_inner(struct fault *fault, const struct datastore *datastore, const char *url, struct sentence *why)
{
    const char *rest;
    struct datastore *inner = &fault->inner;
    inner->ops = find(url, &rest);
    if (!inner->ops)
        return refuse(why, -EINVAL, "datastore %s: fault: cannot wrap \"%s\"", datastore->name, url);
    memcpy(inner->name, datastore->name, sizeof(inner->name));
    inner->timeout_ns = datastore->timeout_ns;
    inner->index = datastore->index;
    inner->options = datastore->options;
    inner->identity = datastore->identity;
    inner->reactors = datastore->reactors;
    inner->notes = datastore->notes;
    inner->url = strdup(url);
    int error = inner->url ? pool_open(&inner->pool, datastore->name, INNER_THREADS) : -ENOMEM;
    if (!error)
        error = reactor_start(&fault->reactor, REACTOR_FAULT);
    if (error)
        return refuse(why, error, "datastore %s: %s", datastore->name, error_text(error));
    return inner->ops->open(inner, rest, why);
}

static int open_fault(struct datastore *datastore, const char *rest, struct sentence *why)
{
    struct fault *fault = calloc(1, sizeof(*fault));
    if (!fault || fault_rules_open(&fault->rules, datastore->faults) < 0) {
        free(fault);
        return refuse(why, -ENOMEM, "datastore %s: no memory", datastore->name);
    }
    pthread_mutex_init(&fault->mutex, NULL);
    pthread_cond_init(&fault->landed, NULL);
    list_init(&fault->late);
    fault->timer.fired = look;
    int error = open_inner(fault, datastore, rest, why);
    if (error) {
        free_fault(fault);
        return error;
    }
    reactor_call(fault->reactor, start_looking, fault);
    datastore->state = fault;
    return 0;
}

/* Ghosts land before the end, so that nothing lands after it. */
static void close_fault(struct datastore *datastore)
{
    struct fault *fault = fault_of(datastore);
    if (!fault)
        return;
    datastore->state = NULL;
    reactor_call(fault->reactor, stop_looking, fault);
    pthread_mutex_lock(&fault->mutex);
    while (fault->ghosts)
        pthread_cond_wait(&fault->landed, &fault->mutex);
    pthread_mutex_unlock(&fault->mutex);
    free_fault(fault);
}

/* ---- calls ---- */

#define INNER(datastore) (&fault_of(datastore)->inner)

static int statfs_fault(struct datastore *datastore, struct statvfs *out)
{
    int error = pass(datastore, FAULT_NAME, "");
    return error ? error : INNER(datastore)->ops->statfs(INNER(datastore), out);
}

static int lookup(struct datastore *datastore, const char *path, struct stat *out)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->lookup(INNER(datastore), path, out);
}

static int list(struct datastore *datastore, const char *path, datastore_entry *entry, void *argument)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->list(INNER(datastore), path, entry, argument);
}

static int create(struct datastore *datastore, const char *path, const struct stat *st, const char *content)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->create(INNER(datastore), path, st, content);
}

static int rename_fault(struct datastore *datastore, const char *from, const char *to, bool replace)
{
    int error = pass(datastore, FAULT_NAME, from);
    return error ? error : INNER(datastore)->ops->rename(INNER(datastore), from, to, replace);
}

static int remove_fault(struct datastore *datastore, const char *path, bool directory)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->remove(INNER(datastore), path, directory);
}

static int readlink_fault(struct datastore *datastore, const char *path, char *out, size_t size)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->readlink(INNER(datastore), path, out, size);
}

static int set_attributes(struct datastore *datastore, const char *path, const struct stat *st, unsigned mask)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->set_attributes(INNER(datastore), path, st, mask);
}

static ssize_t get_xattr(struct datastore *datastore, const char *path, const char *name, void *value, size_t size)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->get_xattr(INNER(datastore), path, name, value, size);
}

static int set_xattr(
    struct datastore *datastore, const char *path, const char *name, const void *value, size_t size, int flags)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->set_xattr(INNER(datastore), path, name, value, size, flags);
}

static ssize_t list_xattr(struct datastore *datastore, const char *path, char *out, size_t size)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->list_xattr(INNER(datastore), path, out, size);
}

static int remove_xattr(struct datastore *datastore, const char *path, const char *name)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->remove_xattr(INNER(datastore), path, name);
}

static int sync_directory(struct datastore *datastore, const char *path)
{
    int error = pass(datastore, FAULT_NAME, path);
    return error ? error : INNER(datastore)->ops->sync_directory(INNER(datastore), path);
}

static int open_image(struct datastore *datastore, const char *path, bool writable, struct image **out)
{
    struct image *inner;
    int error = pass(datastore, FAULT_OPEN, path);
    if (!error)
        error = INNER(datastore)->ops->open_image(INNER(datastore), path, writable, &inner);
    return error ? error : fault_wrap_image(datastore, path, inner, out);
}

const struct datastore_ops backend_fault = {
    .scheme = "fault",
    .open = open_fault,
    .close = close_fault,
    .statfs = statfs_fault,
    .lookup = lookup,
    .list = list,
    .create = create,
    .rename = rename_fault,
    .remove = remove_fault,
    .readlink = readlink_fault,
    .set_attributes = set_attributes,
    .get_xattr = get_xattr,
    .set_xattr = set_xattr,
    .list_xattr = list_xattr,
    .remove_xattr = remove_xattr,
    .sync_directory = sync_directory,
    .open_image = open_image,
};
