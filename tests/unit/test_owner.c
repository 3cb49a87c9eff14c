#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/owner_record.h"
#include "base/clock.h"

#define BEAT_NS (100 * NS_PER_MS)
static const struct owner_record model = {.mount = 0xfeedfacecafebeef,
    .processes = 4026531836,
    .beat = 41,
    .keeper = 100,
    .worker = 101,
    .held = true,
    .host = "hyp1",
    .machine = "0123456789abcdef0123456789abcdef",
    .boot = "11111111-2222-3333-4444-555555555555",
    .mountpoint = "/vms"};

struct place {
    pthread_mutex_t mutex;
    char text[OWNER_RECORD];
    size_t length;
    bool foreign_beats; /* each read finds the record's next beat */
    unsigned reads, peeks, writes;
    bool foreign_peeks; /* each peek finds a record of another mount */
    int error;
    _Atomic unsigned losses;
    struct owner_place ops;
};

static ssize_t place_read(void *argument, char *text)
{
    struct place *place = argument;
    struct owner_record record;
    pthread_mutex_lock(&place->mutex);
    place->reads++;
    if (place->foreign_beats && owner_decode(place->text, place->length, &record) == 0) {
        record.beat++;
        owner_encode(&record, place->text);
    }
    ssize_t length = place->error ? place->error : place->length ? (ssize_t)place->length : -ENOENT;
    memcpy(text, place->text, place->length);
    pthread_mutex_unlock(&place->mutex);
    return length;
}

static ssize_t place_peek(void *argument, char *text)
{
    struct place *place = argument;
    struct owner_record record;
    pthread_mutex_lock(&place->mutex);
    place->peeks++;
    memcpy(text, place->text, place->length);
    if (place->foreign_peeks && owner_decode(text, place->length, &record) == 0) {
        record.mount++;
        owner_encode(&record, text);
    }
    ssize_t length = (ssize_t)place->length;
    pthread_mutex_unlock(&place->mutex);
    return length;
}

static int place_write(void *argument, const char *text, size_t length)
{
    struct place *place = argument;
    pthread_mutex_lock(&place->mutex);
    place->writes++;
    if (!place->error) {
        memcpy(place->text, text, length);
        place->length = length;
    }
    int error = place->error;
    pthread_mutex_unlock(&place->mutex);
    return error;
}

static void place_lost(void *argument, const char *sentence)
{
    struct place *place = argument;
    atomic_fetch_add(&place->losses, 1);
}

static void place_init(struct place *place, const struct owner_record *record)
{
    memset(place, 0, sizeof(*place));
    pthread_mutex_init(&place->mutex, NULL);
    place->ops = (struct owner_place){
        .read = place_read, .write = place_write, .lost = place_lost, .argument = place, .beat_ns = BEAT_NS};
    if (record) {
        owner_encode(record, place->text);
        place->length = OWNER_RECORD;
    }
}

static struct owner_record record_in(struct place *place)
{
    struct owner_record record;
    pthread_mutex_lock(&place->mutex);
    cr_assert_eq(owner_decode(place->text, place->length, &record), 0);
    pthread_mutex_unlock(&place->mutex);
    return record;
}

/* A mount whose kernel and machine nobody else has, so that only beats tell; n tells several apart. */
static struct datastore mount_of(unsigned n)
{
    struct datastore datastore = {
        .name = "one", .identity = {.mount = 1000 + n, .generation = 1, .keeper = (int)getpid(), .mountpoint = "/vms"}};
    snprintf(datastore.identity.host, sizeof(datastore.identity.host), "host%u", n);
    snprintf(datastore.identity.machine, sizeof(datastore.identity.machine), "%032u", n);
    snprintf(datastore.identity.boot, sizeof(datastore.identity.boot), "boot%u", n);
    return datastore;
}

