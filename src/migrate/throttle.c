#include "migrate/throttle.h"

#include "base/clock.h"

#define ADVANCE (NS_PER_S / 10)

uint64_t throttle_ask(struct throttle *throttle, uint64_t now, uint64_t bytes)
{
    if (throttle->rate == 0)
        return 0;
    if (throttle->free_at < now)
        throttle->free_at = now;
    if (throttle->free_at > now + ADVANCE)
        return throttle->free_at - now - ADVANCE;
    throttle->free_at += (uint64_t)((__uint128_t)bytes * NS_PER_S / throttle->rate);
    return 0;
}

void throttle_set(struct throttle *throttle, uint64_t now, uint64_t rate)
{
    uint64_t owed = throttle->rate && throttle->free_at > now ? throttle->free_at - now : 0;
    throttle->free_at = now + (rate ? (uint64_t)((__uint128_t)owed * throttle->rate / rate) : 0);
    throttle->rate = rate;
}
