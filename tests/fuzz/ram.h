/* ram: a raw image in memory that is what it was again after each case. */
#pragma once

#include <stdbool.h>

#include "io/datastore.h"
#include "io/image.h"

#define RAM_PAGE 4096u

struct ram {
    uint8_t *bytes;      /* what a case sees */
    const uint8_t *kept; /* what it is again */
    uint64_t size;       /* of both */
    bool *touched;       /* per page */
    struct datastore *datastore;
};

/* kept: size bytes, a multiple of RAM_PAGE; they stay the caller's. False: no memory. */
bool ram_open(struct ram *ram, const uint8_t *kept, uint64_t size);
void ram_close(struct ram *ram);
/* The page is about to be changed. */
void *ram_page(struct ram *ram, uint64_t at);
void ram_restore(struct ram *ram);
/* An image of the first size bytes. */
struct image *ram_image(struct ram *ram, uint64_t size);