/* Generous: how long things take is no matter of these tests. */
static bool comes(bool (*is)(struct place *place, uint64_t value), struct place *place, uint64_t value)
{
    for (int i = 0; i < 20000; i++) {
        if (is(place, value))
            return true;
        usleep(1000);
    }
    return false;
}

static bool beat_is_past(struct place *place, uint64_t beat)
{
    return record_in(place).beat > beat;
}

static bool has_lost(struct place *place, uint64_t value)
{
    return atomic_load(&place->losses) == value;
}

Test(owner, a_mount_without_a_name_claims_nothing)
{
    struct place place;
    struct datastore datastore = mount_of(1);
    struct owner *owner = (struct owner *)&place;
    datastore.identity.mount = 0;
    place_init(&place, NULL);
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, NULL), 0);
    cr_assert_null(owner);
    cr_assert(owner_release(owner));
    cr_assert_eq(place.writes, 0u);
}

Test(owner, a_claim_is_held_beats_and_ends_free)
{
    struct place place;
    struct datastore datastore = mount_of(1);
    struct sentence why = {""};
    struct owner *owner;
    place_init(&place, NULL);
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, &why), 0, "%s", why.text);
    struct owner_record record = record_in(&place);
    cr_assert(record.held);
    cr_assert_eq(record.mount, 1001u);
    cr_assert_eq(record.worker, (int)getpid());
    cr_assert(comes(beat_is_past, &place, record.beat + 3));
    cr_assert(owner_release(owner));
    cr_assert_not(record_in(&place).held);
    cr_assert_eq(place.losses, 0u);
    /* and the next is not kept waiting: it looks three times and no more */
    unsigned reads = place.reads;
    struct datastore other = mount_of(2);
    place.ops.beat_ns = 3600 * NS_PER_S;
    cr_assert_eq(owner_claim(&owner, &other, &place.ops, NULL, &why), 0);
    pthread_mutex_lock(&place.mutex);
    cr_assert_leq(place.reads - reads, 4u);
    pthread_mutex_unlock(&place.mutex);
    cr_assert(owner_release(owner));
}

Test(owner, a_living_owner_is_named_and_left)
{
    struct place place;
    struct datastore first = mount_of(1), second = mount_of(2);
    struct sentence why = {""};
    struct owner *owner, *other;
    place_init(&place, NULL);
    cr_assert_eq(owner_claim(&owner, &first, &place.ops, NULL, &why), 0);
    cr_assert_eq(owner_claim(&other, &second, &place.ops, NULL, &why), -EBUSY);
    cr_assert(strstr(why.text, "host1") && strstr(why.text, "/vms") && strstr(why.text, "--takeover"), "%s", why.text);
    cr_assert_null(other);
    cr_assert_eq(record_in(&place).mount, 1001u);
    cr_assert(owner_release(owner));
    cr_assert_eq(place.losses, 0u);
}

Test(owner, a_copy_of_the_state_directory_elsewhere_is_not_ours)
{
    struct place place;
    struct datastore copy = mount_of(2);
    struct owner_record found = model;
    struct sentence why = {""};
    struct owner *owner;
    found.mount = copy.identity.mount;
    place_init(&place, &found);
    place.foreign_beats = true;
    cr_assert_eq(owner_claim(&owner, &copy, &place.ops, NULL, &why), -EBUSY);
    cr_assert_eq(place.writes, 0u);
}

Test(owner, one_that_stands_still_is_taken_over)
{
    struct place place;
    struct datastore datastore = mount_of(2);
    struct sentence why = {""};
    struct owner *owner;
    place_init(&place, &model);
    uint64_t began = clock_now();
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, &why), 0, "%s", why.text);
    cr_assert_geq(clock_now() - began, OWNER_STALE_BEATS * BEAT_NS);
    cr_assert_eq(record_in(&place).mount, 1002u);
    cr_assert(owner_release(owner));
}

