#include "backends/nfs_quiet.h"

#include "base/clock.h"

static void arm(struct nfsds_quiet *quiet)
{
    if (list_empty(&quiet->held))
        return;
    uint64_t now = clock_now(), until = container_of(quiet->held.next, struct nfsds_hold, link)->until;
    timer_set(quiet->reactor, &quiet->timer, until > now ? until - now : 0);
}

static void fired(struct timer *timer)
{
    struct nfsds_quiet *quiet = container_of(timer, struct nfsds_quiet, timer);
    uint64_t now = clock_now();
    while (!list_empty(&quiet->held)) {
        struct nfsds_hold *hold = container_of(quiet->held.next, struct nfsds_hold, link);
        if (hold->until > now)
            break;
        list_remove(&hold->link);
        hold->released(hold);
    }
    arm(quiet);
}

static void enter(struct task *task)
{
    struct nfsds_hold *hold = container_of(task, struct nfsds_hold, task);
    struct nfsds_quiet *quiet = hold->quiet;
    struct list *at = quiet->held.previous;
    while (at != &quiet->held && container_of(at, struct nfsds_hold, link)->until > hold->until)
        at = at->previous;
    list_insert_before(at->next, &hold->link);
    arm(quiet);
}

void nfsds_quiet_init(struct nfsds_quiet *quiet, struct reactor *reactor)
{
    *quiet = (struct nfsds_quiet){.reactor = reactor, .timer = {.fired = fired}};
    list_init(&quiet->held);
}

void nfsds_quiet_hold(struct nfsds_quiet *quiet, struct nfsds_hold *hold, uint64_t until)
{
    hold->quiet = quiet;
    hold->until = until;
    hold->task.run = enter;
    reactor_post(quiet->reactor, &hold->task);
}
