/* A session comes up in steps: the portal's name is resolved (on the pool), the link connects and logs in, TEST UNIT
 * READY is repeated until the target has told all its unit attentions, so that a reset is known before anything else is
 * sent, and the nexus is registered where the mount has the reservation.
 *
 * When the link is given up, what was sent on it may land until the next login with the same ISID has been answered.
 * Until then these requests are ghosts: they count as out, so that neither a fence nor a replay passes them. */
#include "backends/iscsi_login.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define BACK_OFF_FIRST_NS (100 * NS_PER_MS)
#define BACK_OFF_MOST_NS  (2 * NS_PER_S)

static void come_up(struct lun_session *session);

static void stop_watching(struct lun_session *session)
{
    int duplicate = session->out.fd;
    if (session->in.fd >= 0)
        reactor_remove(session->reactor, &session->in);
    if (duplicate >= 0) {
        reactor_remove(session->reactor, &session->out);
        close(duplicate);
    }
}

static void back_off(struct lun_session *session)
{
    uint64_t pause = BACK_OFF_FIRST_NS << (session->failures < 5 ? session->failures : 5);
    session->failures++;
    session->retry = clock_now() + (pause < BACK_OFF_MOST_NS ? pause : BACK_OFF_MOST_NS);
}

/* One line for an outage, not one for each try. */
static void tell(struct lun_session *session, const char *reason)
{
    struct sentence why = {""};
    char portal[LUN_PORTAL_SIZE];
    if (session->told)
        return;
    if (reason)
        refuse(&why, 0, "datastore %s: the session with LUN %u at %s is given up: %s; it is logged in again",
            session->image->account.name, session->url.lun, lun_url_portal(&session->url, portal), reason);
    else
        lun_link_explain(&session->link, &why);
    log_warning("%s", why.text);
    session->told = reason == NULL;
}

void lun_login_end(struct lun_session *session)
{
    stop_watching(session);
    session->dropping = true;
    lun_link_close(&session->link);
    session->dropping = false;
    list_for_each (link, &session->sent) {
        struct lun_request *request = container_of(link, struct lun_request, link);
        if (request->task)
            scsi_free_scsi_task(request->task);
        request->task = NULL;
        request->ghost = true;
        if (request->change && !request->urgent && !request->owed) {
            lun_cache_owe(&session->image->cache);
            request->owed = true;
        }
    }
    list_splice(&session->ghosts, &session->sent);
    session->sent_count = 0;
    session->sent_bytes = 0;
    session->broken = session->pinged = false;
    session->reason = NULL;
    session->registered = 0;
    session->state = LUN_SESSION_DOWN;
}

/* The probe belongs to the link: it is not sent again. */
static void forget_probe(struct lun_session *session)
{
    list_remove(&session->probe.link);
}

static bool idle(struct lun_session *session)
{
    return list_empty(&session->ghosts) && list_empty(&session->waiting) && list_empty(&session->urgent) &&
           list_empty(&session->paused);
}

void lun_login_drop(struct lun_session *session, const char *reason)
{
    bool was_up = session->state == LUN_SESSION_UP;
    bool redirected = session->link.state == LUN_LINK_FAILED && *session->link.redirect;
    lun_login_end(session);
    forget_probe(session);
    /* A target that ends an idle session may do so. */
    if (!redirected && !(was_up && idle(session)))
        tell(session, reason);
    if (redirected && lun_url_move(&session->url, session->link.redirect)) {
        session->retry = 0;
    } else {
        memcpy(&session->url, &session->image->account.url, sizeof(session->url));
        if (was_up && session->useful && clock_now() - session->since > BACK_OFF_MOST_NS)
            session->retry = session->failures = 0;
        else
            back_off(session);
    }
    lun_session_kick(session);
}

static void ready(struct lun_session *session, uint32_t events)
{
    unsigned what = 0;
    what |= events & EPOLLIN ? POLLIN : 0;
    what |= events & EPOLLOUT ? POLLOUT : 0;
    what |= events & EPOLLERR ? POLLERR : 0;
    what |= events & EPOLLHUP ? POLLHUP : 0;
    what |= events & EPOLLRDHUP ? POLLRDHUP : 0;
    enum lun_link_state before = session->link.state;
    bool good = lun_link_service(&session->link, what);
    if (!good || session->broken)
        lun_login_drop(session, before != LUN_LINK_UP ? NULL
                                : session->reason     ? session->reason
                                                      : "the connection was lost");
    else if (before != LUN_LINK_UP && session->link.state == LUN_LINK_UP)
        come_up(session);
    else
        lun_session_kick(session);
}

static void ready_in(struct source *source, uint32_t events)
{
    ready(container_of(source, struct lun_session, in), events);
}

