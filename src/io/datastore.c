#include "io/datastore.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct datastore_ops *find_backend(const struct datastore_ops *const *backends, const char *url)
{
    const char *colon = strchr(url, ':');
    if (!colon)
        return NULL;
    for (; *backends; backends++)
        if (strlen((*backends)->scheme) == (size_t)(colon - url) &&
            strncmp((*backends)->scheme, url, (size_t)(colon - url)) == 0)
            return *backends;
    return NULL;
}

static bool keep(const char **text)
{
    *text = *text ? strdup(*text) : NULL;
    return *text != NULL;
}

static int keep_options(struct datastore *datastore, const struct datastore_options *options)
{
    struct datastore_options *kept = &datastore->options;
    *kept = *options;
    kept->name = datastore->name;
    kept->url = datastore->url;
    kept->faults = datastore->faults;
    bool all = keep(&kept->password_file) == (options->password_file != NULL);
    all = (keep(&kept->mutual_user) == (options->mutual_user != NULL)) && all;
    all = (keep(&kept->mutual_password_file) == (options->mutual_password_file != NULL)) && all;
    return all ? 0 : -ENOMEM;
}

_Atomic uint64_t *datastore_note(struct datastore *datastore, unsigned number)
{
    return (datastore->notes ? datastore->notes : datastore->own_notes) + number;
}

int datastore_new(struct datastore **out, const struct datastore_options *options,
    const struct datastore_ops *const *backends, struct sentence *why)
{
    const struct datastore_ops *ops = find_backend(backends, options->url);
    if (!ops)
        return refuse(why, -EINVAL, "datastore %s: no backend for the url", options->name);
    if (strlen(options->name) > DATASTORE_NAME_MAX)
        return refuse(why, -EINVAL, "datastore %s: the name is too long", options->name);
    struct datastore *datastore = calloc(1, sizeof(*datastore));
    if (!datastore)
        return -ENOMEM;
    datastore->ops = ops;
    strcpy(datastore->name, options->name);
    datastore->url = strdup(options->url);
    datastore->faults = options->faults ? strdup(options->faults) : NULL;
    datastore->timeout_ns = options->timeout_ns;
    datastore->away = true;
    datastore->reactors = REACTORS_GUEST_MAX;
    int error = datastore->url && (!options->faults || datastore->faults) ? keep_options(datastore, options) : -ENOMEM;
    if (!error)
        error = pool_open(&datastore->pool, datastore->name, options->threads);
    if (error) {
        datastore_free(datastore);
        return error;
    }
    *out = datastore;
    return 0;
}

/* It is there when it also answers: what hangs here is away until it does, and nobody has to wait for it. */
int datastore_open(struct datastore *datastore, struct sentence *why)
{
    struct stat root;
    int error = datastore->ops->open(datastore, strchr(datastore->url, ':') + 1, why);
    if (error)
        return error;
    error = datastore->ops->lookup(datastore, "", &root);
    if (error) {
        datastore->ops->close(datastore);
        refuse(why, error, "datastore %s does not answer: %s", datastore->name, error_text(error));
    }
    datastore->away = error != 0;
    return error;
}

void datastore_free(struct datastore *datastore)
{
    if (!datastore)
        return;
    pool_close(datastore->pool);
    if (!datastore->away)
        datastore->ops->close(datastore);
    free((void *)datastore->options.password_file);
    free((void *)datastore->options.mutual_user);
    free((void *)datastore->options.mutual_password_file);
    free(datastore->url);
    free(datastore->faults);
    free(datastore);
}
