#include "fs/step.h"

#include <errno.h>
#include <stdlib.h>

struct step {
    struct disk_io io;
    struct request *request;
    void (*next)(struct request *request, const struct disk_io *io);
};

static void answered(struct disk_io *io)
{
    struct step *step = container_of(io, struct step, io);
    struct request *request = step->request;
    step->next(request, io);
    request_drop(request);
}

static void released(struct disk_io *io)
{
    free(container_of(io, struct step, io));
}

void step_disk(struct request *request, enum verb verb, unsigned flags, struct extent extent,
    void (*next)(struct request *request, const struct disk_io *io))
{
    struct step *step = calloc(1, sizeof(*step));
    if (!step) {
        struct disk_io failed = {.verb = verb, .extent = extent, .result = -ENOMEM};
        next(request, &failed);
        return;
    }
    step->request = request;
    step->next = next;
    step->io.verb = verb;
    step->io.flags = flags;
    step->io.extent = extent;
    step->io.answered = answered;
    step->io.released = released;
    request_hold(request);
    disk_submit(request->disk, &step->io);
}
