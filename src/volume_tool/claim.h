/* claim: the tool as the volume's only user while it changes it: the device's reservation and the owner's record, as a
 * mount has them. All calls block. */
#pragma once

#include "backends/owner.h"
#include "volume_tool/medium.h"

struct claim {
    struct medium *medium;
    struct superblock superblock; /* says where the records lie */
    uint64_t key;                 /* of the reservation; 0: none */
    uint64_t number;              /* of the record's page */
    struct owner *owner;
};

/* superblock NULL: there is no volume yet, so only the reservation. 0; -EBUSY with a sentence that names the owner. May
 * take OWNER_STALE_NS and more, and says so. */
int claim_take(struct claim *claim, struct medium *medium, const struct superblock *superblock, struct sentence *why);
/* The record is free; the reservation stays until claim_release. */
void claim_release_record(struct claim *claim);
void claim_release(struct claim *claim);

/* Who uses it now? 1: out says ("in use by …"); 0: nobody; -errno. damaged: bit 1 << copy is set for each copy of the
 * record that is neither whole nor empty. */
int claim_look(struct medium *medium, const struct superblock *superblock, char *out, size_t size, unsigned *damaged);
