/* The pace of a copy.
 *
 * While the guest is at work the copy is gentle: what the guest waits for is what stands in the disks' queues before its own
 * request. That costs the copy a part of its speed, and saves the guest most of its own. It is for a second after the guest
 * was last seen; and for a fifth of one after another disk's guest was, on the datastore of a leg.
 *
 * latency: a hundredth of the guest's requests may be late. Of this allowance, counted from the copy's begin, a part is kept
 * in reserve. A step that was late beyond it halves the rate, then waits to see what that helps; one that was not raises it:
 * twofold until the guest was late for the first time, then by a tenth, and only if the copy did use what it had. A guest
 * that asks for nothing is in nobody's way: after a second the copy goes as fast as it can, and begins anew when it comes
 * back. Below LEAST it never goes, so that a move ends whatever the guest does.
 *
 * deadline: what is left is spread over the time that is left, less a reserve; a latency holds as long as that allows. A
 * deadline that has passed leaves no limit. */
#include "migrate/pace.h"

#include "base/clock.h"

#define LEAST     (4ull << 20)
#define START     (16ull << 20)
#define QUIET_NS  NS_PER_S
#define OTHERS_NS (NS_PER_S / 5)
#define PATIENCE  3 /* steps */

/* Of 1000 requests, in the long run and in one step. */
#define LATE_IN_ALL  5
#define LATE_IN_STEP 8

static bool is_quiet(struct pace *pace, const struct pace_figures *figures)
{
    if (figures->busy || figures->served != pace->served)
        pace->quiet_since = figures->now;
    return figures->now - pace->quiet_since >= QUIET_NS;
}

static void lower(struct pace *pace)
{
    pace->allowed = pace->allowed / 2 > LEAST ? pace->allowed / 2 : LEAST;
    pace->patience = PATIENCE;
    pace->met = true;
}

static void raise_(struct pace *pace, uint64_t used)
{
    if (used * 10 < pace->allowed * 7)
        return;
    uint64_t more = pace->met ? pace->allowed / 10 : pace->allowed;
    if (pace->allowed <= UINT64_MAX / 4)
        pace->allowed += more;
}

static void heed_guest(struct pace *pace, const struct pace_figures *figures)
{
    uint64_t served = figures->served - pace->served, late = figures->late - pace->late;
    uint64_t span = figures->now - pace->at;
    uint64_t used = span ? (uint64_t)((double)(figures->copied - pace->copied) * 1e9 / (double)span) : 0;
    bool over = figures->late * 1000 > figures->served * LATE_IN_ALL;
    if (pace->patience)
        pace->patience--;
    if (late * 1000 > served * LATE_IN_STEP && late > 0) {
        if (!pace->patience)
            lower(pace);
    } else if (over) {
        if (!pace->patience && late)
            lower(pace);
    } else if (served && !pace->patience) {
        raise_(pace, used);
    }
}

/* 0: there is no time left. */
static uint64_t needed(const struct pace *pace, const struct pace_figures *figures)
{
    uint64_t left_ns = pace->until_ns > figures->now ? pace->until_ns - figures->now : 0;
    left_ns -= left_ns / 10;
    if (left_ns <= NS_PER_S / 2)
        return 0;
    uint64_t rate = (uint64_t)((double)figures->left * 1e9 / (double)(left_ns - NS_PER_S / 2));
    return rate > LEAST ? rate : LEAST;
}

void pace_seen(struct pace *pace, uint64_t now, bool own)
{
    if (own)
        pace->quiet_since = now;
    else
        pace->others_until = now + OTHERS_NS;
    if (pace->until_ns)
        return;
    pace->gentle = true;
    if (own && pace->latency_ns)
        pace->rate = pace->allowed;
}

void pace_step(struct pace *pace, const struct pace_figures *figures)
{
    if (!pace->at) {
        pace->allowed = START;
        pace->quiet_since = figures->now > QUIET_NS ? figures->now - QUIET_NS : 0;
    } else if (pace->latency_ns) {
        heed_guest(pace, figures);
    }
    bool quiet = is_quiet(pace, figures);
    if (quiet && pace->allowed > START)
        pace->allowed = START;
    pace->rate = pace->latency_ns && !quiet ? pace->allowed : 0;
    pace->gentle = !quiet || figures->now < pace->others_until;
    if (pace->until_ns) {
        uint64_t least = needed(pace, figures);
        if (pace->rate == 0 || least == 0 || least > pace->rate) {
            pace->rate = least;
            pace->gentle = false;
        }
    }
    pace->served = figures->served;
    pace->late = figures->late;
    pace->copied = figures->copied;
    pace->at = figures->now;
}
