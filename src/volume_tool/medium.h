/* medium: the raw image that a volume lies on, as the tool reaches it: as the daemon does. All calls block.
 *
 * An image knows a reactor by its index as long as it lives: one medium is good for the tool's own carrier, and for one
 * call of volume_open, volume_probe or volume_format. */
#pragma once

#include "backends/volume/carrier.h"
#include "io/raw.h"
#include "volume_tool/arguments.h"

struct medium {
    char *url; /* of the raw image, with its scheme */
    struct datastore *datastore;
    struct image *image;
    const struct raw_ops *ops;
    struct carrier carrier; /* for what the tool itself reads and writes */
};

/* 0 or -errno with a sentence. */
int medium_open(struct medium *medium, const struct arguments *arguments, bool writable, struct sentence *why);
/* image NULL: somebody else closed it. */
void medium_close(struct medium *medium);

/* The sentence about the datastore becomes one about the url. */
void medium_sentence(const struct medium *medium, struct sentence *why);

/* "local", "device", "iscsi" */
const char *medium_scheme(const struct medium *medium);
/* What follows the scheme. */
const char *medium_rest(const struct medium *medium);
