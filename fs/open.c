/* An entry stands in the table while it is used: by handles (of the session's table, so that the count is right after a
 * worker's death), by users (requests, openings, refreshes, marks of the moment), or by a disk that somebody else still
 * holds: a job, a write that was given up on. Such an entry lingers and is looked at once a second; were it forgotten,
 * the next open would make a second disk beside the one that moves.
 *
 * Lock order: the catalog calls open_files_keep and, through readdir, open_files_attributes under its own lock; so the
 * catalog is never called under ours. */
#include "fs/open.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/control.h"
#include "fs/ghosts.h"
#include "fs/wait.h"

#define BUCKETS   1024u
#define LINGER_NS NS_PER_S
#define REFRESH_NS                                                                                                     \
    (100 * NS_PER_MS) /* how long an answer waits for fresh attributes before it takes the recorded ones */

struct open_file {
    /* set at creation */
    struct list link;
    struct open_files *files;
    uint64_t id;
    /* under the table's mutex */
    unsigned handles, users;
    unsigned opens; /* users that will be handles */
    unsigned marks; /* being deleted */
    bool opening, refreshing, read_only;
    struct list openers, watchers;
    int error; /* of the last opening */
    /* owned by what is opening */
    struct work open_work, refresh_work;
    struct task ghost_task;
    struct disk *fresh;
    /* atomic */
    _Atomic(struct disk *) disk;
    atomic_bool wrote;
};

struct open_files {
    /* set at creation */
    struct filesystem *fs;
    uint32_t handle_count;
    _Atomic(struct open_file *) *by_handle;
    struct ghosts *ghosts;
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct list buckets[BUCKETS];
    unsigned background;
    bool sweeping, closing;
    struct task sweep_task;
    /* reactor 0's own */
    struct timer sweep_timer;
};

static void start_sweep(struct open_files *files);

static struct open_file *find(struct open_files *files, uint64_t id)
{
    list_for_each (link, &files->buckets[id % BUCKETS]) {
        struct open_file *file = container_of(link, struct open_file, link);
        if (file->id == id)
            return file;
    }
    return NULL;
}

static struct open_file *find_or_make(struct open_files *files, uint64_t id)
{
    struct open_file *file = find(files, id);
    if (file)
        return file;
    file = calloc(1, sizeof(*file));
    if (!file)
        return NULL;
    file->files = files;
    file->id = id;
    list_init(&file->openers);
    list_init(&file->watchers);
    list_append(&files->buckets[id % BUCKETS], &file->link);
    return file;
}

/* The mutex is held. Forgets the entry when nobody uses it; returns the disk to put once the mutex is free. */
static struct disk *forget(struct open_file *file)
{
    struct disk *disk = atomic_load(&file->disk);
    if (file->handles || file->users)
        return NULL;
    if (disk && disk_references(disk) > 1 && !file->files->closing) {
        start_sweep(file->files);
        return NULL;
    }
    list_remove(&file->link);
    free(file);
    return disk;
}

static void drop_user(struct open_file *file)
{
    struct open_files *files = file->files;
    pthread_mutex_lock(&files->mutex);
    file->users--;
    struct disk *disk = forget(file);
    pthread_mutex_unlock(&files->mutex);
    disk_put(disk);
}

/* Entries without handles and users whose disk somebody else held. */
static void sweep(struct timer *timer)
{
    struct open_files *files = container_of(timer, struct open_files, sweep_timer);
    pthread_mutex_lock(&files->mutex);
    files->sweeping = false;
    for (unsigned i = 0; i < BUCKETS; i++) {
        list_for_each_safe (link, &files->buckets[i])
            disk_put(forget(container_of(link, struct open_file, link)));
    }
    pthread_mutex_unlock(&files->mutex);
}

static void sweep_later(struct task *task)
{
    struct open_files *files = container_of(task, struct open_files, sweep_task);
    timer_set(files->fs->reactors[0], &files->sweep_timer, LINGER_NS);
}

static void start_sweep(struct open_files *files)
{
    if (files->sweeping)
        return;
    files->sweeping = true;
    reactor_post(files->fs->reactors[0], &files->sweep_task);
}

/* The mutex is held. */
static void background_ends(struct open_files *files)
{
    files->background--;
    pthread_cond_broadcast(&files->changed);
}

static void opened(struct open_file *file, struct disk *disk, int error)
{
    struct open_files *files = file->files;
    pthread_mutex_lock(&files->mutex);
    file->opening = false;
    file->error = error;
    atomic_store(&file->disk, disk);
    wait_wake(&file->openers, error);
    file->users--;
    struct disk *unwanted = forget(file);
    background_ends(files);
    pthread_mutex_unlock(&files->mutex);
    disk_put(unwanted);
}

