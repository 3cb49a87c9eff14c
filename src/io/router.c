#include "io/router.h"

#include <errno.h>
#include <stdlib.h>

static unsigned both_if(bool condition)
{
    return condition ? LEG_SOURCE | LEG_TARGET : LEG_SOURCE;
}

unsigned route(enum verb verb, enum mirror_phase phase, bool routed)
{
    bool mirrored = phase == MIRROR_ATTACHED || phase == MIRROR_COMMITTING;
    if (phase == MIRROR_FLIPPED)
        return LEG_TARGET;
    switch (verb) {
    case VERB_READ:
    case VERB_MAP:
        return LEG_SOURCE;
    case VERB_WRITE:
    case VERB_ZERO:
    case VERB_ALLOCATE:
        return both_if(mirrored && routed);
    case VERB_FLUSH:
    case VERB_RESIZE:
        return both_if(mirrored);
    }
    abort();
}

/* Is it the request that is at fault? Then another leg would say the same. */
static bool is_refused(int error)
{
    return error == -EINVAL || error == -EFAULT || error == -EOPNOTSUPP || error == -ECANCELED;
}

bool route_again(enum mirror_phase phase, enum verb verb, unsigned to, int source_result, bool holds)
{
    if (verb != VERB_READ || to != LEG_SOURCE || source_result >= 0 || is_refused(source_result))
        return false;
    switch (phase) {
    case MIRROR_NONE:
    case MIRROR_DROPPED:
        return false;
    case MIRROR_ATTACHED:
    case MIRROR_COMMITTING:
        return holds;
    case MIRROR_FLIPPED: /* it was sent before: the target is the truth by now */
        return true;
    }
    abort();
}

enum verdict route_verdict(enum mirror_phase phase, unsigned to, unsigned pending, int source_result, int target_result)
{
    bool source_open = pending & LEG_SOURCE, target_open = pending & LEG_TARGET;
    if (!(to & LEG_TARGET))
        return source_open ? VERDICT_WAIT : VERDICT_SOURCE;
    if (!(to & LEG_SOURCE))
        return target_open ? VERDICT_WAIT : VERDICT_TARGET;
    switch (phase) {
    case MIRROR_NONE:
    case MIRROR_DROPPED:
        return source_open ? VERDICT_WAIT : VERDICT_SOURCE;
    case MIRROR_FLIPPED:
        return target_open ? VERDICT_WAIT : VERDICT_TARGET;
    case MIRROR_ATTACHED:
        if (source_open || target_open)
            return VERDICT_WAIT;
        return target_result < 0 ? VERDICT_DROP : VERDICT_SOURCE;
    case MIRROR_COMMITTING:
        if (source_open || target_open)
            return VERDICT_WAIT;
        return (source_result < 0) != (target_result < 0) ? VERDICT_PARK : VERDICT_SOURCE;
    }
    abort();
}
