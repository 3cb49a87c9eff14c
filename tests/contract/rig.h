/* What the contract's cases stand on: a datastore of one kind, two reactors, and calls that wait. The same cases run
 * under Criterion and, for sanitizers that it cannot live with, from a plain main: rig_fail and rig_skip are the
 * runner's. */
#pragma once

#include <pthread.h>
#include <stdio.h>

#include "io/datastore.h"

#define RIG_REACTORS 2

enum rig_kind { RIG_MEMORY, RIG_LOCAL, RIG_NFS, RIG_VOLUME, RIG_FAULT_MEMORY, RIG_FAULT_LOCAL, RIG_KINDS };

struct rig {
    enum rig_kind kind;
    struct reactor *reactors[RIG_REACTORS];
    struct datastore *datastore;
    char scratch[256]; /* a directory of this test's own; removed at the end */
    char faults[300];  /* the faults file, in scratch */
    char nfs[600];     /* the url of the export below which this test has a directory of its own */
};

/* An io that can be waited for. */
struct rig_io {
    struct io io;
    unsigned done;
    pthread_mutex_t mutex;
    pthread_cond_t ended;
};

/* Both do not return. */
void rig_fail(const char *file, int line, const char *what) __attribute__((noreturn));
void rig_skip(const char *reason) __attribute__((noreturn));

#define expect(condition)       ((condition) ? (void)0 : rig_fail(__FILE__, __LINE__, #condition))
#define expect_equal(got, want) rig_equal(__FILE__, __LINE__, #got, (long long)(got), (long long)(want))
void rig_equal(const char *file, int line, const char *what, long long got, long long want);

const char *rig_kind_name(enum rig_kind kind);
bool rig_is_local(const struct rig *rig);

void rig_open(struct rig *rig, enum rig_kind kind);
/* The same with room for about 16 MiB: a store in memory, or a small filesystem of its own (skips where that cannot
 * be). */
void rig_open_small(struct rig *rig, enum rig_kind kind);
void rig_close(struct rig *rig);

/* Replaces the faults file by one of this text. */
void rig_faults(struct rig *rig, const char *rules);

/* Makes a file of that size and opens it. */
struct image *rig_image(struct rig *rig, const char *name, uint64_t size);

/* Prepared by the caller: verb, flags, extent, iov. start submits it on a reactor, wait waits until done and gives the
 * result. */
void rig_start(struct rig *rig, unsigned reactor, struct image *image, struct rig_io *io);
int rig_wait(struct rig_io *io);
bool rig_ended(struct rig_io *io);

int rig_verb(struct rig *rig, struct image *image, enum verb verb, uint64_t start, uint64_t end, unsigned flags);
int rig_write(struct rig *rig, struct image *image, uint64_t start, const void *memory, size_t size, unsigned flags);
int rig_read(struct rig *rig, struct image *image, uint64_t start, void *memory, size_t size, unsigned flags);
/* True: the bytes [start, end) are all value. */
bool rig_all(struct rig *rig, struct image *image, uint64_t start, uint64_t end, int value, unsigned flags);

uint64_t rig_size(struct rig *rig, const char *name);
uint64_t rig_blocks(struct rig *rig, const char *name);

/* Page-aligned; ends the test when there is none. free() frees it. */
void *rig_memory(size_t size);
/* Bytes that tell where and whose they are. */
void rig_fill(void *memory, size_t size, unsigned seed);
