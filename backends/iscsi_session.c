/* Requests wait in lists: urgent (the session's own and the replay), waiting, sent, paused (a target that was busy) and
 * ghosts (sent on a link that was given up). The end of each batch of events sends what may be sent; a request is handed
 * to libiscsi only within a window, so that its time in flight says something of the target and not of our queue.
 *
 * A link is given up when nothing was answered for the image's patience while something was in flight, or when one
 * request has waited for several times that. While there is a command that may take long (a flush) silence is asked about
 * by a NOP-Out first: a target that answers it is only slow.
 *
 * A target must have ended the tasks of the session before when it answers the login. Some may let a write that is in the
 * hands of their disk go on, and answer. So a change that was once given up on, and sent again, is told as done only
 * LUN_QUIET_NS after its answer: until then nobody sends other bytes to its place, what is left of the first one has
 * landed, and no replay begins: it would write older bytes over what was answered and is not kept yet. Nothing runs while
 * nothing is in flight: no timer, no poll, no reconnect. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/iscsi_login.h"
#include "backends/iscsi_transfer.h"
#include "base/clock.h"
#include "base/log.h"

#define WINDOW_COUNT   128
#define WINDOW_BYTES   (16ull << 20)
#define SLOW_FACTOR    3
#define ALONE_FACTOR   3
#define PAUSE_FIRST_NS (20 * NS_PER_MS)
#define PAUSE_SHIFT    6

static bool has_work(struct lun_session *session)
{
    return !list_empty(&session->waiting) || !list_empty(&session->urgent) || !list_empty(&session->ghosts) ||
           !list_empty(&session->paused) || lun_cache_duty(&session->image->cache, session);
}

static struct lun_request *request_of(struct list *link)
{
    return container_of(link, struct lun_request, link);
}

static struct list *queue_of(struct lun_session *session, struct lun_request *request)
{
    if (request == &session->probe)
        return &session->own;
    return request->urgent ? &session->urgent : &session->waiting;
}

void lun_session_kick(struct lun_session *session)
{
    if (session->hooked)
        return;
    session->hooked = true;
    reactor_hook(session->reactor, &session->hook);
}

static void woken(struct task *task)
{
    struct lun_session *session = container_of(task, struct lun_session, wake);
    atomic_store(&session->woken, false);
    lun_session_kick(session);
}

void lun_session_wake(struct lun_session *session)
{
    struct lun_image *image = session->image;
    pthread_mutex_lock(&image->mutex);
    if (session->reactor && !session->closed && !atomic_exchange(&session->woken, true))
        reactor_post(session->reactor, &session->wake);
    pthread_mutex_unlock(&image->mutex);
}

void lun_session_wake_all(struct lun_image *image)
{
    for (unsigned i = 0; i < REACTORS_MAX; i++) {
        pthread_mutex_lock(&image->mutex);
        struct lun_session *session = image->sessions[i];
        pthread_mutex_unlock(&image->mutex);
        if (session)
            lun_session_wake(session);
    }
}

void lun_session_submit(struct lun_session *session, struct lun_request *request)
{
    request->session = session;
    list_append(queue_of(session, request), &request->link);
    lun_session_kick(session);
}

/* --- time --- */

static bool any_slow(struct lun_session *session)
{
    list_for_each (link, &session->sent)
        if (request_of(link)->slow)
            return true;
    return false;
}

/* Something is in flight, and nothing was heard since. */
static uint64_t silent_since(struct lun_session *session)
{
    uint64_t first = request_of(session->sent.next)->at;
    return first > session->progress ? first : session->progress;
}

/* When the link is to be given up, if nothing is answered until then; 0: never. */
static uint64_t give_up_at(struct lun_session *session)
{
    uint64_t patience = session->image->patience_ns;
    if (session->state == LUN_SESSION_LOGIN)
        return session->progress + patience;
    if (list_empty(&session->sent))
        return 0;
    uint64_t at = silent_since(session) + patience * (any_slow(session) ? 2 : 1);
    list_for_each (link, &session->sent) {
        struct lun_request *request = request_of(link);
        uint64_t alone = request->at + ALONE_FACTOR * patience * (request->slow ? SLOW_FACTOR : 1);
        at = alone < at ? alone : at;
    }
    return at;
}

static uint64_t ping_at(struct lun_session *session)
{
    bool wanted = !list_empty(&session->sent) && !session->pinged && any_slow(session);
    return wanted ? silent_since(session) + session->image->patience_ns : 0;
}

