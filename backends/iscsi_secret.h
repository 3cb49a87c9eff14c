/* A CHAP secret, from a file that nobody but its owner can read. */
#pragma once

#include "base/error.h"

/* RFC 7143 section 12.1.3 asks for 128 bits; libiscsi takes at most 255 bytes. */
#define LUN_SECRET_SIZE 256

/* The file's one line, without its newline. 0 or -errno with a sentence; the secret is never part of it. Blocks. */
int lun_secret_read(char out[static LUN_SECRET_SIZE], const char *name, const char *path, struct sentence *why);
