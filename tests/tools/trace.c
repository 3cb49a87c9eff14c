#include "trace.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { EVENTS = 1 << 14, TOLD = 40 };

struct trace {
    pthread_mutex_t mutex;
    uint64_t count;
    struct trace_event events[EVENTS];
};

struct trace *trace_new(void)
{
    struct trace *trace = calloc(1, sizeof *trace);
    if (trace)
        pthread_mutex_init(&trace->mutex, NULL);
    return trace;
}

void trace_free(struct trace *trace)
{
    free(trace);
}

void trace_add(struct trace *trace, struct trace_event event)
{
    pthread_mutex_lock(&trace->mutex);
    trace->events[trace->count++ % EVENTS] = event;
    pthread_mutex_unlock(&trace->mutex);
}

static void tell(const struct trace_event *event, uint64_t now_us)
{
    fprintf(stderr, "  %c %llu+%llu from %.3f to %.3f ms", event->verb, (unsigned long long)event->offset,
        (unsigned long long)event->length, (double)event->begun_us / 1000 - (double)now_us / 1000,
        (double)event->ended_us / 1000 - (double)now_us / 1000);
    if (event->counter)
        fprintf(stderr, ": write %llu of writer %u", (unsigned long long)(event->counter >> 16),
            (unsigned)(event->counter & 0xffff));
    fputc('\n', stderr);
}

void trace_tell(struct trace *trace, uint64_t offset, uint64_t length, uint64_t now_us)
{
    unsigned told = 0;
    pthread_mutex_lock(&trace->mutex);
    uint64_t oldest = trace->count > EVENTS ? trace->count - EVENTS : 0;
    for (uint64_t i = trace->count; i > oldest && told < TOLD; i--) {
        const struct trace_event *event = &trace->events[(i - 1) % EVENTS];
        if (event->offset < offset + length && offset < event->offset + event->length) {
            tell(event, now_us);
            told++;
        }
    }
    pthread_mutex_unlock(&trace->mutex);
}