static void pong(struct iscsi_context *context, int status, void *data, void *argument)
{
    struct lun_session *session = argument;
    session->pinged = false;
    if (!session->dropping && status == SCSI_STATUS_GOOD)
        session->progress = clock_now();
}

static void earlier(uint64_t *at, uint64_t other)
{
    if (other && (*at == 0 || other < *at))
        *at = other;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
    earlier(&a, b);
    return a;
}

void lun_session_arm(struct lun_session *session)
{
    uint64_t at = 0, now;
    if (session->state == LUN_SESSION_LOGIN)
        earlier(&at, give_up_at(session));
    else if (session->timer.due && !list_empty(&session->sent))
        earlier(&at, session->timer.due);
    else
        earlier(&at, sooner(give_up_at(session), ping_at(session)));
    if (session->state == LUN_SESSION_DOWN && has_work(session))
        earlier(&at, session->retry ? session->retry : 1);
    if (session->state >= LUN_SESSION_PREPARING)
        list_for_each (link, &session->paused)
            earlier(&at, request_of(link)->at);
    if (!list_empty(&session->quiet))
        earlier(&at, request_of(session->quiet.next)->at);
    if (at == 0) {
        timer_cancel(&session->timer);
    } else if (session->timer.due == 0 || at < session->timer.due) {
        now = clock_now();
        timer_set(session->reactor, &session->timer, at > now ? at - now : 0);
    }
}

static void resume_paused(struct lun_session *session, uint64_t now)
{
    list_for_each_safe (link, &session->paused) {
        if (request_of(link)->at > now)
            continue;
        list_remove(link);
        list_append(queue_of(session, request_of(link)), link);
    }
}

static void leave(struct lun_session *session)
{
    struct lun_session *wake = lun_cache_leave(&session->image->cache);
    if (wake == session)
        lun_session_kick(session);
    else if (wake)
        lun_session_wake(wake);
}

static void end_quiet(struct lun_session *session, uint64_t now)
{
    while (!list_empty(&session->quiet) && request_of(session->quiet.next)->at <= now) {
        struct lun_request *request = request_of(list_pop(&session->quiet));
        bool entered = request->entered;
        request->done(request, request->answer);
        if (entered)
            leave(session);
    }
}

static void fired(struct timer *timer)
{
    struct lun_session *session = container_of(timer, struct lun_session, timer);
    uint64_t now = clock_now(), limit = give_up_at(session), ping = ping_at(session);
    resume_paused(session, now);
    end_quiet(session, now);
    if (ping && now >= ping && session->link.context)
        session->pinged = iscsi_nop_out_async(session->link.context, pong, NULL, 0, session) == 0;
    if (limit && now >= limit && session->state >= LUN_SESSION_LOGIN) {
        if (session->link.state < LUN_LINK_UP) {
            session->link.error = -ETIMEDOUT;
            session->link.state = LUN_LINK_FAILED;
        }
        lun_login_drop(session, session->state > LUN_SESSION_LOGIN ? "the target does not answer" : NULL);
    }
    lun_session_kick(session);
}

/* --- sending and answers --- */

static void pause_request(struct lun_session *session, struct lun_request *request)
{
    unsigned shift = request->tries < PAUSE_SHIFT ? request->tries : PAUSE_SHIFT;
    request->tries++;
    request->at = clock_now() + (PAUSE_FIRST_NS << shift);
    list_append(&session->paused, &request->link);
}

static void again(struct lun_session *session, struct lun_request *request)
{
    list_insert_before(queue_of(session, request)->next, &request->link);
}

/* Another's reservation, or ours that this nexus does not share yet. */
static bool must_register(const struct lun_session *session)
{
    uint64_t key = atomic_load(&session->image->key);
    return key && !atomic_load(&session->image->taken) && session->registered != key;
}

/* What was answered is kept, or still out: a replay does not pass it. */
static void finish_request(struct lun_session *session, struct lun_request *request, struct lun_answer answer)
{
    bool entered = request->entered;
    if (request->ghost && request->change) {
        request->answer = answer;
        request->at = clock_now() + LUN_QUIET_NS;
        list_append(&session->quiet, &request->link);
        return;
    }
    request->done(request, answer);
    if (entered)
        leave(session);
}

/* It has to be sent once more. */
static void withdraw(struct lun_session *session, struct lun_request *request)
{
    if (request->entered)
        leave(session);
    request->entered = false;
}

