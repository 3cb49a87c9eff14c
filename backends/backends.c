/* Which backends stand on which. */
#include "backends/backends.h"

const struct raw_ops *const backend_raws[] = {&raw_local, &raw_device, &raw_iscsi, NULL};

const struct datastore_ops *const backend_wrappable[] = {
    &backend_local, &backend_memory, &backend_nfs, &backend_volume, NULL};