static void add_ghosts(struct task *task)
{
    struct open_file *file = container_of(task, struct open_file, ghost_task);
    ghosts_give(file->files->ghosts, file->id, file->fresh);
    opened(file, file->fresh, 0);
}

static bool is_read_only(int error)
{
    return error == -EROFS || error == -EACCES || error == -EPERM || error == -ETXTBSY;
}

/* A job that goes on, here or elsewhere: before the first request is sent (law 2). */
static void put_log(struct open_files *files, struct disk *disk, uint64_t id)
{
    struct disk_log *log = control_log(files->fs->control, id);
    disk_set_log(disk, log);
    disk_log_put(log);
}

static void run_open(struct work *work)
{
    struct open_file *file = container_of(work, struct open_file, open_work);
    struct open_files *files = file->files;
    struct image *image = NULL;
    struct disk *disk = NULL;
    int error = names_open_image(files->fs->catalog, file->id, true, &image);
    file->read_only = is_read_only(error);
    if (file->read_only)
        error = names_open_image(files->fs->catalog, file->id, false, &image);
    if (!error && (error = disk_new(&disk, file->id, image)))
        image_put(image);
    if (!error)
        put_log(files, disk, file->id);
    if (!error && ghosts_any(files->ghosts, file->id)) {
        file->fresh = disk;
        file->ghost_task.run = add_ghosts;
        reactor_post(files->fs->reactors[0], &file->ghost_task);
    } else {
        opened(file, disk, error);
    }
}

/* The mutex is held; the file has no disk. */
static void start_open(struct open_file *file, struct datastore *datastore)
{
    if (file->opening)
        return;
    file->opening = true;
    file->users++;
    file->files->background++;
    file->open_work.run = run_open;
    pool_run(datastore->pool, &file->open_work);
}

static struct open_file *wanted(const struct request *request)
{
    return (struct open_file *)(uintptr_t)request->aux[3];
}

static bool will_be_handle(const struct request *request)
{
    return request->in->opcode == FUSE_OPEN || request->in->opcode == FUSE_CREATE;
}

static void want_woken(struct request *request, int result)
{
    request->disk = atomic_load(&wanted(request)->disk);
    if (result == -ETIMEDOUT || (!result && !request->disk))
        result = -EIO;
    request->after(request, result);
}

/* The mutex is held. 1: it waits. */
static int want(struct open_files *files, struct request *request, uint64_t id, struct datastore *datastore)
{
    struct open_file *file = find_or_make(files, id);
    if (!file)
        return -ENOMEM;
    if (file->marks)
        return -ESTALE;
    file->users++;
    file->opens += will_be_handle(request);
    request->aux[3] = (uintptr_t)file;
    request->disk = atomic_load(&file->disk);
    if (request->disk)
        return 0;
    start_open(file, datastore);
    int error = wait_add(&file->openers, &files->mutex, request, datastore->timeout_ns, want_woken);
    return error ? error : 1;
}

void open_files_want(struct request *request, uint64_t id, void (*ready)(struct request *request, int error))
{
    struct open_files *files = request->fs->files;
    struct node node;
    request->aux[3] = 0;
    request->disk = NULL;
    request->after = ready;
    int error = catalog_get(request->fs->catalog, id, &node);
    if (!error && !request_account(request, node.datastore))
        error = -EIO;
    if (!error) {
        pthread_mutex_lock(&files->mutex);
        error = want(files, request, id, catalog_datastore(request->fs->catalog, node.datastore));
        pthread_mutex_unlock(&files->mutex);
    }
    if (error <= 0)
        ready(request, error);
}

void open_files_done(struct request *request)
{
    struct open_file *file = wanted(request);
    if (!file)
        return;
    request->aux[3] = 0;
    if (will_be_handle(request)) {
        pthread_mutex_lock(&file->files->mutex);
        file->opens--;
        pthread_mutex_unlock(&file->files->mutex);
    }
    drop_user(file);
}

bool open_files_read_only(const struct request *request)
{
    return wanted(request)->read_only;
}

struct open_file *open_files_by_handle(struct open_files *files, uint64_t fh, uint64_t id)
{
    if (fh >= files->handle_count)
        return NULL;
    struct open_file *file = atomic_load_explicit(&files->by_handle[fh], memory_order_acquire);
    return file && file->id == id ? file : NULL;
}

struct disk *open_file_disk(struct open_file *file)
{
    return atomic_load_explicit(&file->disk, memory_order_acquire);
}

