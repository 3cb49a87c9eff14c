/* upgrade: the conversation in which a mount gets another program: who wants it, what that program says to the session
 * that it would get, and what became of it. The keeper's; it changes the workers itself. */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "fs/program.h"

enum upgrade_state {
    UPGRADE_NONE,
    UPGRADE_ASKING,   /* the new program is asked whether it can take the session */
    UPGRADE_ACCEPTED, /* it can: the keeper changes the workers, then says upgrade_end */
};

struct upgrade {
    enum upgrade_state state;
    int listener, client, answer; /* -1: none */
    struct program program;       /* the new one, until the keeper takes it */
    char version[64];             /* what it says of itself */
    uint64_t began;               /* ACCEPTED since, clock_now() */
    /* ASKING */
    pid_t child;
    char text[SENTENCE_MAX];
    size_t length;
    bool answered;
    int status;
    uint64_t deadline;
};

#define UPGRADE_POLLED 3

/* What the program is asked about. */
struct upgrade_question {
    int session;
    const char *config;
    const char *busy; /* why not now, as a sentence; NULL */
};

/* Listens for those who want another program for the mount with this device number. Without it the mount is served all
 * the same. */
void upgrade_open(struct upgrade *upgrade, dev_t device);
void upgrade_close(struct upgrade *upgrade);

/* Fills polled; then, after poll(2) or a second: true when the state became ACCEPTED. Never blocks. */
void upgrade_poll(const struct upgrade *upgrade, struct pollfd polled[UPGRADE_POLLED]);
bool upgrade_turn(
    struct upgrade *upgrade, const struct pollfd polled[UPGRADE_POLLED], const struct upgrade_question *question);

/* A child of this process ended; true when it was this one's. */
bool upgrade_reap(struct upgrade *upgrade, pid_t pid, int status);

/* How it ended, for who asked. */
void upgrade_end(struct upgrade *upgrade, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The other side: asks the keeper of the mount at mountpoint to serve it by this program; waits for the end. 0 with what
 * happened in *said, or -errno with why not. */
int upgrade_ask(const char *mountpoint, struct sentence *said);

/* And the question's: this program, started by a keeper with the session on UPGRADE_SESSION. Prints its version, or why
 * not. The exit status. */
#define UPGRADE_SESSION 3
int upgrade_answer(const char *message_version);