Test(owner, a_copy_of_the_machine_still_beats)
{
    struct place place;
    struct datastore datastore = mount_of(2);
    struct owner_record found = model;
    struct sentence why = {""};
    struct owner *owner;
    strcpy(found.host, datastore.identity.host);
    strcpy(found.machine, datastore.identity.machine);
    place_init(&place, &found);
    place.foreign_beats = true;
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, &why), -EBUSY);
    place.foreign_beats = false;
    uint64_t began = clock_now();
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, &why), 0, "%s", why.text);
    cr_assert_geq(clock_now() - began, 2 * BEAT_NS);
    cr_assert(owner_release(owner));
}

/* Nothing waits here: with beats of an hour waiting would not end. */
Test(owner, the_next_worker_and_a_dead_keeper_wait_for_nothing)
{
    struct place place;
    struct datastore datastore = mount_of(1);
    struct sentence why = {""};
    struct owner *owner;
    struct stat st;
    cr_assert_eq(stat("/proc/self/ns/pid", &st), 0);
    pid_t dead = fork();
    if (dead == 0)
        _exit(0);
    waitpid(dead, NULL, 0);
    struct owner_record found = model;
    strcpy(found.boot, datastore.identity.boot);
    found.processes = st.st_ino;
    found.keeper = found.worker = (int)dead;
    place_init(&place, &found);
    place.ops.beat_ns = 3600 * NS_PER_S;
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, &why), 0, "%s", why.text);
    found = record_in(&place);
    cr_assert_eq(found.mount, 1001u);
    cr_assert(owner_release(owner));
    /* its next worker: taken up without a write of the claimer */
    place_init(&place, &found);
    place.ops.beat_ns = 3600 * NS_PER_S;
    datastore.identity.generation = 2;
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, &why), 0, "%s", why.text);
    cr_assert(comes(beat_is_past, &place, found.beat));
    cr_assert(owner_release(owner));
}

Test(owner, a_takeover_waits_for_nothing_and_the_other_learns_of_it)
{
    struct place place;
    struct datastore first = mount_of(1), second = mount_of(2);
    struct sentence why = {""};
    struct owner *owner, *other;
    place_init(&place, NULL);
    cr_assert_eq(owner_claim(&owner, &first, &place.ops, NULL, &why), 0);
    second.identity.takeover = true;
    cr_assert_eq(owner_claim(&other, &second, &place.ops, NULL, &why), 0, "%s", why.text);
    cr_assert(comes(has_lost, &place, 1));
    cr_assert_eq(record_in(&place).mount, 1002u);
    /* who has lost frees nothing */
    cr_assert(owner_release(owner));
    cr_assert(record_in(&place).held);
    cr_assert_eq(record_in(&place).mount, 1002u);
    cr_assert(owner_release(other));
    cr_assert_not(record_in(&place).held);
    cr_assert_eq(place.losses, 1u);
}

struct contender {
    struct place *place;
    struct datastore datastore;
    struct owner *owner;
    pthread_barrier_t *gate;
    int error;
};

static void *contend(void *argument)
{
    struct contender *contender = argument;
    pthread_barrier_wait(contender->gate);
    contender->error = owner_claim(&contender->owner, &contender->datastore, &contender->place->ops, NULL, NULL);
    return NULL;
}

