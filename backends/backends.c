/* Which backends stand on which. */
#include "backends/backends.h"

const struct raw_ops *const backend_raws[] = {NULL};

const struct datastore_ops *const backend_wrappable[] = {&backend_local, &backend_memory, NULL};
