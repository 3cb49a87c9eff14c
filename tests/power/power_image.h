/* power_image: a raw image in memory that can lose its power. What was written since the last flush is kept sector by sector; at the
 * loss any subset of it stays (a write of many sectors is torn), in any of the versions that a sector had. */
#pragma once

#include "io/image.h"

#define POWER_SECTOR 512u

struct power_image;

int power_new(struct power_image **out, struct datastore *datastore, uint64_t size);
void power_free(struct power_image *power);

/* For volume_open, which takes a reference over, and may be called again after each close. */
struct image *power_open(struct power_image *power);

/* Becomes what the other is, all of it durable. */
void power_copy(struct power_image *power, const struct power_image *from);

/* At the count-th change from now (1: the next; 0: never) the power is lost: from then on each verb fails with -EIO. share: of 256,
 * how many of the unflushed sectors stay. */
#define POWER_STOP 512u /* share: no power is lost, the image only stops to answer: all that was written stays */
void power_arm(struct power_image *power, uint64_t count, unsigned share, uint64_t seed);
/* Now. */
void power_lose(struct power_image *power);
void power_stop(struct power_image *power);
bool power_is_lost(struct power_image *power);
/* It is on again, with what stayed. */
void power_return(struct power_image *power);

/* Changes since the last arm. */
uint64_t power_changes(struct power_image *power);

/* Turns bytes over, durably. */
void power_damage(struct power_image *power, uint64_t at, uint64_t length);
/* From the next power_open on; not more than it was made with. */
void power_shrink(struct power_image *power, uint64_t size);

/* True: READs that come from now on wait, until false. */
void power_hold_reads(struct power_image *power, bool hold);

/* From now on so many of 256 changes and flushes wait for power_let_go. */
void power_hold_changes(struct power_image *power, unsigned share);
/* The oldest that waits goes on; false: none. Reactor's thread. */
bool power_let_go(struct power_image *power);
