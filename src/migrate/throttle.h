/* throttle: a rate as arithmetic; it never sleeps. Pure but for the state that the caller keeps and the time that it
 * passes. */
#pragma once

#include <stdint.h>

struct throttle {
    uint64_t rate;    /* bytes a second; 0: none */
    uint64_t free_at; /* clock_now() units: when all that was let through has been paid for */
};

/* Asks to let bytes through at now: 0 when they may go (they are paid for), else the ns to wait before asking again. At
 * most 100 ms worth of bytes is let through in advance, so a change of the rate is felt at once. */
uint64_t throttle_ask(struct throttle *throttle, uint64_t now, uint64_t bytes);
void throttle_set(struct throttle *throttle, uint64_t now, uint64_t rate);
