/* What a target's answer to a command means for who sent it. */
#pragma once

#include <stdbool.h>

enum lun_verdict {
    LUN_DONE,
    LUN_AGAIN,       /* the same command at once: a unit attention was told, the command was not executed */
    LUN_LATER,       /* the same command after a pause: busy, queue full, aborted, becoming ready */
    LUN_RESET,       /* LUN_AGAIN, and what the target had in its cache may be gone */
    LUN_CHANGED,     /* LUN_AGAIN, and the capacity may be another one */
    LUN_CONFLICT,    /* another has the reservation */
    LUN_UNSUPPORTED, /* the target knows no such command, or not in this form */
    LUN_LOST,        /* the session is gone; nobody knows what became of the command */
    LUN_FAILED,      /* for good */
};

struct lun_answer {
    enum lun_verdict verdict;
    int error; /* LUN_FAILED, LUN_CONFLICT, LUN_UNSUPPORTED: -errno */
};

/* status: enum scsi_status of libiscsi; key, code: of the sense data, with code ASC << 8 | ASCQ. Pure. */
struct lun_answer lun_answer(int status, int key, int code);
