#include "backends/nfs_verifier.h"

#include <string.h>

#define NOTE_VERIFIER 0
#define NOTE_STATE    1
#define NOTE_FILES    2
#define STATE_KNOWN   1u
#define STATE_MIXED   2u

static unsigned bit_of(uint64_t fileid)
{
    return (unsigned)((fileid * 0x9e3779b97f4a7c15ull >> 32) % NFS_VERIFIER_BITS);
}

static _Atomic uint64_t *word_of(struct nfsds_verifier *verifier, unsigned bit)
{
    return datastore_note(verifier->datastore, NOTE_FILES + bit / 64);
}

void nfsds_verifier_init(struct nfsds_verifier *verifier, struct datastore *datastore)
{
    *verifier = (struct nfsds_verifier){.datastore = datastore};
    pthread_mutex_init(&verifier->mutex, NULL);
    uint64_t state = atomic_load(datastore_note(datastore, NOTE_STATE));
    verifier->inherited = atomic_load(datastore_note(datastore, NOTE_VERIFIER));
    verifier->inherited_mixed = (state & STATE_MIXED) != 0;
    for (unsigned i = 0; i < DATASTORE_NOTES - 2; i++)
        verifier->inherited_files[i] = state ? atomic_load(datastore_note(datastore, NOTE_FILES + i)) : 0;
}

void nfsds_verifier_destroy(struct nfsds_verifier *verifier)
{
    pthread_mutex_destroy(&verifier->mutex);
}

static bool any_inherited(const struct nfsds_verifier *verifier)
{
    for (unsigned i = 0; i < DATASTORE_NOTES - 2; i++)
        if (verifier->inherited_files[i])
            return true;
    return false;
}

/* What the next worker would have to know. What the worker before left counts as well. */
static void note(struct nfsds_verifier *verifier)
{
    bool inherits = any_inherited(verifier), mixed = verifier->behind > 0;
    uint64_t stamp = verifier->known ? verifier->current : verifier->inherited;
    if (inherits)
        mixed = mixed || verifier->inherited_mixed || stamp != verifier->inherited;
    bool known = verifier->known || inherits;
    /* Mixed in between: a reader of half a change is told too much, not too little. */
    atomic_store(datastore_note(verifier->datastore, NOTE_STATE), STATE_KNOWN | STATE_MIXED);
    atomic_store(datastore_note(verifier->datastore, NOTE_VERIFIER), stamp);
    atomic_store(
        datastore_note(verifier->datastore, NOTE_STATE), (known ? STATE_KNOWN : 0) | (mixed ? STATE_MIXED : 0));
}

bool nfsds_verifier_seen(struct nfsds_verifier *verifier, uint64_t stamp)
{
    pthread_mutex_lock(&verifier->mutex);
    bool first = !verifier->known, changed = !first && verifier->current != stamp;
    verifier->known = true;
    verifier->current = stamp;
    if (first || changed)
        note(verifier);
    pthread_mutex_unlock(&verifier->mutex);
    return changed;
}

void nfsds_uncommitted_init(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t fileid)
{
    unsigned bit = bit_of(fileid);
    pthread_mutex_lock(&verifier->mutex);
    *uncommitted = (struct nfsds_uncommitted){
        .fileid = fileid, .inherited = (verifier->inherited_files[bit / 64] >> bit % 64 & 1) != 0};
    pthread_mutex_unlock(&verifier->mutex);
}

static void add_locked(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted)
{
    unsigned bit = bit_of(uncommitted->fileid);
    atomic_store(&uncommitted->any, true);
    verifier->files[bit]++;
    verifier->files_all++;
    atomic_fetch_or(word_of(verifier, bit), 1ull << bit % 64);
}

void nfsds_uncommitted_add(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted)
{
    if (atomic_load(&uncommitted->any))
        return;
    pthread_mutex_lock(&verifier->mutex);
    if (!atomic_load(&uncommitted->any))
        add_locked(verifier, uncommitted);
    pthread_mutex_unlock(&verifier->mutex);
}

void nfsds_uncommitted_age(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted)
{
    pthread_mutex_lock(&verifier->mutex);
    if (atomic_load(&uncommitted->any) && !uncommitted->behind) {
        uncommitted->behind = true;
        verifier->behind++;
        note(verifier);
    }
    pthread_mutex_unlock(&verifier->mutex);
}

static void forget_inherited(struct nfsds_verifier *verifier, unsigned bit)
{
    verifier->inherited_files[bit / 64] &= ~(1ull << bit % 64);
    if (verifier->files[bit] == 0)
        atomic_fetch_and(word_of(verifier, bit), ~(1ull << bit % 64));
    note(verifier);
}

bool nfsds_uncommitted_inherited(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t stamp)
{
    bool kept = true;
    pthread_mutex_lock(&verifier->mutex);
    if (uncommitted->inherited) {
        kept = !verifier->inherited_mixed && verifier->inherited == stamp;
        uncommitted->inherited = false;
        forget_inherited(verifier, bit_of(uncommitted->fileid));
    }
    pthread_mutex_unlock(&verifier->mutex);
    return kept;
}

/* any is cleared before empty is asked: a write that is added meanwhile sees it cleared, or is seen by empty. */
void nfsds_uncommitted_settle(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t stamp,
    bool (*empty)(void *argument), void *argument)
{
    unsigned bit = bit_of(uncommitted->fileid);
    pthread_mutex_lock(&verifier->mutex);
    bool caught_up = uncommitted->behind && verifier->current == stamp;
    bool any = atomic_exchange(&uncommitted->any, false);
    if (any && !empty(argument)) {
        atomic_store(&uncommitted->any, true);
    } else if (any) {
        caught_up = uncommitted->behind;
        verifier->files_all--;
        if (--verifier->files[bit] == 0 && !(verifier->inherited_files[bit / 64] >> bit % 64 & 1))
            atomic_fetch_and(word_of(verifier, bit), ~(1ull << bit % 64));
    }
    if (caught_up) {
        uncommitted->behind = false;
        verifier->behind--;
        note(verifier);
    }
    pthread_mutex_unlock(&verifier->mutex);
}
