/* A turn of the loop: tasks, batch hooks, sleep in epoll, sources, timers. A task or a hook that queues further tasks
 * keeps the loop from sleeping. Posting from the reactor's own thread costs no system call; from another thread one
 * eventfd write, and only when the reactor sleeps.
 *
 * An eager reactor asks epoll for a moment before it sleeps in it. Falling asleep and being woken costs more than a
 * request's own work where an idle processor is slow to wake (a virtual machine's above all), and each request waits
 * for it twice. It asks only where the last wait of the same kind (with requests in flight, or without) was that short,
 * so that neither an idle mount nor a slow disk is polled for; and when it finds that it was preempted meanwhile, that
 * is when somebody else wants the processor, it leaves it alone for a time, and for twice as long when that happens again soon. */
#include "io/reactor.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define EVENTS_PER_TURN 64
#define EAGER_NS        (100 * NS_PER_US)
#define PREEMPTED_NS    (50 * NS_PER_US) /* asking takes less than one */
#define PATIENT_MIN_NS  (20 * NS_PER_MS)
#define PATIENT_MAX_NS  NS_PER_S
#define RARELY          10

struct reactor {
    /* set at creation */
    unsigned index;
    int epoll, wake;
    pthread_t thread;
    /* under mutex */
    pthread_mutex_t mutex;
    struct list posted;
    bool stop;
    /* atomic */
    atomic_bool asleep, mail; /* mail: posted is not empty */
    atomic_uint in_flight;    /* changed by the own thread only */
    /* own thread only */
    struct list tasks, hooks, timers, pending, endings;
    struct source waker;
    unsigned guests;
    bool eager;
    bool short_wait[2];               /* the last one: with nothing in flight, with something */
    uint64_t patient_until, patience; /* it was preempted */
};

static __thread struct reactor *current;

struct reactor *reactor_current(void)
{
    return current;
}

unsigned reactor_index(const struct reactor *reactor)
{
    return reactor->index;
}

struct list *reactor_pending(struct reactor *reactor)
{
    return &reactor->pending;
}

void reactor_sent(struct reactor *reactor, int count)
{
    unsigned before = atomic_load_explicit(&reactor->in_flight, memory_order_relaxed);
    atomic_store_explicit(&reactor->in_flight, before + (unsigned)count, memory_order_release);
}

unsigned reactor_in_flight(const struct reactor *reactor)
{
    return atomic_load_explicit(&reactor->in_flight, memory_order_acquire);
}

void reactor_guest(struct reactor *reactor, int count)
{
    reactor->guests += (unsigned)count;
}

unsigned reactor_guests(const struct reactor *reactor)
{
    return reactor->guests;
}

void reactor_post(struct reactor *reactor, struct task *task)
{
    if (reactor == current) {
        list_append(&reactor->tasks, &task->link);
        return;
    }
    pthread_mutex_lock(&reactor->mutex);
    list_append(&reactor->posted, &task->link);
    atomic_store(&reactor->mail, true);
    pthread_mutex_unlock(&reactor->mutex);
    if (atomic_exchange(&reactor->asleep, false))
        eventfd_write(reactor->wake, 1);
}

static void woken(struct source *source, uint32_t events)
{
    eventfd_t count;
    eventfd_read(source->fd, &count);
}

/* Splices what others posted; false: nothing came and stop was asked for. */
static bool take_posted(struct reactor *reactor)
{
    pthread_mutex_lock(&reactor->mutex);
    list_splice(&reactor->tasks, &reactor->posted);
    atomic_store(&reactor->mail, false);
    bool go_on = !reactor->stop || !list_empty(&reactor->tasks);
    pthread_mutex_unlock(&reactor->mutex);
    return go_on;
}

static void run_tasks(struct reactor *reactor)
{
    struct list batch, *link;
    list_init(&batch);
    list_splice(&batch, &reactor->tasks);
    while ((link = list_pop(&batch))) {
        struct task *task = container_of(link, struct task, link);
        task->run(task);
    }
}

