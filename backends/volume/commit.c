/* The committer: makes what is in memory durable.
 *
 * A commit is a snapshot of all that changed, taken under the mutex, and goes its way on the carrier's reactor: flush (the
 * data that the snapshot tells of was written before it was taken) → journal pages, both copies → flush → those who
 * waited are answered. Who comes meanwhile shares the next one. When the journal is more than half full a checkpoint is
 * taken at the same moment as a commit's snapshot, and written while further commits go on; it frees the journal up to
 * that commit. A commit that does not fit is written as a checkpoint, alone.
 *
 * Failure modes: any error of the raw image here ends all changes (volume_fail): what was not answered may be there or
 * not, what was answered is. No memory for a snapshot: those who wait get -ENOMEM, nothing is lost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/volume/inside.h"
#include "base/clock.h"
#include "base/log.h"

#define LATER_NS (5 * NS_PER_S)

enum phase { PHASE_DATA, PHASE_JOURNAL, PHASE_SYNC, PHASE_ALONE };
enum checkpoint_phase { CHECKPOINT_PAGES, CHECKPOINT_PAGES_SYNC, CHECKPOINT_ANCHOR, CHECKPOINT_ANCHOR_SYNC };

static void begin(struct volume *volume);
static void step(struct volume *volume, int result);
static void checkpoint_step(struct volume *volume, int result);

static struct volume *volume_of(struct committer *committer)
{
    return container_of(committer, struct volume, committer);
}

/* ---- asking ---- */

void commit_want(struct volume *volume, struct waiter *waiter)
{
    struct committer *committer = &volume->committer;
    if (waiter)
        list_append(&committer->waiters, &waiter->link);
    committer->durable_wanted |= !waiter || waiter->durable;
    committer->wanted = true;
    if (committer->posted)
        return;
    committer->posted = true;
    reactor_post(volume->carrier.reactor, &committer->task);
}

bool commit_lacks(const struct volume *volume, const struct volume_node *node)
{
    return !node->unlinked && node->change > volume->committer.written;
}

void commit_later(struct volume *volume)
{
    struct committer *committer = &volume->committer;
    if (committer->timed)
        return;
    committer->timed = true;
    reactor_post(volume->carrier.reactor, &committer->timer_task);
}

static void arm(struct task *task)
{
    struct committer *committer = container_of(task, struct committer, timer_task);
    timer_set(volume_of(committer)->carrier.reactor, &committer->timer, LATER_NS);
}

static void fired(struct timer *timer)
{
    struct committer *committer = container_of(timer, struct committer, timer);
    struct volume *volume = volume_of(committer);
    pthread_mutex_lock(&volume->mutex);
    committer->timed = false;
    commit_want(volume, NULL);
    pthread_mutex_unlock(&volume->mutex);
}

static void run(struct task *task)
{
    struct committer *committer = container_of(task, struct committer, task);
    struct volume *volume = volume_of(committer);
    pthread_mutex_lock(&volume->mutex);
    committer->posted = false;
    pthread_mutex_unlock(&volume->mutex);
    begin(volume);
}

bool commit_idle(const struct volume *volume)
{
    const struct committer *committer = &volume->committer;
    return !committer->busy && !committer->posted && !committer->checkpoint.active && !committer->wanted;
}

void committer_open(struct volume *volume)
{
    struct committer *committer = &volume->committer;
    list_init(&committer->waiters);
    list_init(&committer->current);
    committer->task.run = run;
    committer->timer_task.run = arm;
    committer->timer.fired = fired;
}

void committer_close(struct volume *volume)
{
    struct committer *committer = &volume->committer;
    free(committer->pages);
    free(committer->checkpoint.pages);
    free(committer->checkpoint.anchor_page);
    stream_free(&committer->next_checkpoint);
}

/* ---- answers ---- */

static void answer(struct list *waiters, int result)
{
    struct list *link;
    while ((link = list_pop(waiters))) {
        struct waiter *waiter = container_of(link, struct waiter, link);
        waiter->done(waiter, result);
    }
}

void volume_fail(struct volume *volume, const char *sentence)
{
    struct list hungry;
    list_init(&hungry);
    if (atomic_exchange(&volume->failed, true))
        return;
    log_error(
        "datastore %s: %s; its disks can be read and not changed until it is opened again", volume->name, sentence);
    pthread_mutex_lock(&volume->mutex);
    list_splice(&hungry, &volume->releaser.hungry);
    pthread_mutex_unlock(&volume->mutex);
    image_retry(&hungry);
}

