/* The parameters of persistent reservations, SPC-4 sections 6.15 and 6.16. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "backends/iscsi_talk.h"

#define LUN_RESERVE_KEYS 1024 /* bytes asked for */
#define LUN_RESERVE_LIST 24   /* bytes of PERSISTENT RESERVE OUT's parameter list */

/* What READ KEYS answered, next to key: how many are ours, how many are others', one of these. */
struct lun_keys {
    unsigned ours, others;
    uint64_t other;
};

struct lun_keys lun_keys_decode(const uint8_t *data, uint32_t size, uint64_t key);

/* What READ RESERVATION answered: the reservation's type; 0: there is none. */
unsigned lun_reservation_decode(const uint8_t *data, uint32_t size);

void lun_reserve_in(uint8_t cdb[static 16], unsigned action, uint32_t size);
void lun_reserve_out(
    uint8_t cdb[static 16], uint8_t list[static LUN_RESERVE_LIST], unsigned action, uint64_t key, uint64_t action_key);
