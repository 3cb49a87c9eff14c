/* identity: who this mount is, for datastores that others could use at the same time. */
#pragma once

#include "base/error.h"
#include "io/datastore.h"

/* Fills all but generation, takeover, keeper and mountpoint. The mount's number is random, made once per state directory
 * and kept in its file "identity", durably, before this returns. Blocks on the state directory's filesystem. 0 or -errno
 * with a sentence. */
int identity_load(struct identity *identity, const char *state_directory, struct sentence *why);