static void fail(struct volume *volume, int error)
{
    char sentence[160];
    snprintf(sentence, sizeof(sentence), "the volume's metadata could not be written: %s", error_text(error));
    volume_fail(volume, sentence);
}

/* The commit has ended; what waits is next. */
static void end(struct volume *volume, int result)
{
    struct committer *committer = &volume->committer;
    struct list done;
    list_init(&done);
    free(committer->pages);
    committer->pages = NULL;
    pthread_mutex_lock(&volume->mutex);
    if (result == 0) {
        committer->written = committer->number;
        if (committer->sealed)
            committer->durable = committer->number;
        atomic_store(volume->note, committer->written);
        release_ready(volume);
    }
    committer->busy = false;
    list_splice(&done, &committer->current);
    pthread_mutex_unlock(&volume->mutex);
    answer(&done, result);
    begin(volume);
}

/* ---- sending ---- */

static void flushed(struct io *io)
{
    step(volume_of(container_of(io, struct committer, flush)), io->result);
}

static void flush(struct volume *volume, struct io *io, void (*done)(struct io *io))
{
    *io = (struct io){.verb = VERB_FLUSH, .done = done};
    image_submit(volume->carrier.image, io);
}

static void copied(struct copies *copies, int result)
{
    step(volume_of(container_of(copies, struct committer, copies)), result);
}

static void copy(struct volume *volume, struct copies *copies, const uint32_t extent[2], uint64_t page,
    const struct page *pages, uint32_t count, void (*done)(struct copies *copies, int result))
{
    *copies = (struct copies){.carrier = &volume->carrier,
        .memory = (const uint8_t *)pages,
        .length = (uint64_t)count * VOLUME_BLOCK,
        .done = done};
    for (int i = 0; i < 2; i++)
        copies->at[i] = (uint64_t)extent[i] * VOLUME_EXTENT + page * VOLUME_BLOCK;
    copies_write(copies);
}

/* The next pages, up to the ring's end. */
static void send_journal(struct volume *volume)
{
    struct committer *committer = &volume->committer;
    uint32_t ring = journal_pages(&volume->superblock), at = (committer->ring_head + committer->page_sent) % ring;
    uint32_t count = committer->page_count - committer->page_sent;
    const struct page *pages = committer->pages + committer->page_sent;
    if (count > ring - at)
        count = ring - at;
    committer->page_sent += count;
    copy(volume, &committer->copies, volume->superblock.journal, at, pages, count, copied);
}

/* ---- a checkpoint ---- */

static void checkpoint_flushed(struct io *io)
{
    struct checkpoint *checkpoint = container_of(io, struct checkpoint, flush);
    checkpoint_step(volume_of(container_of(checkpoint, struct committer, checkpoint)), io->result);
}

static void checkpoint_copied(struct copies *copies, int result)
{
    struct checkpoint *checkpoint = container_of(copies, struct checkpoint, copies);
    checkpoint_step(volume_of(container_of(checkpoint, struct committer, checkpoint)), result);
}

static void checkpoint_free(struct checkpoint *checkpoint)
{
    free(checkpoint->pages);
    free(checkpoint->anchor_page);
    *checkpoint = (struct checkpoint){0};
}

/* Starts to write what next_checkpoint holds. */
static int checkpoint_start(struct volume *volume, bool alone)
{
    struct committer *committer = &volume->committer;
    struct checkpoint *checkpoint = &committer->checkpoint;
    void *memory = NULL;
    *checkpoint = (struct checkpoint){.alone = alone, .anchor = committer->next_anchor};
    struct anchor *anchor = &checkpoint->anchor;
    anchor->generation = committer->generation + 1;
    anchor->area = committer->area ^ 1;
    anchor->bytes = committer->next_checkpoint.size;
    anchor->journal_page = committer->ring_head;
    checkpoint->behind = committer->ring_used;
    checkpoint->pages = stream_pages(
        &committer->next_checkpoint, volume->superblock.uuid, PAGE_CHECKPOINT, anchor->generation, &anchor->pages);
    stream_free(&committer->next_checkpoint);
    committer->has_next = false;
    if (!checkpoint->pages || posix_memalign(&memory, VOLUME_BLOCK, VOLUME_BLOCK) != 0) {
        checkpoint_free(checkpoint);
        return -ENOMEM;
    }
    checkpoint->anchor_page = memory;
    if (anchor->pages > area_pages(&volume->superblock)) {
        checkpoint_free(checkpoint);
        return -ENOSPC;
    }
    anchor_encode(anchor, volume->superblock.uuid, checkpoint->anchor_page);
    checkpoint->active = true;
    checkpoint->phase = CHECKPOINT_PAGES;
    copy(volume, &checkpoint->copies, volume->superblock.area[anchor->area], 0, checkpoint->pages, anchor->pages,
        checkpoint_copied);
    return 0;
}

