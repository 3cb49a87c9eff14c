/* nfs_verifier: which server process holds writes that no COMMIT has made durable yet (law 10), for this process and,
 * through the datastore's notes, for the next worker. A write verifier names a life of the server: another one means
 * that what was not committed may be gone.
 *
 * The notes (src/io/datastore.h): word 0 the verifier; word 1 bit 0: word 0 holds one, bit 1: uncommitted writes bear
 * several; words 2 to 7: a bit for each file with uncommitted writes, by a hash of its fileid (a collision makes a
 * spare bit, which costs at most one flush that fails after a worker's death and a server's, both). */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "io/datastore.h"

#define NFS_VERIFIER_BITS ((DATASTORE_NOTES - 2) * 64)

struct nfsds_verifier {
    struct datastore *datastore;
    /* under mutex */
    pthread_mutex_t mutex;
    bool known;
    uint64_t current;
    uint16_t files[NFS_VERIFIER_BITS]; /* with uncommitted writes of this process, by bit */
    unsigned files_all, behind;        /* behind: of them, those whose writes may bear an older verifier */
    /* of the workers before: */
    bool inherited_mixed;
    uint64_t inherited;
    uint64_t inherited_files[DATASTORE_NOTES - 2];
};

/* A file's state, in its image; under the verifier's mutex; what is atomic is also read without. */
struct nfsds_uncommitted {
    uint64_t fileid;
    _Atomic bool any;
    bool behind;
    _Atomic bool inherited; /* the worker before left uncommitted writes of it */
};

/* Reads the notes of the worker before. */
void nfsds_verifier_init(struct nfsds_verifier *verifier, struct datastore *datastore);
void nfsds_verifier_destroy(struct nfsds_verifier *verifier);

/* An answer bore it. True: it differs from the one before. */
bool nfsds_verifier_seen(struct nfsds_verifier *verifier, uint64_t stamp);

void nfsds_uncommitted_init(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t fileid);
/* It has uncommitted writes: before the first of them is finished. */
void nfsds_uncommitted_add(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted);
/* All of it bears an older verifier, maybe: for each file, after nfsds_verifier_seen said true. */
void nfsds_uncommitted_age(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted);
/* A COMMIT of the whole file was answered under stamp. False: what the worker before had not committed is lost; said
 * once. */
bool nfsds_uncommitted_inherited(
    struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t stamp);
/* All that was written before is durable, under stamp. empty(argument): is nothing uncommitted left now? */
void nfsds_uncommitted_settle(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t stamp,
    bool (*empty)(void *argument), void *argument);
