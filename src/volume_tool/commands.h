/* What svmfs-volume does, one function a command. Each returns the program's exit status; why has the sentence of a
 * failure (empty: everything was said). All block. */
#pragma once

#include "volume_tool/arguments.h"

enum status {
    STATUS_DONE = 0,
    STATUS_FAILED = 1,
    STATUS_COPY = 2,       /* check: one of two copies is damaged */
    STATUS_UNREADABLE = 3, /* check */
    STATUS_USAGE = 4,
};

int command_format(const struct arguments *arguments, struct sentence *why);
int command_check(const struct arguments *arguments, struct sentence *why);
int command_list(const struct arguments *arguments, struct sentence *why);
int command_grow(const struct arguments *arguments, struct sentence *why);
int command_rm(const struct arguments *arguments, struct sentence *why);
int command_dmtable(const struct arguments *arguments, struct sentence *why);
