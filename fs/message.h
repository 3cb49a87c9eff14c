/* message: what keeper and worker say to each other, over a SOCK_SEQPACKET pair that dies with either. */
#pragma once

#include <limits.h>
#include <stdint.h>

#include "base/error.h"
#include "io/reactor.h"

#define MESSAGE_VERSION 1

enum message_kind {
    MESSAGE_HELLO = 1, /* keeper: descriptors, paths */
    MESSAGE_STOP,      /* keeper: finish what runs and end */
    MESSAGE_SERVING,   /* worker */
    MESSAGE_REFUSED,   /* worker: cannot serve: error and text */
    MESSAGE_GONE,      /* worker: the mount is gone */
    MESSAGE_SUSPEND,   /* keeper: read no more, let what runs end if it does soon, and end: the next one is waiting */
    MESSAGE_UPGRADE,   /* svmfs --upgrade: its program as the one descriptor */
    MESSAGE_UPGRADED,  /* keeper: error and text */
};

/* MESSAGE_HELLO's descriptors, in this order; then one clone for each reactor. */
enum { HELLO_SESSION, HELLO_LOCK, HELLO_FUSE, HELLO_CLONES };

#define MESSAGE_DESCRIPTORS (HELLO_CLONES + REACTORS_MAX)

struct message {
    uint32_t version, kind;
    int32_t error;
    char text[SENTENCE_MAX];
    char config[PATH_MAX], mountpoint[PATH_MAX]; /* MESSAGE_HELLO */
};

/* 0 or -errno. */
int message_send(int socket, const struct message *message, const int *descriptors, unsigned count);
int message_say(int socket, enum message_kind kind);

/* 1: one came; 0: the other side is gone; -EAGAIN where the socket does not block; -errno. count descriptors were put
 * into descriptors (MESSAGE_DESCRIPTORS of room). */
int message_receive(int socket, struct message *message, int *descriptors, unsigned *count);
