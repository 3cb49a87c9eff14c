/* An open volume: from its raw image to its tree, and back to rest. */
#include "backends/volume/volume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backends/volume/node.h"
#include "base/log.h"

#define NOTE_COMMIT 7
#define REST_S      60 /* what is still on its way at the end is waited for so long */

/* ---- opening ---- */

int volume_begin(struct volume **out, struct image *raw, const struct raw_ops *ops, unsigned flags,
    const struct volume_findings *findings, struct sentence *why)
{
    struct volume *volume = calloc(1, sizeof(*volume));
    if (!volume)
        return refuse(why, -ENOMEM, "datastore %s: no memory", raw->datastore->name);
    volume->ops = ops;
    volume->flags = flags;
    snprintf(volume->name, sizeof(volume->name), "%s", raw->datastore->name);
    if (findings)
        volume->findings = *findings;
    pthread_mutex_init(&volume->mutex, NULL);
    pthread_cond_init(&volume->quiet, NULL);
    list_init(&volume->pieces);
    volume->note = datastore_note(raw->datastore, NOTE_COMMIT);
    committer_open(volume);
    releaser_open(volume);
    int error = carrier_open(&volume->carrier, raw);
    if (!error && volume->carrier.block > VOLUME_BLOCK)
        error = refuse(why, -EINVAL, "datastore %s: the raw image's blocks have %u bytes, a volume's at most %u",
            volume->name, volume->carrier.block, VOLUME_BLOCK);
    if (!error)
        error = load_superblock(volume, why);
    if (error) {
        volume_drop(volume);
        return error;
    }
    *out = volume;
    return 0;
}

void volume_drop(struct volume *volume)
{
    carrier_close(&volume->carrier);
    committer_close(volume);
    releaser_close(volume);
    nodes_close(&volume->tree);
    space_close(&volume->space);
    pieces_free(volume);
    pthread_cond_destroy(&volume->quiet);
    pthread_mutex_destroy(&volume->mutex);
    free(volume);
}

int volume_go(struct volume *volume, struct sentence *why)
{
    int error = load_tree(volume, why);
    if (error)
        return error;
    /* a number is given to one commit only, were it one that was torn, or left behind */
    uint64_t last = volume->loaded_commit + journal_pages(&volume->superblock);
    volume->committer.number = volume->committer.durable = volume->committer.written = last;
    volume->tree.commit = last + 1;
    volume->committer.ring_head = volume->journal_page;
    if (!(volume->flags & VOLUME_WRITABLE))
        return 0;
    error = volume_sync(volume, true);
    if (!error && volume->superblock_damaged)
        error = superblock_write(&volume->carrier, &volume->superblock);
    if (error)
        refuse(why, error, "datastore %s: the volume's metadata could not be written: %s", volume->name,
            error_text(error));
    return error;
}

int volume_open(struct volume **out, struct image *raw, const struct raw_ops *ops, unsigned flags,
    const struct volume_findings *findings, struct sentence *why)
{
    struct volume *volume;
    int error = volume_begin(&volume, raw, ops, flags, findings, why);
    if (error)
        return error;
    error = volume_go(volume, why);
    if (error)
        volume_drop(volume);
    else
        *out = volume;
    return error;
}

/* ---- being durable ---- */

struct wish {
    struct waiter waiter;
    struct volume *volume;
    bool done;
    int result;
    pthread_cond_t answered;
};

static void wish_done(struct waiter *waiter, int result)
{
    struct wish *wish = container_of(waiter, struct wish, waiter);
    struct volume *volume = wish->volume;
    pthread_mutex_lock(&volume->mutex);
    wish->result = result;
    wish->done = true;
    pthread_cond_signal(&wish->answered);
    pthread_mutex_unlock(&volume->mutex);
}

static int wish_for(struct volume *volume, bool durable, bool checkpoint)
{
    struct wish wish = {
        .waiter = {.done = wish_done, .durable = durable}, .volume = volume, .answered = PTHREAD_COND_INITIALIZER};
    pthread_mutex_lock(&volume->mutex);
    volume->committer.checkpoint_wanted |= checkpoint;
    commit_want(volume, &wish.waiter);
    while (!wish.done)
        pthread_cond_wait(&wish.answered, &volume->mutex);
    pthread_mutex_unlock(&volume->mutex);
    pthread_cond_destroy(&wish.answered);
    return wish.result;
}

int volume_sync(struct volume *volume, bool checkpoint)
{
    return wish_for(volume, true, checkpoint);
}

int volume_keep(struct volume *volume)
{
    return wish_for(volume, false, false);
}

/* ---- the end ---- */

