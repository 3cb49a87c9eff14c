#include "backends/iscsi_talk.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

#define PAUSE_NS       (50 * NS_PER_MS)
#define LOOK_MS        200 /* for the mount's end */
#define REDIRECTS_MAX  4
#define ATTENTIONS_MAX 32

/* One turn of waiting and serving. False: the link has failed, or it is too late. */
static bool turn(struct lun_talk *talk)
{
    struct lun_link *link = &talk->link;
    uint64_t now = clock_now();
    bool stopping = atomic_load(link->account->stopping);
    if (stopping || now >= talk->end) {
        if (link->state == LUN_LINK_LOGIN)
            snprintf(link->text, sizeof(link->text), "login");
        link->state = LUN_LINK_FAILED;
        link->error = stopping ? -EINTR : -ETIMEDOUT;
        return false;
    }
    struct pollfd poll_fd = {.fd = lun_link_fd(link), .events = POLLIN | POLLRDHUP};
    if (lun_link_blocked(link))
        poll_fd.events |= POLLOUT;
    uint64_t wait = (talk->end - now) / NS_PER_MS + 1;
    int count = poll(&poll_fd, 1, wait > LOOK_MS ? LOOK_MS : (int)wait);
    return count <= 0 || lun_link_service(link, (unsigned)poll_fd.revents);
}

/* A host with several addresses is asked at each of them. */
static int log_in(struct lun_talk *talk, const struct lun_account *account, unsigned number, unsigned attempt)
{
    char portal[LUN_PORTAL_SIZE];
    talk->link = (struct lun_link){.account = account};
    int error = lun_url_resolve(&account->url, attempt, portal);
    for (unsigned redirects = 0; !error; redirects++) {
        bool going = lun_link_open(&talk->link, account, portal, number);
        while (going && talk->link.state != LUN_LINK_UP)
            going = turn(talk);
        if (going)
            return 0;
        error = talk->link.error;
        lun_link_close(&talk->link);
        if (*talk->link.redirect && redirects < REDIRECTS_MAX) {
            strcpy(portal, talk->link.redirect);
            error = 0;
        }
    }
    talk->link.error = error;
    return error;
}

int lun_talk_open(
    struct lun_talk *talk, const struct lun_account *account, unsigned number, uint64_t end, struct sentence *why)
{
    enum { ADDRESSES = 2 };
    int error = 0;
    talk->reset = false;
    for (unsigned attempt = 0; attempt < (lun_url_numeric(&account->url) ? 1u : ADDRESSES); attempt++) {
        talk->end = end;
        error = log_in(talk, account, number, attempt);
        if (!error)
            return 0;
    }
    return lun_link_explain(&talk->link, why);
}

void lun_talk_close(struct lun_talk *talk)
{
    lun_link_close(&talk->link);
}

struct reply {
    struct scsi_task *task;
    bool came;
    int status;
};

static void answered(struct iscsi_context *context, int status, void *data, void *argument)
{
    struct reply *reply = argument;
    reply->came = true;
    reply->status = status;
}

static struct lun_answer send_once(struct lun_talk *talk, struct lun_command *command)
{
    struct lun_answer lost = {LUN_LOST, -ENOTCONN};
    struct scsi_iovec iov = {command->in ? command->in : (void *)(uintptr_t)command->out, command->length};
    int direction = command->in ? SCSI_XFER_READ : command->out ? SCSI_XFER_WRITE : SCSI_XFER_NONE;
    struct reply reply = {.task = scsi_create_task(command->cdb_size, command->cdb, direction, (int)command->length)};
    if (!reply.task)
        return (struct lun_answer){LUN_FAILED, -ENOMEM};
    if (command->in)
        scsi_task_set_iov_in(reply.task, &iov, 1);
    else if (command->out)
        scsi_task_set_iov_out(reply.task, &iov, 1);
    struct lun_link *link = &talk->link;
    if (iscsi_scsi_command_async(link->context, (int)link->account->url.lun, reply.task, answered, NULL, &reply) != 0) {
        scsi_free_scsi_task(reply.task);
        return lost;
    }
    bool going = lun_link_push(link);
    while (going && !reply.came)
        going = turn(talk);
    if (!reply.came)
        lun_link_close(link); /* nothing points to this frame any more */
    struct lun_answer answer = lost;
    if (reply.came && reply.status != SCSI_STATUS_CANCELLED) {
        command->key = reply.task->sense.key;
        command->code = reply.task->sense.ascq;
        answer = lun_answer(reply.status, command->key, command->code);
        uint32_t residual = reply.task->residual_status == SCSI_RESIDUAL_UNDERFLOW ? (uint32_t)reply.task->residual : 0;
        command->moved = residual < command->length ? command->length - residual : 0;
    }
    scsi_free_scsi_task(reply.task);
    return answer;
}

int lun_talk_command(struct lun_talk *talk, struct lun_command *command)
{
    if (talk->link.state != LUN_LINK_UP)
        return -ENOTCONN;
    for (unsigned attentions = 0;;) {
        struct lun_answer answer = send_once(talk, command);
        switch (answer.verdict) {
        case LUN_DONE:
            return 0;
        case LUN_RESET:
            talk->reset = true;
            /* fall through */
        case LUN_AGAIN:
        case LUN_CHANGED:
            if (++attentions > ATTENTIONS_MAX)
                return -EIO;
            break;
        case LUN_LATER:
            if (clock_now() + PAUSE_NS >= talk->end)
                return -ETIMEDOUT;
            nanosleep(&(struct timespec){.tv_nsec = (long)PAUSE_NS}, NULL);
            break;
        case LUN_LOST:
            return talk->link.error == -ETIMEDOUT ? -ETIMEDOUT : -ENOTCONN;
        case LUN_CONFLICT:
        case LUN_UNSUPPORTED:
        case LUN_FAILED:
            return answer.error;
        }
    }
}
