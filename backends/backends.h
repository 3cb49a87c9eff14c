/* The datastore backends, for the visible array in main.c. */
#pragma once

#include "io/datastore.h"
#include "io/raw.h"

extern const struct datastore_ops backend_local;  /* local:/dir */
extern const struct datastore_ops backend_memory; /* memory: or memory:SIZE, e.g. memory:64M; gone when it is closed */
extern const struct datastore_ops backend_fault;  /* fault:URL-of-any-other; rules in the datastore's faults file */

extern const struct datastore_ops backend_nfs;    /* nfs://host[:port]/export[/dir][?key=value&…] */
extern const struct datastore_ops backend_volume; /* volume:URL-of-a-raw-image */

/* What a volume may lie on; NULL-terminated. */
extern const struct raw_ops *const backend_raws[];
extern const struct raw_ops raw_local;  /* local:/file */
extern const struct raw_ops raw_device; /* device:/dev/node */
extern const struct raw_ops raw_iscsi;  /* iscsi://[user@]portal[:port]/iqn/lun[?key=value&…] */

/* What fault: may wrap; NULL-terminated. */
extern const struct datastore_ops *const backend_wrappable[];

/* Overlapping changes in flight on one image that "any check" rules saw in this process. */
unsigned backend_fault_overlaps(void);
