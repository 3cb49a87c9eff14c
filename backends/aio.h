/* aio: Linux asynchronous I/O for the direct images of one datastore, with a queue per reactor. Requests are collected
 * during a reactor's batch and submitted by one io_submit at its end; completions come by an eventfd and are taken from
 * the ring in user space. Submission never blocks: requests carry RWF_NOWAIT, and what the kernel would have to wait
 * for is refused. */
#pragma once

#include <libaio.h>
#include <stdbool.h>
#include <stdint.h>

#include "io/reactor.h"

/* Embedded in its owner. result: bytes moved, or -errno; -EAGAIN and any error of the submission itself mean that
 * nothing was sent. done runs on the reactor; with an error of submission it may run from within aio_queue. */
struct aio_request {
    struct iocb iocb;
    void (*done)(struct aio_request *request, long result);
};

#define AIO_AT_ONCE                                                                                                    \
    65536 /* bytes: from there on a request is submitted at once; the disk works while the reactor copies the next */

struct aio_queue;

struct aio {
    struct aio_queue *queues[REACTORS_MAX]; /* each is its reactor's own */
};

/* From the reactor's thread: queues a request whose iocb is prepared. False: there is no queue to be had here. */
bool aio_queue(struct aio *aio, struct reactor *reactor, struct aio_request *request, uint64_t bytes);

/* Nothing is in flight. Reactors that used it have ended, or are running and stay so until it returns. Never from a
 * reactor's thread. */
void aio_close(struct aio *aio);
