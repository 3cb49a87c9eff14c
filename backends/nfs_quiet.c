#include "backends/nfs_quiet.h"

#include "backends/nfs.h"
#include "base/clock.h"

#define PARTS      4
#define PART_LEAST (50 * NS_PER_MS)

static void alive(struct nfsds_call *call, int error, void *data);

static struct nfsds_hold *hold_of(struct list *link)
{
    return container_of(link, struct nfsds_hold, link);
}

static uint64_t part(const struct nfsds_quiet *quiet)
{
    uint64_t part = quiet->nfs->quiet_ns / PARTS;
    return part > PART_LEAST ? part : PART_LEAST;
}

static void arm(struct nfsds_quiet *quiet)
{
    if (list_empty(&quiet->held) || quiet->asked)
        return;
    uint64_t now = clock_now(), first = hold_of(quiet->held.next)->until, wait = first > now ? first - now : 0;
    timer_set(quiet->nfs->names, &quiet->timer, wait < part(quiet) ? wait : part(quiet));
}

static void fired(struct timer *timer)
{
    struct nfsds_quiet *quiet = container_of(timer, struct nfsds_quiet, timer);
    struct nfsds_connection *connection = nfsds_connection_of(quiet->nfs, quiet->nfs->names);
    if (quiet->asked || list_empty(&quiet->held))
        return;
    if (!connection) {
        timer_set(quiet->nfs->names, &quiet->timer, part(quiet));
        return;
    }
    quiet->asked = clock_now();
    quiet->arguments.object = nfsds_fh(&quiet->nfs->root);
    quiet->probe.procedure = NFS_GETATTR;
    quiet->probe.arguments = &quiet->arguments;
    quiet->probe.answered = alive;
    nfsds_connection_call(connection, &quiet->probe);
}

static void begin_again(struct nfsds_quiet *quiet, uint64_t until)
{
    list_for_each (link, &quiet->held)
        if (hold_of(link)->until < until)
            hold_of(link)->until = until;
}

static void alive(struct nfsds_call *call, int error, void *data)
{
    struct nfsds_quiet *quiet = container_of(call, struct nfsds_quiet, probe);
    uint64_t now = clock_now(), asked = quiet->asked, took = now - asked, most = 2 * quiet->took;
    quiet->asked = 0;
    quiet->took = took;
    if (took > (most > part(quiet) ? most : part(quiet)))
        begin_again(quiet, now + quiet->nfs->quiet_ns);
    while (!list_empty(&quiet->held) && hold_of(quiet->held.next)->until <= asked) {
        struct nfsds_hold *hold = hold_of(list_pop(&quiet->held));
        hold->released(hold);
    }
    arm(quiet);
}

static void enter(struct task *task)
{
    struct nfsds_hold *hold = container_of(task, struct nfsds_hold, task);
    struct nfsds_quiet *quiet = hold->quiet;
    struct list *at = quiet->held.previous;
    while (at != &quiet->held && hold_of(at)->until > hold->until)
        at = at->previous;
    list_insert_before(at->next, &hold->link);
    arm(quiet);
}

void nfsds_quiet_init(struct nfsds_quiet *quiet, struct nfs *nfs)
{
    *quiet = (struct nfsds_quiet){.nfs = nfs, .timer = {.fired = fired}};
    list_init(&quiet->held);
}

void nfsds_quiet_hold(struct nfsds_quiet *quiet, struct nfsds_hold *hold, uint64_t until)
{
    hold->quiet = quiet;
    hold->until = until;
    hold->task.run = enter;
    reactor_post(quiet->nfs->names, &hold->task);
}
