/* What a load did last: told when a read was wrong, so that one can see what its bytes had been through. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct trace;

struct trace_event {
    uint64_t begun_us, ended_us;
    uint64_t offset, length;
    uint64_t counter; /* the write's, as in its pattern; 0: a read, or zeroes */
    char verb;        /* 'w', 'r', 'z' */
};

struct trace *trace_new(void);
void trace_free(struct trace *trace);
/* Any thread. */
void trace_add(struct trace *trace, struct trace_event event);
/* The last ones that touch these bytes, to stderr. Times are told against now_us. */
void trace_tell(struct trace *trace, uint64_t offset, uint64_t length, uint64_t now_us);
