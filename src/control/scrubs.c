#include "control/scrubs.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/list.h"
#include "base/log.h"

struct entry {
    struct list link;
    struct scrub *scrub;
    bool started, ended, forgotten, cancelled;
};

struct scrubs {
    struct job_services services;
    struct board *board;
    unsigned limit;
    /* under mutex */
    pthread_mutex_t mutex;
    unsigned running;
    bool closing;
    struct list entries;
};

int scrubs_new(struct scrubs **out, const struct job_services *services, struct board *board, unsigned limit)
{
    struct scrubs *scrubs = calloc(1, sizeof(*scrubs));
    if (!scrubs)
        return -ENOMEM;
    scrubs->services = *services;
    scrubs->board = board;
    scrubs->limit = limit;
    pthread_mutex_init(&scrubs->mutex, NULL);
    list_init(&scrubs->entries);
    *out = scrubs;
    return 0;
}

static void entry_free(struct entry *entry)
{
    list_remove(&entry->link);
    scrub_free(entry->scrub);
    free(entry);
}

/* Under mutex: the threads that have ended are taken back, those that nobody asks for go; what stands in the queue is
 * started as the limit allows, and what was cancelled there has only to end. */
static void tidy(struct scrubs *scrubs)
{
    list_for_each_safe (link, &scrubs->entries) {
        struct entry *entry = container_of(link, struct entry, link);
        if (entry->forgotten && (entry->ended || !entry->started)) {
            entry_free(entry);
        } else if (entry->ended) {
            scrub_join(entry->scrub);
        } else if (!entry->started && !scrubs->closing && (scrubs->running < scrubs->limit || entry->cancelled)) {
            int error = scrub_start(entry->scrub);
            entry->started = error == 0;
            scrubs->running += error == 0;
            if (error < 0)
                log_error("a scrub's thread cannot be started: %s; it is tried again", error_text(error));
        }
    }
}

/* On the scrub's thread: only marks it, since its end is waited for where it is freed. */
static void ended(void *argument, struct scrub *scrub)
{
    struct scrubs *scrubs = argument;
    struct job_result result;
    struct sentence sentence = {""};
    scrub_describe(scrub, &result);
    snprintf(sentence.text, sizeof(sentence.text), "%s", result.error);
    pthread_mutex_lock(&scrubs->mutex);
    struct entry *own = NULL;
    list_for_each (link, &scrubs->entries)
        if (container_of(link, struct entry, link)->scrub == scrub)
            own = container_of(link, struct entry, link);
    if (own && !own->forgotten && sentence.text[0])
        board_note(scrubs->board, scrub_node(scrub), &sentence);
    scrubs->running--;
    tidy(scrubs);
    if (own)
        own->ended = true;
    pthread_mutex_unlock(&scrubs->mutex);
}

/* Under mutex. */
static struct entry *find(struct scrubs *scrubs, uint64_t node)
{
    list_for_each (link, &scrubs->entries) {
        struct entry *entry = container_of(link, struct entry, link);
        if (scrub_node(entry->scrub) == node && !entry->forgotten)
            return entry;
    }
    return NULL;
}

static void forget(struct entry *entry)
{
    entry->forgotten = true;
    scrub_cancel(entry->scrub, true);
}

int scrubs_add(struct scrubs *scrubs, uint64_t node)
{
    struct entry *entry = calloc(1, sizeof(*entry));
    if (!entry)
        return -ENOMEM;
    int error = scrub_new(&entry->scrub, &scrubs->services, node, ended, scrubs);
    list_init(&entry->link);
    pthread_mutex_lock(&scrubs->mutex);
    struct entry *old = find(scrubs, node);
    if (error == 0 && old && scrub_state(old->scrub) <= SCRUB_VERIFYING)
        error = -EALREADY;
    if (error == 0 && old)
        forget(old);
    if (error == 0)
        list_append(&scrubs->entries, &entry->link);
    else
        entry_free(entry);
    tidy(scrubs);
    pthread_mutex_unlock(&scrubs->mutex);
    return error;
}

int scrubs_cancel(struct scrubs *scrubs, uint64_t node)
{
    pthread_mutex_lock(&scrubs->mutex);
    struct entry *entry = find(scrubs, node);
    int error = entry && scrub_state(entry->scrub) <= SCRUB_VERIFYING ? 0 : -EINVAL;
    if (error == 0) {
        entry->cancelled = true;
        scrub_cancel(entry->scrub, false);
        tidy(scrubs);
    }
    pthread_mutex_unlock(&scrubs->mutex);
    return error;
}

void scrubs_forget(struct scrubs *scrubs, uint64_t node)
{
    pthread_mutex_lock(&scrubs->mutex);
    struct entry *entry = find(scrubs, node);
    if (entry)
        forget(entry);
    tidy(scrubs);
    pthread_mutex_unlock(&scrubs->mutex);
}

void scrubs_forget_if(struct scrubs *scrubs, bool (*is)(void *argument, uint64_t node), void *argument)
{
    pthread_mutex_lock(&scrubs->mutex);
    list_for_each (link, &scrubs->entries) {
        struct entry *entry = container_of(link, struct entry, link);
        if (!entry->forgotten && is(argument, scrub_node(entry->scrub)))
            forget(entry);
    }
    tidy(scrubs);
    pthread_mutex_unlock(&scrubs->mutex);
}

int scrubs_describe(struct scrubs *scrubs, uint64_t node, struct job_result *out)
{
    pthread_mutex_lock(&scrubs->mutex);
    struct entry *entry = find(scrubs, node);
    if (entry)
        scrub_describe(entry->scrub, out);
    tidy(scrubs);
    pthread_mutex_unlock(&scrubs->mutex);
    return entry ? 0 : -ENOENT;
}

/* Scrubs that end meanwhile walk the list, so each is taken out under the mutex and waited for without it. */
static struct entry *take_entry(struct scrubs *scrubs)
{
    pthread_mutex_lock(&scrubs->mutex);
    struct list *link = list_pop(&scrubs->entries);
    pthread_mutex_unlock(&scrubs->mutex);
    if (!link)
        return NULL;
    list_init(link);
    return container_of(link, struct entry, link);
}

void scrubs_free(struct scrubs *scrubs)
{
    if (!scrubs)
        return;
    pthread_mutex_lock(&scrubs->mutex);
    scrubs->closing = true;
    list_for_each (link, &scrubs->entries)
        scrub_cancel(container_of(link, struct entry, link)->scrub, true);
    pthread_mutex_unlock(&scrubs->mutex);
    for (struct entry *entry; (entry = take_entry(scrubs));)
        entry_free(entry);
    pthread_mutex_destroy(&scrubs->mutex);
    free(scrubs);
}
