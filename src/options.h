/* options: what stands after -o, sorted: the configuration's own keys, what mount(2) is to know, what only mount(8) and
 * fstab know, and what nobody knows (refused). */
#pragma once

#include "config.h"

#define OPTIONS_MAX 2048

struct options {
    char mount[OPTIONS_MAX];     /* for the keeper: "rw,nodev,…" */
    char overrides[OPTIONS_MAX]; /* "key=value" of [mount], each ended by a zero byte, the last by two */
    bool takeover;               /* of datastores that another mount uses */
};

/* Adds one -o argument. 0 or -EINVAL with a sentence. */
int options_add(struct options *options, const char *text, struct sentence *why);

/* The configuration's keys among them replace what the file says. 0 or -EINVAL with a sentence. */
int options_override(const struct options *options, struct config *config, struct sentence *why);

/* Whether the mount would stand in the way of its own datastores or state, or they in its own (the worker would wait
 * for itself). mountpoint is absolute and real. 0, or -EINVAL with a sentence. */
int options_check_places(const struct config *config, const char *mountpoint, struct sentence *why);
