/* setting: one key of the configuration: its name, its kind, its bounds. Two tables of them, for the [mount] section
 * (and the mount options of the same names) and for [datastore NAME] sections. Pure. */
#pragma once

#include <stdio.h>

#include "config.h"

enum setting_section { SETTING_MOUNT, SETTING_DATASTORE };

/* The key's number in its section, -1: there is no such key. */
int setting_find(enum setting_section section, const char *key);

/* All keys of the section, for sentences: "url, timeout, …". */
void setting_keys(enum setting_section section, char *out, size_t size);

/* object: a struct config or a struct datastore_options. Replaces what was there. 0, or -EINVAL with a sentence that
 * begins with the key. */
int setting_apply(enum setting_section section, int number, void *object, const char *value, struct sentence *why);

/* What has no value yet and has a default that is the same everywhere gets it. */
void setting_defaults(enum setting_section section, void *object);

/* "key = value" lines of all that is set; apply(dump) gives the same object. */
void setting_dump(enum setting_section section, const void *object, FILE *out);

/* Frees the strings. */
void setting_clear(enum setting_section section, void *object);
