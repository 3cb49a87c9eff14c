#include "fs/handlers.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "fs/open.h"
#include "fs/removed.h"
#include "fs/space.h"

#define PATIENCE_NS (5 * NS_PER_S) /* with what runs in the background when the worker ends */

int handlers_open(struct filesystem *fs)
{
    fs->handlers = calloc(1, sizeof(*fs->handlers));
    if (!fs->handlers)
        return -ENOMEM;
    int error = removed_new(&fs->handlers->removed);
    if (!error)
        error = spaces_new(&fs->handlers->spaces, fs->catalog);
    if (!error)
        error = open_files_new(&fs->files, fs);
    if (error)
        handlers_close(fs);
    return error;
}

void handlers_close(struct filesystem *fs)
{
    if (!fs->handlers)
        return;
    open_files_free(fs->files, PATIENCE_NS);
    spaces_free(fs->handlers->spaces, PATIENCE_NS);
    removed_free(fs->handlers->removed);
    free(fs->handlers);
    fs->files = NULL;
    fs->handlers = NULL;
}
