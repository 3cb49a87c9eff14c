#include "fs/removed.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "base/list.h"

#define BUCKETS 256u
#define ROOM    4096u

struct entry {
    struct list link, age;
    struct node node;
};

struct removed {
    pthread_mutex_t mutex;
    struct list buckets[BUCKETS], oldest;
    _Atomic unsigned count;
};

int removed_new(struct removed **out)
{
    struct removed *removed = calloc(1, sizeof(*removed));
    if (!removed)
        return -ENOMEM;
    pthread_mutex_init(&removed->mutex, NULL);
    list_init(&removed->oldest);
    for (unsigned i = 0; i < BUCKETS; i++)
        list_init(&removed->buckets[i]);
    *out = removed;
    return 0;
}

static struct entry *find(struct removed *removed, uint64_t id)
{
    list_for_each (link, &removed->buckets[id % BUCKETS]) {
        struct entry *entry = container_of(link, struct entry, link);
        if (entry->node.id == id)
            return entry;
    }
    return NULL;
}

static void drop(struct removed *removed, struct entry *entry)
{
    list_remove(&entry->link);
    list_remove(&entry->age);
    free(entry);
    removed->count--;
}

void removed_free(struct removed *removed)
{
    if (!removed)
        return;
    while (!list_empty(&removed->oldest))
        drop(removed, container_of(removed->oldest.next, struct entry, age));
    pthread_mutex_destroy(&removed->mutex);
    free(removed);
}

void removed_add(struct removed *removed, const struct node *node)
{
    pthread_mutex_lock(&removed->mutex);
    struct entry *entry = find(removed, node->id);
    if (!entry && (entry = calloc(1, sizeof(*entry)))) {
        list_append(&removed->buckets[node->id % BUCKETS], &entry->link);
        list_append(&removed->oldest, &entry->age);
        removed->count++;
    }
    if (entry) {
        entry->node = *node;
        entry->node.known = true;
        entry->node.st.st_nlink = 0;
        clock_gettime(CLOCK_REALTIME, &entry->node.st.st_ctim);
    }
    if (removed->count > ROOM)
        drop(removed, container_of(removed->oldest.next, struct entry, age));
    pthread_mutex_unlock(&removed->mutex);
}

void removed_forget(struct removed *removed, uint64_t id)
{
    if (removed->count == 0)
        return;
    pthread_mutex_lock(&removed->mutex);
    struct entry *entry = find(removed, id);
    if (entry)
        drop(removed, entry);
    pthread_mutex_unlock(&removed->mutex);
}

int removed_get(struct removed *removed, uint64_t id, struct node *out)
{
    return removed_change(removed, id, NULL, 0, out);
}

static void set_time(struct timespec *time, const struct timespec *to)
{
    *time = *to;
    if (to->tv_nsec == UTIME_NOW)
        clock_gettime(CLOCK_REALTIME, time);
}

static void change(struct stat *st, const struct stat *to, unsigned mask)
{
    if (mask & ATTRIBUTE_MODE)
        st->st_mode = (st->st_mode & S_IFMT) | (to->st_mode & 07777);
    if (mask & ATTRIBUTE_OWNER && to->st_uid != (uid_t)-1)
        st->st_uid = to->st_uid;
    if (mask & ATTRIBUTE_OWNER && to->st_gid != (gid_t)-1)
        st->st_gid = to->st_gid;
    if (mask & ATTRIBUTE_ATIME)
        set_time(&st->st_atim, &to->st_atim);
    if (mask & ATTRIBUTE_MTIME)
        set_time(&st->st_mtim, &to->st_mtim);
    clock_gettime(CLOCK_REALTIME, &st->st_ctim);
}

int removed_change(struct removed *removed, uint64_t id, const struct stat *st, unsigned mask, struct node *out)
{
    int error = -ENOENT;
    if (removed->count == 0)
        return error;
    pthread_mutex_lock(&removed->mutex);
    struct entry *entry = find(removed, id);
    if (entry) {
        if (mask)
            change(&entry->node.st, st, mask);
        *out = entry->node;
        error = 0;
    }
    pthread_mutex_unlock(&removed->mutex);
    return error;
}
