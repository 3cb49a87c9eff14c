/* The datastore backends, for the visible array in main.c. */
#pragma once

#include "io/datastore.h"

extern const struct datastore_ops backend_local;  /* local:/dir */
extern const struct datastore_ops backend_memory; /* memory: or memory:SIZE, e.g. memory:64M; gone when it is closed */
extern const struct datastore_ops backend_fault;  /* fault:URL-of-any-other; rules in the datastore's faults file */

/* What fault: may wrap; NULL-terminated. */
extern const struct datastore_ops *const backend_wrappable[];

/* Overlapping changes in flight on one image that "any check" rules saw in this process. */
unsigned backend_fault_overlaps(void);
