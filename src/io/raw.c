#include "io/raw.h"

#include <string.h>

int raw_open(struct datastore *datastore, const struct raw_ops *const *raws, const char *url, bool writable,
    struct image **out, const struct raw_ops **ops, struct sentence *why)
{
    const char *colon = strchr(url, ':');
    size_t length = colon ? (size_t)(colon - url) : 0;
    for (; colon && *raws; raws++) {
        if (strlen((*raws)->scheme) != length || memcmp((*raws)->scheme, url, length) != 0)
            continue;
        *ops = *raws;
        return (*raws)->open(datastore, colon + 1, writable, out, why);
    }
    return refuse(why, -EINVAL, "datastore %s: no raw image can be reached by \"%s\"", datastore->name, url);
}
