#include "backends/nfs_verifier.h"

#include <string.h>

#define NOTE_VERIFIER 0
#define NOTE_KNOWN    1
#define NOTE_UNSURE   2
#define NOTE_PLACES   4

_Static_assert(NOTE_UNSURE + NFS_PLACES / 64 == NOTE_PLACES && NOTE_PLACES + NFS_PLACES <= DATASTORE_NOTES,
    "the notes have room for the places");

static _Atomic uint64_t *unsure_word(const struct nfsds_verifier *verifier, unsigned n)
{
    return datastore_note(verifier->datastore, NOTE_UNSURE + n / 64);
}

/* The place as the next worker has to find it. */
static void note(struct nfsds_verifier *verifier, struct nfsds_place *place)
{
    unsigned n = (unsigned)(place - verifier->places);
    _Atomic uint64_t *fileid = datastore_note(verifier->datastore, NOTE_PLACES + n);
    if (!place->own && !place->inherited)
        *place = (struct nfsds_place){0};
    if (place->behind || place->lost)
        atomic_fetch_or(unsure_word(verifier, n), 1ull << n % 64);
    atomic_store(fileid, place->fileid);
    if (!place->behind && !place->lost)
        atomic_fetch_and(unsure_word(verifier, n), ~(1ull << n % 64));
}

static struct nfsds_place *find(struct nfsds_verifier *verifier, uint64_t fileid)
{
    for (unsigned n = 0; n < NFS_PLACES; n++)
        if (verifier->places[n].fileid == fileid)
            return &verifier->places[n];
    return NULL;
}

void nfsds_verifier_init(struct nfsds_verifier *verifier, struct datastore *datastore)
{
    *verifier = (struct nfsds_verifier){.datastore = datastore};
    pthread_mutex_init(&verifier->mutex, NULL);
    verifier->current = atomic_load(datastore_note(datastore, NOTE_VERIFIER));
    verifier->inherits = atomic_load(datastore_note(datastore, NOTE_KNOWN)) != 0;
    for (unsigned n = 0; n < NFS_PLACES; n++) {
        uint64_t fileid = atomic_load(datastore_note(datastore, NOTE_PLACES + n));
        bool unsure = atomic_load(unsure_word(verifier, n)) >> n % 64 & 1;
        if (fileid)
            verifier->places[n] = (struct nfsds_place){
                .fileid = fileid, .inherited = true, .lost = unsure || !verifier->inherits};
    }
}

void nfsds_verifier_destroy(struct nfsds_verifier *verifier)
{
    pthread_mutex_destroy(&verifier->mutex);
}

bool nfsds_verifier_seen(struct nfsds_verifier *verifier, uint64_t stamp)
{
    pthread_mutex_lock(&verifier->mutex);
    bool first = !verifier->known, other = verifier->current != stamp;
    bool changed = other && (!first || verifier->inherits);
    for (unsigned n = 0; changed && n < NFS_PLACES; n++) {
        struct nfsds_place *place = &verifier->places[n];
        place->behind = place->own > 0;
        place->lost = place->inherited;
        if (place->fileid)
            note(verifier, place);
    }
    verifier->known = true;
    verifier->current = stamp;
    if (first || changed) {
        atomic_store(datastore_note(verifier->datastore, NOTE_VERIFIER), stamp);
        atomic_store(datastore_note(verifier->datastore, NOTE_KNOWN), 1);
    }
    pthread_mutex_unlock(&verifier->mutex);
    return changed && !first;
}

void nfsds_verifier_forget(struct nfsds_verifier *verifier, uint64_t fileid)
{
    pthread_mutex_lock(&verifier->mutex);
    struct nfsds_place *place = find(verifier, fileid);
    if (place) {
        place->inherited = place->lost = false;
        note(verifier, place);
    }
    pthread_mutex_unlock(&verifier->mutex);
}

void nfsds_uncommitted_init(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t fileid)
{
    pthread_mutex_lock(&verifier->mutex);
    const struct nfsds_place *place = find(verifier, fileid);
    *uncommitted = (struct nfsds_uncommitted){.fileid = fileid, .inherited = place && place->inherited};
    pthread_mutex_unlock(&verifier->mutex);
}

bool nfsds_uncommitted_add(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted)
{
    if (atomic_load(&uncommitted->any))
        return true;
    pthread_mutex_lock(&verifier->mutex);
    struct nfsds_place *place = find(verifier, uncommitted->fileid);
    place = place ? place : find(verifier, 0);
    if (place) {
        place->fileid = uncommitted->fileid;
        place->own++;
        note(verifier, place);
        atomic_store(&uncommitted->any, true);
    }
    pthread_mutex_unlock(&verifier->mutex);
    return place;
}

bool nfsds_uncommitted_lost(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t stamp)
{
    if (!atomic_load(&uncommitted->inherited))
        return false;
    pthread_mutex_lock(&verifier->mutex);
    struct nfsds_place *place = find(verifier, uncommitted->fileid);
    bool lost = place && place->inherited && (place->lost || verifier->current != stamp);
    if (place && !lost) {
        place->inherited = false;
        note(verifier, place);
    }
    atomic_store(&uncommitted->inherited, lost);
    pthread_mutex_unlock(&verifier->mutex);
    return lost;
}

void nfsds_uncommitted_told(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted)
{
    nfsds_verifier_forget(verifier, uncommitted->fileid);
    atomic_store(&uncommitted->inherited, false);
}

/* any is cleared before empty is asked: a write that is added meanwhile sees it cleared, or is seen by empty. */
void nfsds_uncommitted_settle(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t stamp,
    bool (*empty)(void *argument), void *argument)
{
    pthread_mutex_lock(&verifier->mutex);
    struct nfsds_place *place = atomic_exchange(&uncommitted->any, false) ? find(verifier, uncommitted->fileid) : NULL;
    if (place && !empty(argument)) {
        atomic_store(&uncommitted->any, true);
        place->behind = place->behind && (place->own > 1 || verifier->current != stamp);
    } else if (place) {
        place->own--;
        place->behind = place->behind && place->own > 0;
    }
    if (place)
        note(verifier, place);
    pthread_mutex_unlock(&verifier->mutex);
}

void nfsds_uncommitted_end(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, bool removed)
{
    pthread_mutex_lock(&verifier->mutex);
    struct nfsds_place *place = find(verifier, uncommitted->fileid);
    bool any = atomic_exchange(&uncommitted->any, false);
    if (place && any) {
        place->own--;
        place->inherited = true;
        place->lost = place->lost || place->behind;
        place->behind = place->behind && place->own > 0;
    }
    if (place && removed)
        place->inherited = place->lost = false;
    if (place)
        note(verifier, place);
    pthread_mutex_unlock(&verifier->mutex);
}