static bool is_handle_of(struct open_files *files, uint64_t fh, uint64_t id)
{
    struct session_handle *handle = session_handle_get(&files->fs->session, fh);
    return handle && atomic_load(&handle->nodeid) == id;
}

/* A retry whose handle was taken by the dead worker: it was counted when this one started. */
int64_t open_files_add_handle(struct request *request, uint32_t flags)
{
    struct open_file *file = wanted(request);
    struct open_files *files = file->files;
    uint64_t note = request->slot->note;
    if (request->retry && note && is_handle_of(files, note - 1, file->id))
        return (int64_t)note - 1;
    int64_t fh = session_handle_open(&files->fs->session, file->id, flags);
    if (fh < 0)
        return fh;
    request->slot->note = (uint64_t)fh + 1;
    pthread_mutex_lock(&files->mutex);
    file->handles++;
    pthread_mutex_unlock(&files->mutex);
    atomic_store_explicit(&files->by_handle[fh], file, memory_order_release);
    return fh;
}

bool open_files_drop_handle(struct open_files *files, uint64_t fh, uint64_t id)
{
    struct open_file *file = open_files_by_handle(files, fh, id);
    if (!file)
        return false;
    atomic_store(&files->by_handle[fh], NULL);
    pthread_mutex_lock(&files->mutex);
    bool last = --file->handles == 0;
    struct disk *disk = forget(file);
    pthread_mutex_unlock(&files->mutex);
    disk_put(disk);
    return last;
}

void open_files_free_handle(struct open_files *files, uint64_t fh, uint64_t id)
{
    if (is_handle_of(files, fh, id))
        session_handle_close(&files->fs->session, fh);
}

bool open_files_is_open(struct open_files *files, uint64_t id)
{
    pthread_mutex_lock(&files->mutex);
    struct open_file *file = find(files, id);
    bool open = file && (file->handles || file->opens);
    pthread_mutex_unlock(&files->mutex);
    return open;
}

bool open_files_keep(void *argument, uint64_t id)
{
    struct open_victim *victim = argument;
    pthread_mutex_lock(&victim->files->mutex);
    struct open_file *file = find_or_make(victim->files, id);
    bool keep = !file || file->handles || file->opens;
    if (!keep) {
        file->users++;
        file->marks++;
        victim->id = id;
    }
    pthread_mutex_unlock(&victim->files->mutex);
    return keep;
}

void open_files_settle(struct open_victim *victim)
{
    if (!victim->id)
        return;
    pthread_mutex_lock(&victim->files->mutex);
    struct open_file *file = find(victim->files, victim->id);
    file->marks--;
    pthread_mutex_unlock(&victim->files->mutex);
    victim->id = 0;
    drop_user(file);
}

void open_file_wrote(struct open_file *file)
{
    atomic_store_explicit(&file->wrote, true, memory_order_release);
}

bool open_files_attributes(struct open_files *files, struct node *node)
{
    bool settled = true;
    if (!S_ISREG(node->st.st_mode))
        return true;
    pthread_mutex_lock(&files->mutex);
    struct open_file *file = find(files, node->id);
    if (file) {
        struct disk *disk = atomic_load(&file->disk);
        if (disk)
            node->st.st_size = (off_t)disk_size(disk);
        settled = !atomic_load(&file->wrote) && !file->refreshing;
    }
    pthread_mutex_unlock(&files->mutex);
    return settled;
}

static void run_refresh(struct work *work)
{
    struct open_file *file = container_of(work, struct open_file, refresh_work);
    struct open_files *files = file->files;
    struct node node;
    int error = names_refresh(files->fs->catalog, file->id, &node);
    pthread_mutex_lock(&files->mutex);
    file->refreshing = false;
    wait_wake(&file->watchers, error);
    file->users--;
    struct disk *disk = forget(file);
    background_ends(files);
    pthread_mutex_unlock(&files->mutex);
    disk_put(disk);
}

/* The mutex is held. What is written from now on is not in the answer: it sets the mark again. */
static bool start_refresh(struct open_file *file, struct datastore *datastore)
{
    if (file->refreshing)
        return true;
    if (!atomic_exchange(&file->wrote, false))
        return false;
    file->refreshing = true;
    file->users++;
    file->files->background++;
    file->refresh_work.run = run_refresh;
    pool_run(datastore->pool, &file->refresh_work);
    return true;
}

