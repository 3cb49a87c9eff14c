/* What a keeper knows; shared by keeper.c (its life) and begin.c (how it comes to its mount). Nobody else's. */
#pragma once

#include "fs/keeper.h"
#include "fs/mount.h"
#include "fs/session.h"
#include "fs/upgrade.h"

struct keeper {
    const struct keeper_options *options;
    void (*ready)(void *argument);
    void *ready_argument;
    struct sentence *why;
    int lock, signals;
    struct fuse_mount fuse;
    struct session session;
    int clones[REACTORS_MAX];
    unsigned clone_count;
    bool waits_for_mount; /* the mount(8) that wants it can still be refused */
    bool last;            /* the worker is one that only ends what a dead one left */
    /* programs */
    struct program program, former; /* former: while the program is on trial */
    struct upgrade upgrade;
    uint64_t suspend_deadline; /* 0: the worker was not told to suspend */
    uint64_t trial_end;        /* 0: has not served yet */
    /* the worker */
    pid_t worker; /* 0: none */
    int socket;
    bool serving;
    uint64_t started, start_at; /* start_at: when the next is to be started, 0: not planned */
    unsigned quick_deaths;
    bool other_told;
    uint64_t beat;
    unsigned beats_missed;
    /* the end */
    pid_t unmounter;
    uint64_t unmount_deadline, stop_deadline;
    bool ending, done;
    int error;
    char refusal[SENTENCE_MAX]; /* of the last worker that could not serve */
};