Test(owner, of_two_that_claim_at_once_one_has_it, .timeout = 60)
{
    unsigned both_rounds = 0;
    for (int round = 0; round < 10; round++) {
        struct place place;
        struct contender contenders[2];
        pthread_t threads[2];
        pthread_barrier_t gate;
        place_init(&place, NULL);
        pthread_barrier_init(&gate, NULL, 2);
        for (unsigned i = 0; i < 2; i++) {
            contenders[i] = (struct contender){.place = &place, .datastore = mount_of(i), .gate = &gate};
            pthread_create(&threads[i], NULL, contend, &contenders[i]);
        }
        for (unsigned i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        bool both = contenders[0].error == 0 && contenders[1].error == 0;
        cr_assert(contenders[0].error == 0 || contenders[1].error == 0);
        cr_assert(contenders[0].error == 0 || contenders[0].error == -EBUSY);
        cr_assert(contenders[1].error == 0 || contenders[1].error == -EBUSY);
        /* one that was stopped between its look and its write comes too late to be seen: then the other has lost */
        both_rounds += both;
        if (both)
            cr_assert(comes(has_lost, &place, 1));
        else
            cr_assert_eq(record_in(&place).mount, contenders[0].error == 0 ? 1000u : 1001u);
        cr_assert(owner_release(contenders[0].owner));
        cr_assert(owner_release(contenders[1].owner));
        cr_assert_eq(place.losses, both ? 1u : 0u);
    }
    cr_assert_lt(both_rounds, 5u);
}

static void *set_later(void *argument)
{
    usleep(100000);
    atomic_store((_Atomic bool *)argument, true);
    return NULL;
}

Test(owner, waiting_can_be_given_up)
{
    struct place place;
    struct datastore datastore = mount_of(2);
    struct owner *owner;
    static _Atomic bool stop;
    pthread_t thread;
    place_init(&place, &model);
    place.ops.beat_ns = 3600 * NS_PER_S;
    pthread_create(&thread, NULL, set_later, (void *)&stop);
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, &stop, NULL), -EINTR);
    pthread_join(thread, NULL);
    cr_assert_eq(place.writes, 0u);
}

Test(owner, a_place_that_fails_is_written_again_later)
{
    struct place place;
    struct datastore datastore = mount_of(1);
    struct owner *owner;
    place_init(&place, NULL);
    place.error = -EIO;
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, NULL), -EIO);
    place.error = 0;
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, NULL), 0);
    pthread_mutex_lock(&place.mutex);
    place.error = -EIO;
    pthread_mutex_unlock(&place.mutex);
    usleep(3 * BEAT_NS / 1000);
    uint64_t beat = record_in(&place).beat;
    pthread_mutex_lock(&place.mutex);
    place.error = 0;
    pthread_mutex_unlock(&place.mutex);
    cr_assert(comes(beat_is_past, &place, beat));
    cr_assert_eq(place.losses, 0u);
    cr_assert(owner_release(owner));
}

Test(owner, a_peek_spares_the_read_and_alone_is_no_loss)
{
    struct place place;
    struct datastore datastore = mount_of(1);
    struct owner *owner;
    place_init(&place, NULL);
    place.ops.peek = place_peek;
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, NULL), 0);
    unsigned reads = place.reads;
    cr_assert(comes(beat_is_past, &place, record_in(&place).beat + 3));
    cr_assert_eq(place.reads, reads);
    cr_assert_gt(place.peeks, 2u);
    pthread_mutex_lock(&place.mutex);
    place.foreign_peeks = true;
    pthread_mutex_unlock(&place.mutex);
    cr_assert(comes(beat_is_past, &place, record_in(&place).beat + 3), "the read says that it is ours");
    cr_assert_gt(place.reads, reads);
    cr_assert_eq(place.losses, 0u);
    cr_assert(owner_release(owner));
    cr_assert_not(record_in(&place).held);
}

Test(owner, a_later_version_is_never_written_over)
{
    struct place place;
    struct datastore datastore = mount_of(1);
    struct owner *owner;
    place_init(&place, NULL);
    cr_assert_eq(owner_claim(&owner, &datastore, &place.ops, NULL, NULL), 0);
    pthread_mutex_lock(&place.mutex);
    place.length = (size_t)snprintf(place.text, sizeof(place.text), "svmfs-owner 7\nwho knows\n");
    pthread_mutex_unlock(&place.mutex);
    cr_assert(comes(has_lost, &place, 1));
    cr_assert(owner_release(owner));
    cr_assert_eq(strncmp(place.text, "svmfs-owner 7\n", 14), 0);
}