static void checkpoint_end(struct volume *volume, int result)
{
    struct committer *committer = &volume->committer;
    struct checkpoint *checkpoint = &committer->checkpoint;
    bool alone = checkpoint->alone, blocked = committer->blocked;
    uint64_t durable = 0;
    if (result < 0) {
        fail(volume, result);
    } else {
        durable = checkpoint->anchor.commit;
        committer->generation = checkpoint->anchor.generation;
        committer->area = checkpoint->anchor.area;
        committer->checkpoint_pages = checkpoint->anchor.pages;
        committer->ring_used -= checkpoint->behind;
    }
    pthread_mutex_lock(&volume->mutex);
    checkpoint_free(checkpoint);
    committer->blocked = false;
    if (durable > committer->durable && !alone) {
        committer->durable = durable;
        release_ready(volume);
    }
    pthread_mutex_unlock(&volume->mutex);
    if (alone)
        end(volume, result < 0 ? -EIO : 0);
    else if (blocked)
        begin(volume);
    pthread_mutex_lock(&volume->mutex);
    pthread_cond_broadcast(&volume->quiet);
    pthread_mutex_unlock(&volume->mutex);
}

static void checkpoint_step(struct volume *volume, int result)
{
    struct checkpoint *checkpoint = &volume->committer.checkpoint;
    if (result == 0 && atomic_load(&volume->failed))
        result = -EIO;
    if (result < 0 || checkpoint->phase == CHECKPOINT_ANCHOR_SYNC) {
        checkpoint_end(volume, result);
        return;
    }
    checkpoint->phase++;
    if (checkpoint->phase == CHECKPOINT_ANCHOR)
        copy(volume, &checkpoint->copies, volume->superblock.head, HEAD_ANCHOR(checkpoint->anchor.area) / VOLUME_BLOCK,
            checkpoint->anchor_page, 1, checkpoint_copied);
    else
        flush(volume, &checkpoint->flush, checkpoint_flushed);
}

/* ---- a commit ---- */

static void step(struct volume *volume, int result)
{
    struct committer *committer = &volume->committer;
    if (result < 0)
        fail(volume, result);
    if (atomic_load(&volume->failed)) { /* by this, or because the volume is another's now */
        end(volume, -EIO);
        return;
    }
    switch ((enum phase)committer->phase) {
    case PHASE_DATA:
        committer->phase = PHASE_JOURNAL;
        send_journal(volume);
        return;
    case PHASE_JOURNAL:
        if (committer->page_sent < committer->page_count) {
            send_journal(volume);
            return;
        }
        committer->phase = PHASE_SYNC;
        if (committer->sealed)
            flush(volume, &committer->flush, flushed);
        else
            step(volume, 0);
        return;
    case PHASE_SYNC:
        committer->ring_head = (committer->ring_head + committer->page_count) % journal_pages(&volume->superblock);
        committer->ring_used += committer->page_count;
        /* a checkpoint that cannot be had now is asked for again by the next commit */
        if (committer->has_next && checkpoint_start(volume, false) < 0)
            log_warning("datastore %s: no memory for a checkpoint", volume->name);
        end(volume, 0);
        return;
    case PHASE_ALONE:
        return;
    }
    abort();
}

static void send(struct volume *volume, bool alone, bool data)
{
    struct committer *committer = &volume->committer;
    if (alone) {
        committer->phase = PHASE_ALONE;
        int error = checkpoint_start(volume, true);
        if (error < 0) {
            fail(volume, error);
            end(volume, -EIO);
        }
        return;
    }
    committer->page_sent = 0;
    if (!committer->pages) {
        committer->phase = PHASE_SYNC;
        committer->page_count = 0;
        flush(volume, &committer->flush, flushed);
    } else if (data) {
        committer->phase = PHASE_DATA;
        flush(volume, &committer->flush, flushed);
    } else {
        committer->phase = PHASE_JOURNAL;
        send_journal(volume);
    }
}

/* Does anything that changed tell of bytes of files? */
static bool tells_of_data(const struct tree *tree)
{
    list_for_each (link, &tree->dirty) {
        const struct volume_node *node = container_of(link, struct volume_node, dirty_link);
        if ((node->dirty & DIRTY_RUNS) || (S_ISREG(node->st.st_mode) && node->st.st_size > 0))
            return true;
    }
    return false;
}

