/* A claim is: read, judge, wait if another's record might live, write, let what others wrote meanwhile settle, read
 * again. Storage knows no compare-and-swap that all places share, so that two who claim a free datastore in the same
 * instant both write: the one whose record stands in the end has it. Each waits for several times as long as its own
 * claim took, at least SETTLE_LEAST_NS, before it reads again; what comes later still is seen by the first beats, which
 * follow each other sooner than the rest. A record of an earlier worker of this mount needs none of that and is not even
 * written: the heart does it.
 *
 * The heart is a thread of its own, so that a datastore that hangs hangs nothing else of it. It reads before it writes:
 * a record of somebody else is never written over. */
#include "backends/owner.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/owner_record.h"
#include "base/clock.h"
#include "base/log.h"

#define LOOK_NS         (100 * NS_PER_MS)
#define SETTLE_LEAST_NS (50 * NS_PER_MS)
#define SETTLE_FACTOR   3
#define CLAIM_TRIES     5

struct owner {
    /* set at creation */
    struct owner_place place;
    uint64_t beat_ns;
    char name[DATASTORE_NAME_MAX + 1];
    pthread_t thread;
    /* the claimer's, then the heart's */
    struct owner_record self;
    bool lost, troubled;
    /* under the mutex */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool stopping, ended, abandoned;
};

/* ---- who we are ---- */

static bool process_lives(int process)
{
    char path[64], text[512], state = '\0';
    snprintf(path, sizeof(path), "/proc/%d/stat", process);
    FILE *file = fopen(path, "re");
    if (file) {
        text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
        fclose(file);
        const char *end = strrchr(text, ')');
        state = end && end[1] == ' ' ? end[2] : '\0';
    }
    if (state != '\0')
        return state != 'Z' && state != 'X';
    return kill(process, 0) == 0 || errno == EPERM;
}

static void describe_self(struct owner_record *self, const struct identity *identity)
{
    struct stat st;
    *self = (struct owner_record){.mount = identity->mount, .keeper = identity->keeper, .worker = (int)getpid()};
    self->processes = stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
    snprintf(self->host, sizeof(self->host), "%s", identity->host);
    snprintf(self->machine, sizeof(self->machine), "%s", identity->machine);
    snprintf(self->boot, sizeof(self->boot), "%s", identity->boot);
    snprintf(self->mountpoint, sizeof(self->mountpoint), "%s", identity->mountpoint);
}

/* ---- the record ---- */

struct look {
    int kind; /* 0, -ENOENT, -EPROTO, -EINVAL: owner_decode's */
    struct owner_record record;
    char text[OWNER_RECORD];
};

/* 0 or -errno of the place. */
static int look_by(struct owner *owner, ssize_t (*read)(void *argument, char *text), struct look *seen)
{
    memset(seen->text, 0, sizeof(seen->text));
    ssize_t length = read(owner->place.argument, seen->text);
    if (length < 0 && length != -ENOENT)
        return (int)length;
    seen->kind = owner_decode(seen->text, length < 0 ? 0 : (size_t)length, &seen->record);
    return 0;
}

static int look(struct owner *owner, struct look *seen)
{
    return look_by(owner, owner->place.read, seen);
}

static bool is_ours(const struct owner *owner, const struct look *seen)
{
    return seen->kind == 0 && owner_same(&seen->record, &owner->self);
}

/* What is no record at all is nobody's. */
static enum owner_verdict judge(const struct owner *owner, const struct look *seen)
{
    if (seen->kind == -ENOENT || seen->kind == -EINVAL)
        return OWNER_FREE;
    return seen->kind == -EPROTO ? OWNER_OTHER : owner_judge(&seen->record, &owner->self, process_lives);
}

static int put(struct owner *owner, bool beat)
{
    char text[OWNER_RECORD];
    owner->self.beat++;
    owner_encode(&owner->self, text);
    return (beat && owner->place.beat ? owner->place.beat : owner->place.write)(
        owner->place.argument, text, sizeof(text));
}

/* ---- the claim ---- */

static bool wait_while(const _Atomic bool *stop, uint64_t ns)
{
    uint64_t end = clock_now() + ns;
    for (uint64_t now; (now = clock_now()) < end;) {
        if (stop && atomic_load(stop))
            return false;
        uint64_t step = end - now < LOOK_NS ? end - now : LOOK_NS;
        nanosleep(&(struct timespec){.tv_nsec = (long)step}, NULL);
    }
    return true;
}

