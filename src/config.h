/* config: what the configuration file and the mount options say, checked. Pure but for reading the file.
 * Format: INI (docs: svmfs(8)). [datastore NAME] url, timeout, threads, connections, password-file,
 * mutual-user, mutual-password-file, quiet, faults; [mount] default, state, reactors, jobs,
 * target-timeout, epoch, journal-faults, buffers. Every unknown section or key, bad value, double name, missing must-have is an error that
 * names file, line and key. Durations: 500ms, 30s, 2m; sizes: 64M, 1G; rates as sizes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "io/datastore.h"

#define CONFIG_DATASTORES_MAX 64

struct config {
    char *file;                                                 /* absolute */
    struct datastore_options datastores[CONFIG_DATASTORES_MAX]; /* strings are owned */
    unsigned datastore_count;
    char *default_datastore;    /* default: the first */
    char *state;                /* absolute directory; default /var/lib/svmfs/<name of the file without .conf> */
    unsigned reactors;          /* default: half the cores, 1 at least, 8 at most */
    unsigned jobs;              /* running at once; default 2 */
    uint64_t target_timeout_ns; /* default 5 s */
    uint64_t epoch_ns;          /* from one epoch of a job to the next; default 5 s */
    char *journal_faults;       /* file of rules for the jobs' journals, for trials; NULL: none */
    uint64_t buffers;           /* bytes of request buffers per reactor; default 64M */
};

/* -EINVAL with "FILE:LINE: …", or the file's own error. schemes: NULL-terminated, for the check of url. */
int config_load(struct config *config, const char *file, const char *const *schemes, struct sentence *why);
void config_free(struct config *config);

/* Prints it as a file that gives the same configuration; secrets are left out. */
void config_dump(const struct config *config, FILE *out);

/* "30s" → ns; "200M" → bytes. 0 or -EINVAL. Shared with the control surface. */
int config_parse_duration(const char *text, uint64_t *ns);
int config_parse_size(const char *text, uint64_t *bytes);
