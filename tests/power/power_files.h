/* power_files: a medium for journals, in memory, that can lose its power. Of a file, what was written since its last sync
 * is kept sector by sector; at the loss any subset of it stays, in any of the versions that a sector had, the length is
 * anything between the two, and what was never written there may be what another file had there before. Of the directory,
 * any subset of the changes since its last sync stays, each whole. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migrate/journal_files.h"

#define POWER_FILES_STOP 512u /* share: no power is lost, the calls only fail from then on: all that was done stays */

struct power_files;

struct power_files *power_files_new(void);
void power_files_free(struct power_files *power);
/* For journal_create and the others. Its files are closed before power_files_return. */
struct journal_files *power_files_of(struct power_files *power);

/* At the count-th change from now (1: the next; 0: never) the power is lost: from then on each call fails with -EIO.
 * share: of 256, how many of the changes that were not synced stay. */
void power_files_arm(struct power_files *power, uint64_t count, unsigned share, uint64_t seed);
void power_files_lose(struct power_files *power);
bool power_files_lost(const struct power_files *power);
/* It is on again, with what stayed. */
void power_files_return(struct power_files *power);
/* Since the last arm. */
uint64_t power_files_changes(const struct power_files *power);

/* What stands there now; NULL: nothing. */
const uint8_t *power_files_get(struct power_files *power, const char *name, size_t *length);
/* Durably. False: no memory. */
bool power_files_set(struct power_files *power, const char *name, const uint8_t *bytes, size_t length);
