/* The inside of control, for control.c and take_up.c. */
#pragma once

#include "control/control.h"
#include "migrate/job.h"
#include "migrate/journal.h"

struct board;
struct scrubs;

struct control {
    struct catalog *catalog;
    struct control_disks disks;
    struct board *board;
    struct scrubs *scrubs;
    struct journal_files *journals;
    struct job_services services;
    _Atomic bool ending;
};

/* Makes the record, if it has none, and the job, and hands it to the board. 0 or -errno. Blocks. */
int control_add_job(
    struct control *control, const struct job_request *request, struct job_record *record, const struct origin *origin);
/* All records are jobs again; journals of no job go. Before the first request is served. 0 or -errno. Blocks. */
int control_take_up_all(struct control *control);
