/* command: the text of a command, parsed. Pure but for the names of the datastores. */
#pragma once

#include "catalog/catalog.h"
#include "migrate/job.h"

#define COMMAND_MAX 480 /* bytes of a command's text */

/* A value as it came, made a string: -EINVAL with a sentence when it is empty, too long or no text. */
int command_text(const char *value, size_t size, char out[COMMAND_MAX + 1], struct sentence *why);

/* TARGET[,format=same|thin|thick][,rate=200M][,switchover=manual][,rescue=yes][,verify][,keep=2h][,latency=2ms]
 * [,deadline=30m][,paused]. -ENODEV: no such datastore; -EINVAL: bad option. */
int command_parse_migrate(struct catalog *catalog, const char *text, struct job_request *out, struct sentence *why);

/* The text that is parsed to the request again. */
void command_format(struct catalog *catalog, const struct job_request *request, char out[COMMAND_MAX + 1]);

enum command_verb {
    COMMAND_CANCEL,
    COMMAND_PAUSE,
    COMMAND_RESUME,
    COMMAND_SWITCHOVER,
    COMMAND_VERIFY,
    COMMAND_UNDO,
    COMMAND_RELEASE,
};

/* -EINVAL: unknown. */
int command_parse_control(const char *text, enum command_verb *out, struct sentence *why);
