/* Errors: a negative errno for the program, a sentence for the person. */
#pragma once

#include <errno.h>
#include <stdarg.h>

#define SENTENCE_MAX 512

/* What a person reads of a failure: names the disk, the datastore and the leg. Empty text: no sentence was given. */
struct sentence {
    char text[SENTENCE_MAX];
};

/* Writes the sentence (why may be NULL) and returns error, which is a negative errno. Any thread, never blocks. */
int refuse(struct sentence *why, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* "No space left on device" for -ENOSPC; a static string, any thread. */
const char *error_text(int error);

/* Symbolic name, "ENOSPC" for -ENOSPC; "E?" when unknown. */
const char *error_name(int error);
