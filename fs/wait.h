/* wait: requests that wait for something that a pool's thread finds out: a disk that is being opened, fresh attributes.
 * The list and its mutex belong to what is waited for. */
#pragma once

#include <pthread.h>

#include "fs/request.h"

/* mutex is held. On the request's reactor. The request is held until woken was called, once, on that reactor, without
 * the mutex: with what wait_wake gave, or with -ETIMEDOUT when patience_ns are over. -ENOMEM: woken is not called. */
int wait_add(struct list *list, pthread_mutex_t *mutex, struct request *request, uint64_t patience_ns,
    void (*woken)(struct request *request, int result));

/* mutex is held. Any thread. */
void wait_wake(struct list *list, int result);