static void take_checkpoint(struct volume *volume, uint64_t number)
{
    struct committer *committer = &volume->committer;
    struct anchor *anchor = &committer->next_anchor;
    *anchor = (struct anchor){.commit = number, .next_node = volume->tree.next_id};
    record_all(&committer->next_checkpoint, &volume->tree, &anchor->nodes, &anchor->runs);
    committer->has_next = !committer->next_checkpoint.failed;
    if (!committer->has_next)
        stream_free(&committer->next_checkpoint);
}

enum verdict { VERDICT_NOTHING, VERDICT_THERE, VERDICT_WAIT, VERDICT_NO_MEMORY, VERDICT_SEND };

/* With the mutex held: takes the snapshot. */
static enum verdict snapshot(struct volume *volume, bool *alone, bool *data)
{
    struct committer *committer = &volume->committer;
    struct tree *tree = &volume->tree;
    struct stream stream = {0};
    uint32_t ring = journal_pages(&volume->superblock);
    bool changed = nodes_is_dirty(tree) || (volume->closing && !list_empty(&tree->dirty));
    bool sealed = committer->durable_wanted, unsealed = committer->written > committer->durable;
    *alone = committer->checkpoint_wanted;
    if (!changed && !*alone && !sealed)
        return VERDICT_THERE;
    committer->sealed = true;
    if (!changed && !*alone && !unsealed) {
        committer->durable_wanted = false;
        return VERDICT_SEND;
    } /* a flush will do; times wait for company, or for the end */
    *data = sealed && (unsealed || tells_of_data(tree));
    record_changes(&stream, tree);
    uint64_t pages = stream.size ? (stream.size + PAGE_PAYLOAD - 1) / PAGE_PAYLOAD : 1;
    *alone = *alone || pages > ring - committer->ring_used;
    if (*alone && committer->checkpoint.active) {
        stream_free(&stream);
        committer->blocked = true;
        return VERDICT_WAIT;
    }
    uint64_t number = tree->commit;
    if (*alone || (committer->ring_used + pages > ring / 2 && !committer->checkpoint.active))
        take_checkpoint(volume, number);
    if (!*alone)
        committer->pages = sealed ? stream_pages(
                                        &stream, volume->superblock.uuid, PAGE_JOURNAL, number, &committer->page_count)
                                  : stream_pages_unsealed(
                                        &stream, volume->superblock.uuid, number, &committer->page_count);
    bool good = !stream.failed && (*alone ? committer->has_next : committer->pages != NULL);
    stream_free(&stream);
    if (!good) {
        free(committer->pages);
        committer->pages = NULL;
        stream_free(&committer->next_checkpoint);
        committer->has_next = false;
        return VERDICT_NO_MEMORY;
    }
    committer->checkpoint_wanted = false;
    committer->durable_wanted = false;
    committer->sealed = sealed || *alone;
    committer->number = tree->commit++;
    record_changed(tree);
    return VERDICT_SEND;
}

/* Nobody waits, and nothing is there to be told of? */
static bool needed(const struct volume *volume)
{
    const struct committer *committer = &volume->committer;
    return !list_empty(&committer->waiters) || committer->checkpoint_wanted || nodes_is_dirty(&volume->tree) ||
           committer->written > committer->durable;
}

static void begin(struct volume *volume)
{
    struct committer *committer = &volume->committer;
    struct list refused;
    bool alone = false, data = false;
    enum verdict verdict = VERDICT_NOTHING;
    list_init(&refused);
    pthread_mutex_lock(&volume->mutex);
    if (!committer->busy && !committer->blocked && committer->wanted) {
        committer->wanted = false;
        if (atomic_load(&volume->failed)) {
            list_splice(&refused, &committer->waiters);
        } else {
            verdict = needed(volume) ? snapshot(volume, &alone, &data) : VERDICT_NOTHING;
            if (verdict == VERDICT_NO_MEMORY || verdict == VERDICT_THERE)
                list_splice(&refused, &committer->waiters);
            if (verdict == VERDICT_SEND)
                list_splice(&committer->current, &committer->waiters);
            committer->wanted = verdict == VERDICT_WAIT;
            committer->durable_wanted &= verdict == VERDICT_WAIT;
            committer->busy = verdict == VERDICT_SEND;
        }
    }
    pthread_cond_broadcast(&volume->quiet);
    pthread_mutex_unlock(&volume->mutex);
    answer(&refused, verdict == VERDICT_THERE ? 0 : verdict == VERDICT_NO_MEMORY ? -ENOMEM : -EIO);
    if (verdict == VERDICT_SEND)
        send(volume, alone, data);
}