static void say_missing(struct lun_image *image, bool missing)
{
    const struct lun_url *url = &image->account.url;
    if (atomic_load_explicit(&image->missing, memory_order_relaxed) == missing ||
        atomic_exchange(&image->missing, missing) == missing)
        return;
    if (missing)
        log_error(
            "datastore %s: the target %s has no LUN %u for this initiator any more; its disks wait until it is back: "
            "map it again at the target",
            image->image.datastore->name, url->target, url->lun);
    else
        log_info("datastore %s: LUN %u of the target %s is there again", image->image.datastore->name, url->lun,
            url->target);
}

static void take_answer(struct lun_session *session, struct lun_request *request, struct lun_answer answer)
{
    switch (answer.verdict) {
    case LUN_RESET:
        lun_cache_lose(&session->image->cache, session, true);
        withdraw(session, request);
        again(session, request);
        return;
    case LUN_CHANGED:
        lun_image_look(session->image);
        withdraw(session, request);
        again(session, request);
        return;
    case LUN_AGAIN:
        withdraw(session, request);
        again(session, request);
        return;
    case LUN_LATER:
        withdraw(session, request);
        pause_request(session, request);
        return;
    case LUN_CONFLICT:
        if (request != &session->probe && must_register(session)) {
            session->broken = true; /* the next login registers */
            session->reason = "it does not share the mount's reservation yet";
            withdraw(session, request);
            again(session, request);
            return;
        }
        if (session->registered)
            lun_reserve_lost(session->image);
        /* fall through */
    case LUN_FAILED:
        if (request != &session->probe && (answer.error == -ENXIO || answer.error == -ENOMEDIUM)) {
            say_missing(session->image, true);
            withdraw(session, request);
            pause_request(session, request); /* a LUN that is away may come back */
            return;
        }
        /* fall through */
    case LUN_DONE:
        if (answer.verdict == LUN_DONE)
            say_missing(session->image, false);
        /* fall through */
    case LUN_UNSUPPORTED:
    case LUN_LOST:
        finish_request(session, request, answer);
    }
}

static void answered(struct iscsi_context *context, int status, void *data, void *argument)
{
    struct lun_request *request = argument;
    struct lun_session *session = request->session;
    struct scsi_task *task = request->task;
    if (session->dropping)
        return;
    struct lun_answer answer = lun_answer(status, task->sense.key, task->sense.ascq);
    if (answer.verdict == LUN_LOST) {
        session->broken = true; /* it stays in sent, and becomes a ghost with the rest */
        return;
    }
    list_remove(&request->link);
    session->sent_count--;
    session->sent_bytes -= request->length;
    session->progress = clock_now();
    session->useful |= session->state == LUN_SESSION_UP;
    take_answer(session, request, answer); /* then the request may be gone, or wait for the next task */
    scsi_free_scsi_task(task);
    lun_session_kick(session);
}

static bool hand_over(struct lun_session *session, struct lun_request *request, uint64_t now)
{
    request->task = scsi_create_task(request->cdb_size, request->cdb, (int)request->direction, (int)request->length);
    if (!request->task)
        return false;
    if (request->direction == SCSI_XFER_READ)
        scsi_task_set_iov_in(request->task, request->iov, request->iov_count);
    else if (request->direction == SCSI_XFER_WRITE)
        scsi_task_set_iov_out(request->task, request->iov, request->iov_count);
    int lun = (int)session->image->account.url.lun;
    if (iscsi_scsi_command_async(session->link.context, lun, request->task, answered, NULL, request) != 0) {
        scsi_free_scsi_task(request->task);
        request->task = NULL;
        return false;
    }
    session->link.queued += request->direction == SCSI_XFER_WRITE ? 2 : 1;
    request->at = now;
    list_append(&session->sent, &request->link);
    session->sent_count++;
    session->sent_bytes += request->length;
    return true;
}

/* False: the link is broken. */
static bool fits(const struct lun_session *session, const struct lun_request *request)
{
    return session->sent_count < WINDOW_COUNT &&
           (session->sent_count == 0 || session->sent_bytes + request->length <= WINDOW_BYTES);
}

/* The next that may be sent, which has entered; NULL: none now. What is owed passes those that wait for it. */
static struct lun_request *next_of(struct lun_session *session, struct list *queue)
{
    bool closed = false;
    list_for_each (link, queue) {
        struct lun_request *request = request_of(link);
        if (request->urgent)
            return request;
        if (closed && !request->owed)
            continue;
        if (!fits(session, request))
            return NULL;
        if (lun_cache_enter(&session->image->cache, request->change, request->owed))
            return request;
        closed = true;
    }
    return NULL;
}