bool open_files_refresh(
    struct open_files *files, uint64_t id, struct request *request, void (*woken)(struct request *request, int result))
{
    struct node node;
    if (catalog_get(files->fs->catalog, id, &node) < 0)
        return false;
    pthread_mutex_lock(&files->mutex);
    struct open_file *file = find(files, id);
    bool waits = file && start_refresh(file, catalog_datastore(files->fs->catalog, node.datastore)) && request &&
                 wait_add(&file->watchers, &files->mutex, request, REFRESH_NS, woken) == 0;
    pthread_mutex_unlock(&files->mutex);
    return waits;
}

/* The mutex is held. Until the opening ends, at most for the datastore's timeout. */
static int wait_opened(struct open_files *files, struct open_file *file, uint64_t timeout_ns)
{
    uint64_t end = clock_now() + timeout_ns;
    struct timespec until = {(time_t)(end / NS_PER_S), (long)(end % NS_PER_S)};
    while (file->opening) {
        if (pthread_cond_timedwait(&files->changed, &files->mutex, &until) == ETIMEDOUT)
            return -EIO;
    }
    return file->error;
}

int open_files_disk(void *argument, uint64_t id, struct disk **out)
{
    struct open_files *files = argument;
    struct node node;
    int error = catalog_get(files->fs->catalog, id, &node);
    if (error)
        return error;
    struct datastore *datastore = catalog_datastore(files->fs->catalog, node.datastore);
    pthread_mutex_lock(&files->mutex);
    struct open_file *file = find_or_make(files, id);
    if (!file || file->marks) {
        pthread_mutex_unlock(&files->mutex);
        return file ? -ENOENT : -ENOMEM;
    }
    file->users++;
    struct disk *disk = atomic_load(&file->disk);
    if (!disk) {
        start_open(file, datastore);
        error = wait_opened(files, file, datastore->timeout_ns);
        disk = atomic_load(&file->disk);
    }
    if (!error && disk)
        *out = disk_get(disk);
    else
        error = error ? error : -EIO;
    pthread_mutex_unlock(&files->mutex);
    drop_user(file);
    return error;
}

static int count_handles(struct open_files *files)
{
    struct session *session = &files->fs->session;
    files->handle_count = session->head->handles;
    files->by_handle = calloc(files->handle_count, sizeof(*files->by_handle));
    if (!files->by_handle)
        return -ENOMEM;
    for (uint64_t fh = 0; fh < session->head->handle_top; fh++) {
        struct session_handle *handle = session_handle_get(session, fh);
        if (!handle)
            continue;
        struct open_file *file = find_or_make(files, atomic_load(&handle->nodeid));
        if (!file)
            return -ENOMEM;
        file->handles++;
        atomic_init(&file->wrote, true);
        atomic_init(&files->by_handle[fh], file);
    }
    return 0;
}

int open_files_new(struct open_files **out, struct filesystem *fs)
{
    struct open_files *files = calloc(1, sizeof(*files));
    if (!files)
        return -ENOMEM;
    files->fs = fs;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&files->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&files->mutex, NULL);
    files->sweep_task.run = sweep_later;
    files->sweep_timer.fired = sweep;
    list_init(&files->sweep_timer.link);
    for (unsigned i = 0; i < BUCKETS; i++)
        list_init(&files->buckets[i]);
    int error = count_handles(files);
    if (!error)
        error = ghosts_find(&files->ghosts, &fs->session);
    if (error) {
        open_files_free(files, 0);
        return error;
    }
    *out = files;
    return 0;
}

static void cancel_sweep(void *argument)
{
    struct open_files *files = argument;
    timer_cancel(&files->sweep_timer);
}

void open_files_free(struct open_files *files, uint64_t timeout_ns)
{
    if (!files)
        return;
    uint64_t end = clock_now() + timeout_ns;
    struct timespec until = {(time_t)(end / NS_PER_S), (long)(end % NS_PER_S)};
    pthread_mutex_lock(&files->mutex);
    files->closing = true;
    while (files->background && pthread_cond_timedwait(&files->changed, &files->mutex, &until) == 0)
        ;
    bool idle = files->background == 0;
    pthread_mutex_unlock(&files->mutex);
    if (!idle)
        return; /* a datastore hangs with a thread in this memory: the process ends soon, and it with it */
    if (files->sweeping)
        reactor_call(files->fs->reactors[0], cancel_sweep, files);
    for (unsigned i = 0; i < BUCKETS; i++) {
        for (struct list *link; (link = list_pop(&files->buckets[i]));) {
            struct open_file *file = container_of(link, struct open_file, link);
            disk_put(atomic_load(&file->disk));
            free(file);
        }
    }
    ghosts_free(files->ghosts);
    free(files->by_handle);
    pthread_cond_destroy(&files->changed);
    pthread_mutex_destroy(&files->mutex);
    free(files);
}
