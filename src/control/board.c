#include "control/board.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"

#define NOTES_MAX 1024 /* sentences kept; the oldest goes */

struct entry {
    struct list link;
    struct job *job;
    bool started, ended, resting;
};

struct note {
    struct list link;
    uint64_t node;
    struct sentence sentence;
};

struct board {
    pthread_mutex_t mutex;
    unsigned limit, running;
    bool held, closing;
    struct list entries, notes;
    unsigned note_count;
};

int board_new(struct board **out, unsigned limit)
{
    struct board *board = calloc(1, sizeof(*board));
    if (!board)
        return -ENOMEM;
    pthread_mutex_init(&board->mutex, NULL);
    list_init(&board->entries);
    list_init(&board->notes);
    board->limit = limit;
    board->held = true;
    *out = board;
    return 0;
}

static struct entry *find(struct board *board, uint64_t node)
{
    list_for_each (link, &board->entries) {
        struct entry *entry = container_of(link, struct entry, link);
        if (job_node(entry->job) == node)
            return entry;
    }
    return NULL;
}

/* Under mutex: in order of arrival. What was cancelled while it waited has only to end. */
static void start_some(struct board *board)
{
    list_for_each (link, &board->entries) {
        struct entry *entry = container_of(link, struct entry, link);
        if (entry->started || board->held || board->closing ||
            (board->running >= board->limit && !job_cancelled(entry->job)))
            continue;
        entry->started = true;
        int error = job_start(entry->job);
        if (error < 0) {
            log_error("a job's thread cannot be started: %s; it is tried again with the next job", error_text(error));
            entry->started = false;
            return;
        }
        board->running++;
    }
}

void board_open(struct board *board)
{
    pthread_mutex_lock(&board->mutex);
    board->held = false;
    start_some(board);
    pthread_mutex_unlock(&board->mutex);
}

void board_watch(struct board *board)
{
    pthread_mutex_lock(&board->mutex);
    list_for_each (link, &board->entries) {
        struct entry *entry = container_of(link, struct entry, link);
        int error = entry->started ? 0 : job_watch(entry->job);
        if (error < 0)
            log_error("nobody looks after the journal of a job that waits: %s", error_text(error));
    }
    pthread_mutex_unlock(&board->mutex);
}

int board_add(struct board *board, struct job *job)
{
    struct job *old = NULL;
    pthread_mutex_lock(&board->mutex);
    struct entry *entry;
    while ((entry = find(board, job_node(job))) && !entry->ended && job_ended(entry->job)) { /* it is about to say so */
        pthread_mutex_unlock(&board->mutex);
        usleep(1000);
        pthread_mutex_lock(&board->mutex);
    }
    int error = board->closing ? -ESHUTDOWN : entry && !entry->ended ? -EALREADY : 0;
    if (error == 0 && entry) {
        old = entry->job;
        list_remove(&entry->link);
    } else if (error == 0) {
        entry = calloc(1, sizeof(*entry));
        error = entry ? 0 : -ENOMEM;
    }
    if (error == 0) {
        *entry = (struct entry){.job = job};
        list_append(&board->entries, &entry->link);
        start_some(board);
    }
    pthread_mutex_unlock(&board->mutex);
    job_free(old);
    return error;
}

void board_resting(void *argument, struct job *job)
{
    struct board *board = argument;
    pthread_mutex_lock(&board->mutex);
    list_for_each (link, &board->entries) {
        struct entry *entry = container_of(link, struct entry, link);
        if (entry->job != job || entry->resting)
            continue;
        entry->resting = true;
        board->running--;
    }
    start_some(board);
    pthread_mutex_unlock(&board->mutex);
}

void board_ended(void *argument, struct job *job)
{
    struct board *board = argument;
    pthread_mutex_lock(&board->mutex);
    list_for_each (link, &board->entries) {
        struct entry *entry = container_of(link, struct entry, link);
        if (entry->job != job)
            continue;
        board->running -= entry->started && !entry->resting;
        entry->ended = true;
    }
    start_some(board);
    pthread_mutex_unlock(&board->mutex);
}

/* Under mutex: what came last, a job of its own or a directory's that takes it along. */
static int with(struct board *board, uint64_t node, int (*use)(void *argument, struct job *job), void *argument)
{
    int result = -ENOENT;
    for (struct list *at = board->entries.previous; at != &board->entries && result == -ENOENT; at = at->previous) {
        struct job *job = container_of(at, struct entry, link)->job;
        result = job_node(job) == node ? use(argument, job) : job_with_member(job, node, use, argument);
    }
    return result;
}

int board_with(struct board *board, uint64_t node, int (*use)(void *argument, struct job *job), void *argument)
{
    pthread_mutex_lock(&board->mutex);
    int result = with(board, node, use, argument);
    start_some(board);
    pthread_mutex_unlock(&board->mutex);
    return result;
}

static int is_under_way(void *argument, struct job *job)
{
    return job_ended(job) ? 0 : 1;
}

bool board_busy(struct board *board, uint64_t node)
{
    pthread_mutex_lock(&board->mutex);
    bool busy = with(board, node, is_under_way, NULL) == 1;
    pthread_mutex_unlock(&board->mutex);
    return busy;
}

static struct note *find_note(struct board *board, uint64_t node)
{
    list_for_each (link, &board->notes) {
        struct note *note = container_of(link, struct note, link);
        if (note->node == node)
            return note;
    }
    return NULL;
}

static void forget(struct board *board, struct note *note)
{
    list_remove(&note->link);
    free(note);
    board->note_count--;
}

void board_note(struct board *board, uint64_t node, const struct sentence *sentence)
{
    pthread_mutex_lock(&board->mutex);
    struct note *note = find_note(board, node);
    if (note)
        forget(board, note);
    if (board->note_count >= NOTES_MAX)
        forget(board, container_of(board->notes.next, struct note, link));
    if (sentence->text[0] && (note = calloc(1, sizeof(*note)))) {
        note->node = node;
        note->sentence = *sentence;
        list_append(&board->notes, &note->link);
        board->note_count++;
    }
    pthread_mutex_unlock(&board->mutex);
}

int board_noted(struct board *board, uint64_t node, struct sentence *out)
{
    pthread_mutex_lock(&board->mutex);
    struct note *note = find_note(board, node);
    if (note)
        *out = note->sentence;
    pthread_mutex_unlock(&board->mutex);
    return note ? 0 : -ENOENT;
}

/* Jobs that end meanwhile walk the list, so each is taken under the mutex. */
static struct entry *take_entry(struct board *board)
{
    pthread_mutex_lock(&board->mutex);
    struct list *link = list_pop(&board->entries);
    pthread_mutex_unlock(&board->mutex);
    return link ? container_of(link, struct entry, link) : NULL;
}

void board_free(struct board *board)
{
    if (!board)
        return;
    pthread_mutex_lock(&board->mutex);
    board->closing = true;
    list_for_each (link, &board->entries)
        job_suspend(container_of(link, struct entry, link)->job);
    pthread_mutex_unlock(&board->mutex);
    for (struct entry *entry; (entry = take_entry(board));) {
        job_free(entry->job);
        free(entry);
    }
    while (!list_empty(&board->notes))
        forget(board, container_of(board->notes.next, struct note, link));
    pthread_mutex_destroy(&board->mutex);
    free(board);
}