static int refuse_live(const struct owner *owner, const struct look *seen, struct sentence *why)
{
    char whom[400];
    if (owner_describe(seen->text, sizeof(seen->text), whom, sizeof(whom)) < 0)
        snprintf(whom, sizeof(whom), "in use by an unknown program");
    return refuse(why, -EBUSY,
        "datastore %s is %s; unmount it there, or, when that one is dead and cannot be, mount with --takeover",
        owner->name, whom);
}

/* Until what stands there may be put aside. Stale is what was read to be the same once more after the whole while, so
 * that a looker who was stopped himself judges nothing by that. 0, -EBUSY, -EINTR or the place's error. */
static int await_stale(struct owner *owner, struct look *seen, const _Atomic bool *stop, struct sentence *why)
{
    uint64_t began = clock_now(), limit = began + (OWNER_STALE_BEATS + 1) * owner->beat_ns;
    uint64_t step = owner->beat_ns / 8 < LOOK_NS ? owner->beat_ns / 8 : LOOK_NS, patience;
    while ((patience = owner_patience(judge(owner, seen), owner->beat_ns)) > 0) {
        struct look now;
        if (!wait_while(stop, step))
            return -EINTR;
        uint64_t waited = clock_now() - began;
        int error = look(owner, &now);
        if (error)
            return error;
        bool same = memcmp(now.text, seen->text, sizeof(now.text)) == 0;
        bool beats = now.kind == 0 && now.record.held && owner_same(&now.record, &seen->record);
        if (!same && (beats || now.kind == -EPROTO || clock_now() > limit))
            return refuse_live(owner, &now, why);
        if (same && waited >= patience)
            return 0;
        if (!same)
            began = clock_now();
        *seen = now;
    }
    return 0;
}

static void tell_put_aside(const struct owner *owner, const struct look *seen, bool takeover)
{
    char whom[400];
    enum owner_verdict verdict = judge(owner, seen);
    if (verdict == OWNER_FREE || verdict == OWNER_OURS ||
        owner_describe(seen->text, sizeof(seen->text), whom, sizeof(whom)) < 0)
        return;
    log_warning("datastore %s was %s: %s", owner->name, whom,
        takeover ? "it is taken over as asked" : "that one is gone, it is taken over");
}

/* Writes and sees that it stays. 0; -EAGAIN: another's stands there. */
static int write_claim(struct owner *owner, bool takeover, const _Atomic bool *stop, struct look *seen)
{
    struct look now;
    uint64_t began = clock_now();
    int error = look(owner, &now);
    if (error)
        return error;
    bool same = memcmp(now.text, seen->text, sizeof(now.text)) == 0;
    *seen = now;
    if (!same && !takeover)
        return -EAGAIN;
    owner->self.held = true;
    error = put(owner, false);
    if (error)
        return error;
    uint64_t settle = SETTLE_FACTOR * (clock_now() - began);
    settle = settle > SETTLE_LEAST_NS ? settle : SETTLE_LEAST_NS;
    if (!wait_while(stop, settle < owner->beat_ns ? settle : owner->beat_ns))
        return -EINTR;
    error = look(owner, seen);
    return error ? error : is_ours(owner, seen) && seen->record.held ? 0 : -EAGAIN;
}

static int claim(struct owner *owner, bool takeover, const _Atomic bool *stop, struct sentence *why)
{
    struct look seen;
    int error = look(owner, &seen);
    if (error)
        return error;
    if (judge(owner, &seen) == OWNER_OURS) {
        owner->self.beat = seen.record.beat;
        return 0;
    }
    for (int tries = 0; tries < CLAIM_TRIES; tries++) {
        error = takeover ? 0 : await_stale(owner, &seen, stop, why);
        if (error)
            return error;
        tell_put_aside(owner, &seen, takeover);
        error = write_claim(owner, takeover, stop, &seen);
        if (error != -EAGAIN)
            return error;
    }
    return refuse_live(owner, &seen, why);
}

/* ---- the heart ---- */

static void lose(struct owner *owner, const struct look *seen)
{
    struct sentence sentence;
    char whom[400];
    if (owner_describe(seen->text, sizeof(seen->text), whom, sizeof(whom)) < 0)
        snprintf(whom, sizeof(whom), "in use by an unknown program");
    owner->lost = true;
    refuse(&sentence, -EIO,
        "datastore %s was taken over: it is %s; nothing is written to it from here any more: unmount, and mount again "
        "when it is free",
        owner->name, whom);
    log_error("%s", sentence.text);
    owner->place.lost(owner->place.argument, sentence.text);
}

