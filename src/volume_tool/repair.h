/* repair: what is damaged in one copy is written anew from the other. Blocks. */
#pragma once

#include "volume_tool/arguments.h"

/* Claims the volume. 0 or -errno with a sentence. */
int repair_copies(const struct arguments *arguments, struct sentence *why);