static bool send_from(struct lun_session *session, struct list *queue, uint64_t now)
{
    struct lun_request *request;
    while ((request = next_of(session, queue))) {
        request->entered = !request->urgent && request->change && session->image->cache.unflushed;
        list_remove(&request->link);
        if (!hand_over(session, request, now)) {
            bool entered = request->entered;
            request->entered = false;
            again(session, request);
            if (entered)
                leave(session);
            return false;
        }
    }
    return true;
}

static void pump(struct batch_hook *hook)
{
    struct lun_session *session = container_of(hook, struct lun_session, hook);
    uint64_t now = clock_now();
    bool good = true;
    if (session->state >= LUN_SESSION_PREPARING) {
        if (session->state == LUN_SESSION_UP && lun_cache_begin(&session->image->cache, session))
            lun_replay_begin(session);
        good = send_from(session, &session->own, now);
        if (good && session->state == LUN_SESSION_UP)
            good = send_from(session, &session->urgent, now) && send_from(session, &session->waiting, now);
        good = good && lun_link_push(&session->link) && !session->broken;
        if (!good)
            lun_login_drop(session, session->reason ? session->reason : "the connection was lost");
    }
    if (session->state == LUN_SESSION_DOWN && has_work(session))
        lun_login_begin(session);
    lun_session_arm(session);
    list_remove(&session->hook.link);
    session->hooked = false;
}

/* --- life --- */

/* What is left belongs to nobody's io: a replay, a flush for the budget. */
static void cancel_all(struct lun_session *session)
{
    struct list all, *link;
    list_init(&all);
    list_remove(&session->probe.link);
    list_splice(&all, &session->ghosts);
    list_splice(&all, &session->urgent);
    list_splice(&all, &session->waiting);
    list_splice(&all, &session->paused);
    list_splice(&all, &session->quiet);
    while ((link = list_pop(&all)))
        request_of(link)->done(request_of(link), (struct lun_answer){LUN_FAILED, -ESHUTDOWN});
}

static void finish_close(struct lun_session *session)
{
    struct lun_image *image = session->image;
    session->closing_asked = true;
    lun_login_end(session);
    cancel_all(session);
    timer_cancel(&session->timer);
    if (session->hooked)
        reactor_unhook(&session->hook);
    list_remove(&session->ending.link);
    pthread_mutex_lock(&image->mutex);
    session->closed = true;
    session->reactor = NULL;
    pthread_cond_broadcast(&image->closed);
    pthread_mutex_unlock(&image->mutex);
}

static void close_here(struct task *task)
{
    struct lun_session *session = container_of(task, struct lun_session, closing);
    session->closing_asked = true;
    /* a task that is queued is let run first: it would find the session gone */
    if (atomic_load(&session->woken))
        reactor_post(session->reactor, &session->closing);
    else if (session->state != LUN_SESSION_RESOLVING)
        finish_close(session);
}

static void reactor_ended(struct task *task)
{
    finish_close(container_of(task, struct lun_session, ending));
}

void lun_session_close(struct lun_session *session)
{
    struct lun_image *image = session->image;
    pthread_mutex_lock(&image->mutex);
    if (session->reactor)
        reactor_post(session->reactor, &session->closing);
    while (!session->closed || session->in_pool)
        pthread_cond_wait(&image->closed, &image->mutex);
    pthread_mutex_unlock(&image->mutex);
    free(session);
}

struct lun_session *lun_session_here(struct lun_image *image)
{
    struct reactor *reactor = reactor_current();
    unsigned number = reactor_index(reactor);
    struct lun_session *session = image->sessions[number];
    if (session)
        return session;
    session = calloc(1, sizeof(*session));
    if (!session)
        return NULL;
    session->image = image;
    session->reactor = reactor;
    session->number = number;
    session->url = image->account.url;
    session->in.fd = session->out.fd = -1;
    session->timer.fired = fired;
    session->hook.flush = pump;
    session->wake.run = woken;
    session->closing.run = close_here;
    session->ending.run = reactor_ended;
    list_init(&session->own);
    list_init(&session->urgent);
    list_init(&session->waiting);
    list_init(&session->sent);
    list_init(&session->ghosts);
    list_init(&session->quiet);
    list_init(&session->paused);
    list_init(&session->hook.link);
    list_init(&session->probe.link);
    reactor_at_end(reactor, &session->ending);
    pthread_mutex_lock(&image->mutex);
    image->sessions[number] = session;
    pthread_mutex_unlock(&image->mutex);
    return session;
}