/* A later version's record that came in the place of ours is somebody's; what is no record is not. */
static int beat(struct owner *owner, bool last)
{
    struct look seen;
    int error = owner->place.peek && !last ? look_by(owner, owner->place.peek, &seen) : -ENOENT;
    if (error || !is_ours(owner, &seen))
        error = look(owner, &seen);
    if (error)
        return error;
    if ((seen.kind == 0 && !is_ours(owner, &seen)) || seen.kind == -EPROTO) {
        lose(owner, &seen);
        return 0;
    }
    if (last && seen.kind != 0)
        return 0; /* the place was emptied */
    owner->self.held = !last;
    return put(owner, seen.kind == 0);
}

static void beat_and_tell(struct owner *owner, bool last)
{
    int error = beat(owner, last);
    if (error && !owner->troubled)
        log_warning(
            "datastore %s: the owner's record cannot be written: %s; another host may think that this one is gone",
            owner->name, error_text(error));
    if (!error && owner->troubled && !owner->lost)
        log_info("datastore %s: the owner's record is written again", owner->name);
    owner->troubled = error != 0;
}

static void destroy(struct owner *owner)
{
    pthread_cond_destroy(&owner->changed);
    pthread_mutex_destroy(&owner->mutex);
    free(owner);
}

/* The first beats come soon, and ever later. True: time to beat; false: the end. The mutex is held. */
static bool sleep_until_beat(struct owner *owner, uint64_t span)
{
    uint64_t end = clock_now() + span;
    struct timespec until = {.tv_sec = (time_t)(end / NS_PER_S), .tv_nsec = (long)(end % NS_PER_S)};
    while (!owner->stopping && clock_now() < end)
        pthread_cond_timedwait(&owner->changed, &owner->mutex, &until);
    return !owner->stopping;
}

static void *heart(void *argument)
{
    struct owner *owner = argument;
    uint64_t span = 0;
    pthread_setname_np(pthread_self(), "owner");
    pthread_mutex_lock(&owner->mutex);
    while (sleep_until_beat(owner, span) && !owner->lost) {
        pthread_mutex_unlock(&owner->mutex);
        beat_and_tell(owner, false);
        span = span ? span * 2 : owner->beat_ns / 16;
        span = span < owner->beat_ns ? span : owner->beat_ns;
        pthread_mutex_lock(&owner->mutex);
    }
    bool free_it = !owner->lost && !owner->abandoned;
    pthread_mutex_unlock(&owner->mutex);
    if (free_it)
        beat_and_tell(owner, true);
    pthread_mutex_lock(&owner->mutex);
    owner->ended = true;
    pthread_cond_broadcast(&owner->changed);
    pthread_mutex_unlock(&owner->mutex);
    return NULL;
}

int owner_claim(struct owner **out, const struct datastore *datastore, const struct owner_place *place,
    const _Atomic bool *stop, struct sentence *why)
{
    pthread_condattr_t attributes;
    *out = NULL;
    if (datastore->identity.mount == 0)
        return 0;
    struct owner *owner = calloc(1, sizeof(*owner));
    if (!owner)
        return -ENOMEM;
    owner->place = *place;
    owner->beat_ns = place->beat_ns ? place->beat_ns : OWNER_BEAT_NS;
    snprintf(owner->name, sizeof(owner->name), "%s", datastore->name);
    describe_self(&owner->self, &datastore->identity);
    pthread_mutex_init(&owner->mutex, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&owner->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    int error = claim(owner, datastore->identity.takeover, stop, why);
    if (!error)
        error = -pthread_create(&owner->thread, NULL, heart, owner);
    if (error) {
        destroy(owner);
        return error;
    }
    *out = owner;
    return 0;
}

bool owner_release(struct owner *owner)
{
    if (!owner)
        return true;
    uint64_t end = clock_now() + OWNER_RELEASE_NS;
    struct timespec until = {.tv_sec = (time_t)(end / NS_PER_S), .tv_nsec = (long)(end % NS_PER_S)};
    pthread_mutex_lock(&owner->mutex);
    owner->stopping = true;
    pthread_cond_broadcast(&owner->changed);
    while (!owner->ended && clock_now() < end)
        pthread_cond_timedwait(&owner->changed, &owner->mutex, &until);
    bool ended = owner->ended;
    owner->abandoned = !ended;
    pthread_mutex_unlock(&owner->mutex);
    if (!ended) {
        log_warning("datastore %s: the owner's record stays: its datastore hangs", owner->name);
        pthread_detach(owner->thread);
        return false;
    }
    pthread_join(owner->thread, NULL);
    destroy(owner);
    return true;
}