/* False: something is still on its way, after a long time. */
static bool rest(struct volume *volume)
{
    struct timespec until;
    int error = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += REST_S;
    pthread_mutex_lock(&volume->mutex);
    while (!error && !(commit_idle(volume) && release_idle(volume)))
        error = pthread_cond_timedwait(&volume->quiet, &volume->mutex, &until);
    bool resting = commit_idle(volume) && release_idle(volume);
    pthread_mutex_unlock(&volume->mutex);
    return resting;
}

static void stop_timer(void *argument)
{
    struct volume *volume = argument;
    timer_cancel(&volume->committer.timer);
}

int volume_finish(struct volume *volume)
{
    if (!(volume->flags & VOLUME_WRITABLE))
        return 0;
    reactor_call(volume->carrier.reactor, stop_timer, volume);
    pthread_mutex_lock(&volume->mutex);
    volume->closing = volume->committer.timed = true;
    pthread_mutex_unlock(&volume->mutex);
    int error = volume_sync(volume, false);
    if (rest(volume))
        return error;
    log_error("datastore %s: the raw image does not answer; its last requests are given up", volume->name);
    return -ETIMEDOUT;
}

int volume_close(struct volume *volume)
{
    if (!volume)
        return 0;
    int error = volume_finish(volume);
    if (error == -ETIMEDOUT)
        return error; /* the requests may come back: what they know stays */
    image_close(volume->carrier.image);
    volume_drop(volume);
    return error;
}

/* ---- looking ---- */

void volume_summarise(struct volume *volume, struct volume_summary *out)
{
    pthread_mutex_lock(&volume->mutex);
    *out = (struct volume_summary){.superblock = volume->superblock,
        .image_size = atomic_load(&volume->carrier.image->size),
        .free_extents = volume->space.free,
        .nodes = volume->tree.count,
        .node_bytes = volume->tree.bytes,
        .node_bytes_max = volume->tree.bytes_max,
        .generation = volume->committer.generation,
        .commit = volume->loaded_commit,
        .replayed = volume->replayed};
    for (uint32_t i = 0; i < volume->superblock.extents; i++)
        out->data_extents += !superblock_covers(&volume->superblock, i);
    for (size_t i = 0; i < volume->tree.buckets; i++)
        for (struct volume_node *node = volume->tree.by_id[i]; node; node = node->next_by_id)
            out->runs += node->map.runs;
    pthread_mutex_unlock(&volume->mutex);
}

struct path {
    char *text;
    size_t length, room;
};

static int path_push(struct path *path, const char *name)
{
    size_t more = strlen(name) + 2;
    if (path->length + more > path->room) {
        char *text = realloc(path->text, path->room * 2 + more);
        if (!text)
            return -ENOMEM;
        path->text = text;
        path->room = path->room * 2 + more;
    }
    path->length += (size_t)sprintf(path->text + path->length, "%s%s", path->length ? "/" : "", name);
    return 0;
}

static void path_pop(struct path *path)
{
    while (path->length > 0 && path->text[--path->length] != '/')
        ;
    path->text[path->length] = '\0';
}

static struct stat stat_of(const struct volume_node *node)
{
    struct stat st = node->st;
    st.st_blocks = (blkcnt_t)(node->map.blocks * (VOLUME_BLOCK / 512));
    return st;
}

int volume_visit(struct volume *volume, volume_visitor *visitor, void *argument)
{
    struct path path = {0};
    int result = 0;
    pthread_mutex_lock(&volume->mutex);
    const struct volume_node *root = volume->tree.root, *node = root;
    const struct list *link = root->children.next;
    struct stat st = stat_of(root);
    result = visitor(argument, "", &st, &root->map, NULL);
    while (!result) {
        if (link == &node->children) {
            if (node == root)
                break;
            link = node->link.next;
            node = node->parent;
            path_pop(&path);
            continue;
        }
        node = container_of(link, struct volume_node, link);
        link = node->children.next;
        st = stat_of(node);
        result = path_push(&path, node->name);
        if (!result)
            result = visitor(argument, path.text, &st, &node->map, node->content);
    }
    pthread_mutex_unlock(&volume->mutex);
    free(path.text);
    return result;
}

int volume_remove(struct volume *volume, const char *path)
{
    struct volume_node *node;
    if (!(volume->flags & VOLUME_WRITABLE))
        return -EROFS;
    pthread_mutex_lock(&volume->mutex);
    int error = nodes_find(&volume->tree, path, &node);
    if (!error)
        error = volume_unlink(volume, path, S_ISDIR(node->st.st_mode));
    pthread_mutex_unlock(&volume->mutex);
    return error ? error : volume_sync(volume, false);
}
