/* fuzz-volume: damaged volumes are opened, looked through and changed. None may crash, hang, leak or reach beyond what it
 * was given (a build with sanitizers tells); what is opened without a word must be whole enough to be read.
 *
 *   fuzz-volume [--cases N] [--seed S] */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/volume/volume.h"
#include "base/log.h"
#include "mutate.h"
#include "volume_target.h"

static struct base bases[2]; /* unmounted; of a dead worker */
static struct ram rams[2];
static struct volume_sums sums;

static void one(uint64_t seed)
{
    struct random random = {seed};
    unsigned which = (unsigned)random_below(&random, 2);
    struct ram *ram = &rams[which];
    uint64_t size;
    mutate(&random, &bases[which], ram, &size);
    if (random_below(&random, 8) == 0)
        volume_target_probe(ram, size);
    volume_target(ram, size, 0, &sums);
    volume_target(ram, size, VOLUME_CHECK, &sums);
    if (random_below(&random, 4) == 0) {
        /* what was mended by writing it anew is whole */
        volume_target(ram, size, VOLUME_WRITABLE, &sums);
        volume_target(ram, size, 0, &sums);
    }
    ram_restore(ram);
}

int main(int argc, char **argv)
{
    log_open("fuzz-volume", false, LOG_LEVEL_ERROR);
    mallopt(M_MMAP_THRESHOLD, 1 << 28); /* memory is used again and not given back after each case */
    mallopt(M_TRIM_THRESHOLD, 1 << 29);
    for (int i = 0; i < 2; i++) {
        base_make(&bases[i], i == 0);
        if (!ram_open(&rams[i], bases[i].bytes, BASE_BYTES))
            return 1;
        unsigned long before = sums.found;
        volume_target(&rams[i], BASE_BYTES, VOLUME_CHECK, &sums);
        if (sums.opened != (unsigned)i + 1 || sums.found != before || (i == 1 && bases[i].commits == 0)) {
            printf("the volume to start from is none\n0 passed, 1 failed, 0 skipped\n");
            return 1;
        }
    }
    fuzz_silence();
    int status = fuzz_run(argc, argv, 2000, one);
    printf("%lu opened, %lu refused, %lu findings, %lu files removed\n", sums.opened, sums.refused, sums.found,
        sums.removed);
    for (int i = 0; i < 2; i++) {
        ram_close(&rams[i]);
        base_free(&bases[i]);
    }
    return status;
}
