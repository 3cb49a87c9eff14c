/* guard: is there somebody's data on a raw image? The one place that knows libblkid. Blocks. */
#pragma once

#include "volume_tool/medium.h"

/* 1: what says what is there ("an ext4 filesystem \"home\""); 0: nothing that is known; -errno with a sentence in what. */
int guard_look(struct medium *medium, struct sentence *what);
