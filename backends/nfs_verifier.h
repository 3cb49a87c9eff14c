/* nfs_verifier: which files have writes that no COMMIT has made durable yet, and whether the server's process that took
 * them still lives (law 10), for this process and, through the datastore's notes, for the next worker. A write verifier
 * names a life of the server: another one means that what was not committed may be gone.
 *
 * The notes (src/io/datastore.h): word 0 the verifier, word 1 is 1 when there is one; words 2 and 3: a bit for each
 * place whose file may have writes of an older life; from word 4 on: places, each the fileid of a file with uncommitted
 * writes, or 0. A bit is set before word 0 changes and before its place is taken, and cleared after: a worker that dies
 * in between leaves too much, not too little.
 *
 * A file keeps its place until all of it is durable, and what was lost has been told. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "io/datastore.h"

#define NFS_PLACES 128

/* fileid 0: free. */
struct nfsds_place {
    uint64_t fileid;
    unsigned own;   /* images with writes of this process */
    bool behind;    /* some of these bear an older verifier, maybe */
    bool inherited; /* nobody has copies of some writes: those of the workers before, or of an image that was closed */
    bool lost;      /* and they bore a verifier that is the server's no more */
};

struct nfsds_verifier {
    struct datastore *datastore;
    /* under mutex */
    pthread_mutex_t mutex;
    bool known;    /* current has been answered to this process; else it is the worker's before, if inherits */
    bool inherits; /* there was one */
    uint64_t current;
    struct nfsds_place places[NFS_PLACES];
};

/* A file's state, in its image. */
struct nfsds_uncommitted {
    uint64_t fileid;
    _Atomic bool any;       /* it has writes of this process that are not durable */
    _Atomic bool inherited; /* others were left by somebody: it is not known yet that they are durable, or not told that
                               they are lost */
};

/* Reads the notes of the worker before. */
void nfsds_verifier_init(struct nfsds_verifier *verifier, struct datastore *datastore);
void nfsds_verifier_destroy(struct nfsds_verifier *verifier);

/* An answer bore it. True: it differs from the one before, and there may be writes of this process to do again. */
bool nfsds_verifier_seen(struct nfsds_verifier *verifier, uint64_t stamp);

/* The file is new, or gone: whatever was known of its id is about another. */
void nfsds_verifier_forget(struct nfsds_verifier *verifier, uint64_t fileid);

void nfsds_uncommitted_init(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t fileid);
/* It has uncommitted writes: before the first of them is finished. False: there is no place left, it must have none. */
bool nfsds_uncommitted_add(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted);
/* A COMMIT of the whole file was answered under stamp. True: what was inherited is lost, and that was not told yet. */
bool nfsds_uncommitted_lost(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t stamp);
/* The loss was told. */
void nfsds_uncommitted_told(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted);
/* All that was written before is durable, under stamp. empty(argument): is nothing uncommitted left now? */
void nfsds_uncommitted_settle(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, uint64_t stamp,
    bool (*empty)(void *argument), void *argument);
/* Its image is closed, and the copies that it kept go; removed: so does the file. */
void nfsds_uncommitted_end(struct nfsds_verifier *verifier, struct nfsds_uncommitted *uncommitted, bool removed);