static void ready_out(struct source *source, uint32_t events)
{
    ready(container_of(source, struct lun_session, out), events);
}

static bool watch(struct lun_session *session)
{
    int fd = lun_link_fd(&session->link), duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    session->in.ready = ready_in;
    session->out.ready = ready_out;
    session->in.fd = fd;
    session->out.fd = duplicate;
    if (duplicate >= 0 && reactor_add(session->reactor, &session->in, EPOLLIN | EPOLLRDHUP) == 0) {
        if (reactor_add(session->reactor, &session->out, EPOLLOUT | EPOLLET) == 0)
            return true;
        stop_watching(session);
        return false;
    }
    session->in.fd = session->out.fd = -1;
    if (duplicate >= 0)
        close(duplicate);
    return false;
}

static void connect_portal(struct lun_session *session)
{
    session->state = LUN_SESSION_LOGIN;
    session->progress = clock_now();
    bool opened = lun_link_open(&session->link, &session->image->account, session->portal, session->number);
    if (opened && watch(session))
        lun_session_arm(session);
    else
        lun_login_drop(session, NULL);
}

void lun_login_resolved(struct task *task)
{
    struct lun_session *session = container_of(task, struct lun_session, resolved);
    if (session->closing_asked) {
        session->state = LUN_SESSION_DOWN;
        session->closing.run(&session->closing);
    } else if (*session->portal) {
        connect_portal(session);
    } else {
        session->link = (struct lun_link){
            .account = &session->image->account, .state = LUN_LINK_FAILED, .error = -EADDRNOTAVAIL};
        lun_login_drop(session, NULL);
    }
}

static void resolve(struct work *work)
{
    struct lun_session *session = container_of(work, struct lun_session, resolving);
    struct lun_image *image = session->image;
    if (lun_url_resolve(&session->url, session->failures, session->portal) != 0)
        *session->portal = 0;
    pthread_mutex_lock(&image->mutex);
    session->in_pool = false;
    if (session->reactor)
        reactor_post(session->reactor, &session->resolved);
    pthread_cond_broadcast(&image->closed);
    pthread_mutex_unlock(&image->mutex);
}

void lun_login_begin(struct lun_session *session)
{
    if (clock_now() < session->retry) {
        lun_session_arm(session);
    } else if (lun_url_numeric(&session->url)) {
        lun_url_resolve(&session->url, 0, session->portal);
        connect_portal(session);
    } else {
        session->state = LUN_SESSION_RESOLVING;
        session->in_pool = true; /* nobody looks before the pool does */
        session->resolving.run = resolve;
        session->resolved.run = lun_login_resolved;
        pool_run(session->image->image.datastore->pool, &session->resolving);
    }
}

/* The target has answered the login: it has ended the session before. Ghosts go before what came later. */
static void reinstated(struct lun_session *session)
{
    list_for_each (link, &session->ghosts) {
        struct lun_request *request = container_of(link, struct lun_request, link);
        struct lun_session *wake = NULL;
        if (request->entered)
            wake = lun_cache_leave(&session->image->cache);
        request->entered = false;
        if (wake)
            lun_session_wake(wake);
    }
    list_splice(&session->ghosts, &session->waiting);
    list_for_each_safe (link, &session->ghosts) {
        bool urgent = container_of(link, struct lun_request, link)->urgent;
        list_remove(link);
        list_append(urgent ? &session->urgent : &session->waiting, link);
    }
}

static void prepared(struct lun_session *session)
{
    char portal[LUN_PORTAL_SIZE];
    if (session->told)
        log_info("datastore %s: LUN %u at %s is there again", session->image->account.name, session->url.lun,
            lun_url_portal(&session->url, portal));
    session->told = false;
    session->useful = false;
    session->since = clock_now();
    session->state = LUN_SESSION_UP;
    lun_session_kick(session);
}

static void registered(struct lun_request *request, struct lun_answer answer)
{
    struct lun_session *session = request->session;
    lun_register_answered(session, answer);
    if (lun_register_next(session))
        lun_session_submit(session, &session->probe);
    else
        prepared(session);
}

static void tested(struct lun_request *request, struct lun_answer answer)
{
    struct lun_session *session = request->session;
    session->probe.done = registered;
    session->step = LUN_REGISTER_LOOK;
    if (lun_register_next(session))
        lun_session_submit(session, &session->probe);
    else
        prepared(session);
}

/* A TEST UNIT READY that fails for good (not ready, say) is the requests' to tell, not the login's. */
static void come_up(struct lun_session *session)
{
    reinstated(session);
    session->state = LUN_SESSION_PREPARING;
    session->probe = (struct lun_request){.cdb_size = 6, .urgent = true, .done = tested};
    list_init(&session->probe.link);
    lun_session_submit(session, &session->probe);
}