static void run_timers(struct reactor *reactor)
{
    if (list_empty(&reactor->timers))
        return;
    uint64_t now = clock_now();
    while (!list_empty(&reactor->timers)) {
        struct timer *timer = container_of(reactor->timers.next, struct timer, link);
        if (timer->due > now)
            return;
        list_remove(&timer->link);
        timer->due = 0;
        timer->fired(timer);
    }
}

static int sleep_ms(struct reactor *reactor)
{
    if (!list_empty(&reactor->tasks))
        return 0;
    if (list_empty(&reactor->timers))
        return -1;
    uint64_t now = clock_now(), due = container_of(reactor->timers.next, struct timer, link)->due;
    return due <= now ? 0 : (int)((due - now + NS_PER_MS - 1) / NS_PER_MS);
}

static int sleep_in_epoll(struct reactor *reactor, struct epoll_event *events, int timeout)
{
    atomic_store(&reactor->asleep, true);
    pthread_mutex_lock(&reactor->mutex);
    if (!list_empty(&reactor->posted) || reactor->stop)
        timeout = 0;
    pthread_mutex_unlock(&reactor->mutex);
    int count = epoll_wait(reactor->epoll, events, EVENTS_PER_TURN, timeout);
    atomic_store(&reactor->asleep, false);
    return count;
}

/* Events, or 0 with *posted set when another thread has posted something, or 0. */
static int ask_epoll(struct reactor *reactor, struct epoll_event *events, uint64_t begun, bool *posted)
{
    uint64_t now = begun, before;
    if (begun < reactor->patient_until)
        return 0;
    do {
        int count = epoll_wait(reactor->epoll, events, EVENTS_PER_TURN, 0);
        *posted = atomic_load_explicit(&reactor->mail, memory_order_relaxed);
        if (count != 0 || *posted)
            return count;
        before = now;
        now = clock_now();
    } while (now < begun + EAGER_NS && now - before <= PREEMPTED_NS);
    if (now - before > PREEMPTED_NS) {
        bool rare = begun - reactor->patient_until > RARELY * reactor->patience;
        reactor->patience = rare ? PATIENT_MIN_NS : 2 * reactor->patience;
        if (reactor->patience > PATIENT_MAX_NS)
            reactor->patience = PATIENT_MAX_NS;
        reactor->patient_until = now + reactor->patience;
    }
    return 0;
}

static int wait_eagerly(struct reactor *reactor, struct epoll_event *events, int timeout)
{
    uint64_t begun = clock_now();
    bool *short_wait = &reactor->short_wait[!list_empty(&reactor->pending)], posted = false;
    int count = *short_wait ? ask_epoll(reactor, events, begun, &posted) : 0;
    if (count == 0 && !posted) {
        count = sleep_in_epoll(reactor, events, timeout);
        *short_wait = clock_now() - begun < EAGER_NS;
    }
    return count;
}

static void turn(struct reactor *reactor)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int timeout = sleep_ms(reactor), count;
    if (timeout == 0)
        count = epoll_wait(reactor->epoll, events, EVENTS_PER_TURN, 0);
    else if (reactor->eager)
        count = wait_eagerly(reactor, events, timeout);
    else
        count = sleep_in_epoll(reactor, events, timeout);
    for (int i = 0; i < count; i++) {
        struct source *source = events[i].data.ptr;
        /* A source may have been removed by one before it in this batch. */
        if (source->fd >= 0)
            source->ready(source, events[i].events);
    }
    run_timers(reactor);
}

static void *reactor_thread(void *argument)
{
    struct reactor *reactor = argument;
    char name[16];
    current = reactor;
    snprintf(name, sizeof(name), "reactor/%u", reactor->index);
    pthread_setname_np(pthread_self(), name);
    while (take_posted(reactor)) {
        run_tasks(reactor);
        list_for_each_safe (link, &reactor->hooks) {
            struct batch_hook *hook = container_of(link, struct batch_hook, link);
            hook->flush(hook);
        }
        turn(reactor);
    }
    struct list *ending;
    while ((ending = list_pop(&reactor->endings)))
        container_of(ending, struct task, link)->run(container_of(ending, struct task, link));
    return NULL;
}

