/* owner_record: the text of an owner's record, and what is to be thought of one that was found. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backends/owner.h"

struct owner_record {
    uint64_t mount;     /* identity's */
    uint64_t processes; /* which space of process numbers keeper and worker are of; 0: unknown */
    uint64_t beat;
    int keeper, worker; /* process numbers; 0: unknown */
    bool held;
    char host[65], machine[33], boot[37];
    char mountpoint[256];
};

/* Always OWNER_RECORD bytes, filled up with newlines, so that one record can be written over another in place; numbers
 * that change have a fixed width. What would break a line is replaced by "?", a mountpoint without room is cut. */
void owner_encode(const struct owner_record *record, char text[OWNER_RECORD]);

/* 0; -ENOENT: there is none (nothing but zero bytes or white space); -EPROTO: a record, but of a later version, whose
 * beats can only be seen by its text's changing; -EINVAL: no record. */
int owner_decode(const char *text, size_t length, struct owner_record *record);

enum owner_verdict {
    OWNER_FREE,  /* nobody's */
    OWNER_OURS,  /* an earlier worker of this very mount */
    OWNER_DEAD,  /* both of its processes would have to be here, and are not */
    OWNER_OLD,   /* of an earlier boot of this machine, or of a copy of this machine: looked at for a short while */
    OWNER_OTHER, /* looked at for the whole while */
};

/* found against self; alive tells whether a process of this machine lives. */
enum owner_verdict owner_judge(
    const struct owner_record *found, const struct owner_record *self, bool (*alive)(int process));

/* How long a record with that verdict must stand still until it is stale; 0: at once. */
uint64_t owner_patience(enum owner_verdict verdict, uint64_t beat_ns);

/* Were both written by one mount, by the same life of it? */
bool owner_same(const struct owner_record *a, const struct owner_record *b);
