/* poison: a request that the worker dies of, again and again. */
#pragma once

#include "fs/filesystem.h"

/* Names it in the log: opcode, path, offset and length. On the channel's reactor, before it is answered. */
void poison_tell(struct filesystem *fs, struct slot *slot);
