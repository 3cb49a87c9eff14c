#include "fs/wait.h"

#include <errno.h>
#include <stdlib.h>

#include "fs/channel_state.h"

struct wait {
    struct list link; /* in the list, under its mutex; alone once woken */
    pthread_mutex_t *mutex;
    struct request *request;
    struct reactor *reactor;
    struct timer timer;
    struct task task;
    int result;
    void (*woken)(struct request *request, int result);
};

static void finish(struct wait *wait, int result)
{
    struct request *request = wait->request;
    struct behalf before = behalf_set(request_behalf(request));
    wait->woken(request, result);
    behalf_set(before);
    request_drop(request);
    free(wait);
}

static void task_run(struct task *task)
{
    struct wait *wait = container_of(task, struct wait, task);
    timer_cancel(&wait->timer);
    finish(wait, wait->result);
}

/* When it is in the list no more, its task is on the way. */
static void timer_fired(struct timer *timer)
{
    struct wait *wait = container_of(timer, struct wait, timer);
    pthread_mutex_lock(wait->mutex);
    bool listed = !list_empty(&wait->link);
    list_remove(&wait->link);
    pthread_mutex_unlock(wait->mutex);
    if (listed)
        finish(wait, -ETIMEDOUT);
}

int wait_add(struct list *list, pthread_mutex_t *mutex, struct request *request, uint64_t patience_ns,
    void (*woken)(struct request *request, int result))
{
    struct wait *wait = calloc(1, sizeof(*wait));
    if (!wait)
        return -ENOMEM;
    wait->mutex = mutex;
    wait->request = request;
    wait->reactor = reactor_current();
    wait->timer.fired = timer_fired;
    wait->task.run = task_run;
    wait->woken = woken;
    list_init(&wait->timer.link);
    request_hold(request);
    list_append(list, &wait->link);
    timer_set(wait->reactor, &wait->timer, patience_ns);
    return 0;
}

void wait_wake(struct list *list, int result)
{
    for (struct list *link; (link = list_pop(list));) {
        struct wait *wait = container_of(link, struct wait, link);
        wait->result = result;
        reactor_post(wait->reactor, &wait->task);
    }
}
