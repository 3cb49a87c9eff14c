/* fault: what the wrapping datastore and its images share. */
#pragma once

#include "backends/fault_rules.h"
#include "io/datastore.h"

/* datastore->state of an open fault datastore. */
struct fault {
    struct datastore inner; /* what is wrapped; its pool is its own, so that it works on while calls above it hang */
    struct fault_rules rules;
    struct reactor *reactor; /* of what lands late, and of the timer that looks at the file */
    struct timer timer;
    /* under mutex */
    pthread_mutex_t mutex;
    pthread_cond_t landed;
    unsigned ghosts;  /* that may still land */
    struct list late; /* those of them that wait for their time; changed on the reactor only */
};

/* datastore_ops.open_image, after its rules */
int fault_wrap_image(struct datastore *datastore, const char *path, struct image *inner, struct image **out);

/* On the fault's reactor: lands what is late now. */
void fault_land(struct fault *fault);
