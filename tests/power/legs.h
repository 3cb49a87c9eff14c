/* legs: what legs-power's two files share: the stand, and its guest with what it remembers. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"
#include "io/datastore.h"
#include "io/disk.h"
#include "io/mirror.h"
#include "migrate/copier.h"
#include "migrate/marks.h"
#include "power_files.h"
#include "power_image.h"

#define JOB      42
#define PARTIAL  "partial"
#define REGIONS  5u
#define SIZE     (REGIONS * REGION_SIZE)
#define SLOTS    16u /* sectors of a region that are written: half of them at its end */
#define SECTORS  (REGIONS * SLOTS)
#define HISTORY  64u
#define ASKED    12u
#define STEPS    240u
#define PATIENCE (30 * NS_PER_S)

struct version {
    uint64_t number, value; /* of the request; what a sector then holds */
};

/* What a sector may hold: the versions from the last on that is known to be durable. */
struct sector {
    struct version versions[HISTORY];
    unsigned count;
    uint64_t answered, durable; /* numbers */
};

struct asked {
    struct disk_io io;
    struct iovec iov;
    uint64_t number, before[SECTORS];
    unsigned first, count;
    bool used, own;
    atomic_bool answered, released;
    uint8_t *memory;
};

enum epoch { EPOCH_NONE, EPOCH_SETTLING, EPOCH_FLUSHING };

struct stand {
    struct datastore store;
    struct reactor *reactor;
    struct power_image *source, *target;
    struct image *source_image, *target_image;
    struct power_files *power;
    struct journal_files *files;
    struct disk *disk;
    struct marks *marks;
    struct mirror *mirror;
    struct copier *copier;
    enum epoch epoch;
    struct asked asked[ASKED];
    struct sector sectors[SECTORS];
    atomic_bool copied, diverged;
    uint64_t seed, random, number;
    unsigned long losses, deaths, drops, kept, anew, epochs, writes;
    bool verbose;
};

extern struct stand stand;

void broken(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint32_t pick(uint32_t count);
void must(int error);

/* The source's first content. */
void fill(void);
/* What the source has is what it may have, and counts from now on. */
void check_source(void);
/* And the target is its equal. */
void check_legs(void);

/* A request; no count of sectors: a flush. NULL: too many are under way. */
struct asked *ask(enum verb verb, unsigned first, unsigned count);
void send(struct asked *asked);
void guest_changes(void);
/* The reactor has its turn. */
void turn(void);
/* One answer of the leg. */
void let_go(struct power_image *power);
/* Until nothing is under way but the copier. */
void drain(void);
