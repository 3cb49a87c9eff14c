/* datastores: the mount's datastores, each opened by a thread of its own that tries until it is there. One that is away
 * or hangs is reported and delays nobody for longer than the patience given; when it comes later its names are scanned.
 */
#pragma once

#include "catalog/catalog.h"
#include "config.h"

struct datastores;

/* What every datastore is told of the mount. */
struct datastores_mount {
    struct identity identity;
    unsigned reactors;
    _Atomic uint64_t (*notes)[DATASTORE_NOTES]; /* by the datastore's index, CONFIG_DATASTORES_MAX of them */
};

/* Makes all, in the configuration's order, and waits until each was tried once, at most for patience_ns. 0 or -errno
 * with a sentence: a configuration that cannot be served; never because a datastore is away. */
int datastores_open(struct datastores **out, const struct config *config, const struct datastore_ops *const *backends,
    const struct datastores_mount *mount, uint64_t patience_ns, struct sentence *why);

/* The array, as catalog_open takes it. */
struct datastore **datastores_array(struct datastores *datastores);
unsigned datastores_count(const struct datastores *datastores);

/* The catalog is there: names of late ones go into it. Once. */
void datastores_publish(struct datastores *datastores, struct catalog *catalog);

/* Waits for those of which an earlier worker of the mount has left notes, at most for patience_ns: what that one wrote and
 * did not flush can be made durable by this mount alone. */
void datastores_await_noted(struct datastores *datastores, uint64_t patience_ns);

/* No thread begins anything with the catalog any more. Waits for those that do, at most for patience_ns; false: one
 * still hangs. Before catalog_close. */
bool datastores_settle(struct datastores *datastores, uint64_t patience_ns);

/* Each that is there makes durable what it holds back: a volume, the records of what was written. False: one of them does
 * not answer within patience_ns, and may be called still. After datastores_settle, whatever it returned. */
bool datastores_sync(struct datastores *datastores, uint64_t patience_ns);

/* After datastores_settle and datastores_sync were true, and after catalog_close. NULL is fine. */
void datastores_close(struct datastores *datastores);
