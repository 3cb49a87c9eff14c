/* claim: the state directory belongs to one mount. The lock is the open file's, so it holds as long as keeper or worker
 * lives. */
#pragma once

#include "base/error.h"

/* Makes the directory if need be, locks it and writes down who holds it. Waits a little for a mount that is just
 * ending. A descriptor, or -errno: -EBUSY with a sentence that names the holder. */
int claim_state(const char *directory, const char *mountpoint, struct sentence *why);

/* Writes down that this process holds it now. 0 or -errno. */
int claim_sign(int fd, const char *mountpoint);
