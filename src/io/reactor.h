/* Reactor: one thread with an epoll set, timers and a queue of tasks. What runs on it never blocks; waiting is a
 * continuation. Sources, timers and batch hooks belong to the reactor's own thread; tasks may be posted from anywhere.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define REACTORS_MAX 16
/* A mount's own reactors are 0 … REACTORS_GUEST_MAX-1. The indexes above belong to reactors that a datastore starts for
 * itself; each datastore may have one of each. */
#define REACTORS_GUEST_MAX 12
#define REACTOR_NAMES      14 /* its names and its metadata */
#define REACTOR_FAULT      15 /* the fault wrapper's */

struct reactor;

/* A continuation. The owner keeps it alive until run was called; it may be posted again from run. */
struct task {
    struct list link;
    void (*run)(struct task *task);
};

/* A descriptor in the epoll set (level triggered). Its memory stays until the turn in which it was removed is over
 * (free it in a task posted after the removal). */
struct source {
    int fd;
    void (*ready)(struct source *source, uint32_t events);
};

struct timer {
    struct list link;
    uint64_t due; /* clock_now() units; 0: not set */
    void (*fired)(struct timer *timer);
};

/* Called at the end of each batch of events, before the reactor sleeps: the place for one submit call for many. */
struct batch_hook {
    struct list link;
    void (*flush)(struct batch_hook *hook);
};

/* Starts the thread. Returns 0 or -errno. Any thread. */
int reactor_start(struct reactor **reactor, unsigned index);

/* Asks the thread to end after the tasks that are queued, waits for it, frees. Never from a reactor's thread. NULL is
 * fine. */
void reactor_stop(struct reactor *reactor);

/* The reactor whose thread this is, NULL on other threads. */
struct reactor *reactor_current(void);

/* 0 … REACTORS_MAX-1, unique among the live reactors of a mount. */
unsigned reactor_index(const struct reactor *reactor);

/* A list for the owner of this reactor's requests in flight (io/disk.c). Own thread only. */
struct list *reactor_pending(struct reactor *reactor);

/* How many requests to images were sent from this reactor and are not done. sent: that many more; own thread only. */
unsigned reactor_in_flight(const struct reactor *reactor);
void reactor_sent(struct reactor *reactor, int count);

/* Those of them that a guest waits for. Own thread only. */
unsigned reactor_guests(const struct reactor *reactor);
void reactor_guest(struct reactor *reactor, int count);

/* Queues a task; the reactor wakes. Any thread, never blocks. */
void reactor_post(struct reactor *reactor, struct task *task);

/* Runs the task on the reactor's thread when the reactor ends, after all others; list_remove(&task->link) takes it back.
 * Own thread only. For who keeps sources beyond its requests. */
void reactor_at_end(struct reactor *reactor, struct task *task);

/* Runs call(argument) on the reactor and waits for its end. Never from a reactor's thread. */
void reactor_call(struct reactor *reactor, void (*call)(void *argument), void *argument);

/* Own thread only. 0 or -errno of epoll_ctl. */
int reactor_add(struct reactor *reactor, struct source *source, uint32_t events);
void reactor_remove(struct reactor *reactor, struct source *source);

void reactor_hook(struct reactor *reactor, struct batch_hook *hook);
void reactor_unhook(struct batch_hook *hook);

/* From now on it polls for a moment before it sleeps. For a reactor that alone brings its sources' work along: what
 * another reactor is woken for as well, it would be woken for each time. Own thread only. */
void reactor_set_eager(struct reactor *reactor);

/* (Re)arms the timer to fire once, delay_ns from now. Own thread only. Zero-filled timers are fine. */
void timer_set(struct reactor *reactor, struct timer *timer, uint64_t delay_ns);
void timer_cancel(struct timer *timer);
