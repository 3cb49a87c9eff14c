/* talk: a link with calls that block, for what is done once: looking at a LUN, reservations, ending old sessions. Not
 * for a reactor. */
#pragma once

#include "backends/iscsi_link.h"
#include "backends/iscsi_sense.h"

struct lun_talk {
    struct lun_link link;
    uint64_t end; /* clock_now() units: nothing waits longer */
    bool reset;   /* a unit attention 29h was seen */
};

/* One command. in and out: at most one has memory. */
struct lun_command {
    uint8_t cdb[16];
    int cdb_size;
    void *in;
    const void *out;
    uint32_t length;
    uint32_t moved; /* bytes that came in */
    int key, code;  /* sense data of the last answer */
};

/* Logs in as session number. 0 or -errno with a sentence. */
int lun_talk_open(
    struct lun_talk *talk, const struct lun_account *account, unsigned number, uint64_t end, struct sentence *why);
void lun_talk_close(struct lun_talk *talk);

/* Sends it until the target did it or refused for good: 0 or -errno. -EOPNOTSUPP: it knows no such command. -EBUSY:
 * a reservation is in the way. */
int lun_talk_command(struct lun_talk *talk, struct lun_command *command);
