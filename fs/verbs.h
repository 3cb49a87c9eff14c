/* verbs: what svmfs does with each FUSE opcode, decided once; docs/verbs.md is this table for people. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct request;

/* Opcodes newer than the header that svmfs is built with. */
#define VERB_STATX              52u
#define VERB_COPY_FILE_RANGE_64 53u

enum verb_decision {
    VERB_SERVED,   /* by its handler */
    VERB_ANSWERED, /* at once with the error of the table, 0 included */
    VERB_SILENT,   /* the kernel waits for no reply */
    VERB_ENOSYS,   /* law 12: the kernel latches it and does without, which is harmless for these alone */
};

struct fuse_verb {
    uint32_t opcode;
    const char *name;
    enum verb_decision decision;
    int error;   /* VERB_ANSWERED */
    size_t body; /* bytes that must follow the header */
    void (*handle)(struct request *request);
};

/* Never NULL: an opcode that nobody knows has a decision too. */
const struct fuse_verb *verb_of(uint32_t opcode);

/* Law 12's list, for request_reply_enosys. */
bool verb_may_be_enosys(uint32_t opcode);