static void reactor_free(struct reactor *reactor)
{
    if (reactor->epoll >= 0)
        close(reactor->epoll);
    if (reactor->wake >= 0)
        close(reactor->wake);
    pthread_mutex_destroy(&reactor->mutex);
    free(reactor);
}

int reactor_start(struct reactor **out, unsigned index)
{
    struct reactor *reactor = calloc(1, sizeof(*reactor));
    if (!reactor)
        return -ENOMEM;
    reactor->index = index;
    reactor->patience = PATIENT_MIN_NS;
    pthread_mutex_init(&reactor->mutex, NULL);
    list_init(&reactor->posted);
    list_init(&reactor->tasks);
    list_init(&reactor->hooks);
    list_init(&reactor->timers);
    list_init(&reactor->pending);
    list_init(&reactor->endings);
    reactor->epoll = epoll_create1(EPOLL_CLOEXEC);
    reactor->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = reactor->epoll < 0 || reactor->wake < 0 ? -errno : 0;
    if (!error) {
        reactor->waker = (struct source){reactor->wake, woken};
        error = reactor_add(reactor, &reactor->waker, EPOLLIN);
    }
    if (!error)
        error = -pthread_create(&reactor->thread, NULL, reactor_thread, reactor);
    if (error) {
        reactor_free(reactor);
        return error;
    }
    *out = reactor;
    return 0;
}

void reactor_stop(struct reactor *reactor)
{
    if (!reactor)
        return;
    pthread_mutex_lock(&reactor->mutex);
    reactor->stop = true;
    pthread_mutex_unlock(&reactor->mutex);
    eventfd_write(reactor->wake, 1);
    pthread_join(reactor->thread, NULL);
    reactor_free(reactor);
}

void reactor_at_end(struct reactor *reactor, struct task *task)
{
    list_append(&reactor->endings, &task->link);
}

struct call {
    struct task task;
    void (*call)(void *argument);
    void *argument;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    bool done;
};

static void run_call(struct task *task)
{
    struct call *call = container_of(task, struct call, task);
    call->call(call->argument);
    pthread_mutex_lock(&call->mutex);
    call->done = true;
    pthread_cond_signal(&call->ended);
    pthread_mutex_unlock(&call->mutex);
}

void reactor_call(struct reactor *reactor, void (*function)(void *argument), void *argument)
{
    struct call call = {.task.run = run_call, .call = function, .argument = argument};
    pthread_mutex_init(&call.mutex, NULL);
    pthread_cond_init(&call.ended, NULL);
    reactor_post(reactor, &call.task);
    pthread_mutex_lock(&call.mutex);
    while (!call.done)
        pthread_cond_wait(&call.ended, &call.mutex);
    pthread_mutex_unlock(&call.mutex);
    pthread_cond_destroy(&call.ended);
    pthread_mutex_destroy(&call.mutex);
}

int reactor_add(struct reactor *reactor, struct source *source, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    return epoll_ctl(reactor->epoll, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

void reactor_remove(struct reactor *reactor, struct source *source)
{
    epoll_ctl(reactor->epoll, EPOLL_CTL_DEL, source->fd, NULL);
    source->fd = -1;
}

void reactor_hook(struct reactor *reactor, struct batch_hook *hook)
{
    list_append(&reactor->hooks, &hook->link);
}

void reactor_unhook(struct batch_hook *hook)
{
    list_remove(&hook->link);
}

void reactor_set_eager(struct reactor *reactor)
{
    reactor->eager = true;
}

void timer_set(struct reactor *reactor, struct timer *timer, uint64_t delay_ns)
{
    timer_cancel(timer);
    timer->due = clock_now() + delay_ns;
    struct list *at = reactor->timers.previous;
    while (at != &reactor->timers && container_of(at, struct timer, link)->due > timer->due)
        at = at->previous;
    list_insert_before(at->next, &timer->link);
}

void timer_cancel(struct timer *timer)
{
    if (timer->due) {
        list_remove(&timer->link);
        timer->due = 0;
    }
}
