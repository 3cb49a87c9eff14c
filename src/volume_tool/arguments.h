/* arguments: the command line of svmfs-volume, checked. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum command {
    COMMAND_FORMAT,
    COMMAND_CHECK,
    COMMAND_LIST,
    COMMAND_GROW,
    COMMAND_RM,
    COMMAND_DMTABLE,
    COMMANDS,
    COMMAND_HELP,
    COMMAND_VERSION,
};

struct arguments {
    enum command command;
    const char *url; /* as it was given */
    char **paths;    /* in the volume, without leading slashes */
    unsigned path_count;
    const char *label;   /* format */
    uint64_t names_size; /* format: bytes for names and attributes; 0: by the image's size */
    bool force;          /* format: over whatever is there */
    bool takeover;       /* format, grow, rm, check: though the volume is in use */
    bool repair_copies;  /* check */
    bool attributes;     /* list -l */
    bool dd;             /* dmtable */
    const char *device;  /* dmtable; NULL: by the url */
    const char *output;  /* dmtable --dd: the file that is made; NULL: the last part of the path */
    const char *password_file, *mutual_user, *mutual_password_file;
    uint64_t timeout_ns;
};

/* 0, or -EINVAL with a sentence. Points into argv. */
int arguments_parse(struct arguments *out, int argc, char **argv, struct sentence *why);

/* What --help prints. */
extern const char arguments_help[];
