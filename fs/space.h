/* space: what statfs(2) says of each datastore, kept for a second and fetched on the datastore's own pool, so that one
 * that hangs never delays df (law 14). Only an answer that was never had is waited for, and for a short time. */
#pragma once

#include "catalog/catalog.h"

struct spaces;

/* Asks every datastore at once. */
int spaces_new(struct spaces **out, struct catalog *catalog);
/* Waits until no question is under way, at most for timeout_ns. */
void spaces_free(struct spaces *spaces, uint64_t timeout_ns);
