/* The datastore backends, for the visible array in main.c. */
#pragma once

#include "io/datastore.h"

extern const struct datastore_ops backend_local;  /* local:/dir */
extern const struct datastore_ops backend_memory; /* memory: */
extern const struct datastore_ops backend_fault;  /* fault:URL-of-any-other; rules in the datastore's faults file */
