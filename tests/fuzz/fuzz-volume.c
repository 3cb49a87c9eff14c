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

static struct base bases[2]; /* unmounted; of a dead worker */
static struct ram rams[2];
static unsigned long opened, refused, found, removed;

struct looked {
    uint64_t written;
    char path[256]; /* of the last file */
};

static void say(void *argument, enum finding finding, const char *sentence)
{
    unsigned long *findings = argument;
    if (memchr(sentence, 0, SENTENCE_MAX) == sentence)
        fuzz_broken("a finding without a sentence\n");
    *findings += finding != FINDING_NOTE;
}

/* Each run, and a walk over the written blocks, which must come to its end. */
static int visit(void *argument, const char *path, const struct stat *st, const struct map *map, const char *content)
{
    struct looked *looked = argument;
    struct cursor cursor;
    uint64_t until = 0, steps = 0, end = 0;
    for (const struct run *run = map_from(map, 0, &cursor); run; run = map_next(map, &cursor)) {
        if (run->count == 0 || run->logical < end)
            fuzz_broken("\"%s\": runs overlap\n", path);
        end = (uint64_t)run->logical + run->count;
    }
    end *= VOLUME_BLOCKS;
    for (uint64_t block = 0, place; block < end && steps < 4096; block = until, steps++) {
        looked->written += map_written(map, block, end, &until, &place);
        if (until <= block)
            fuzz_broken("\"%s\": block %llu does not lead on\n", path, (unsigned long long)block);
    }
    if (S_ISLNK(st->st_mode) != (content != NULL))
        fuzz_broken("\"%s\": a symlink without content\n", path);
    if (S_ISREG(st->st_mode))
        snprintf(looked->path, sizeof(looked->path), "%s", path);
    return 0;
}

static void open_once(struct ram *ram, uint64_t size, unsigned flags)
{
    unsigned long findings = 0;
    const struct volume_findings tell = {say, &findings};
    struct sentence why = {""};
    struct volume *volume;
    struct looked looked = {0};
    struct image *image = ram_image(ram, size);
    int error = volume_open(&volume, image, NULL, flags, &tell, &why);
    found += findings;
    if (error) {
        if (why.text[0] == '\0')
            fuzz_broken("refused by %s without a sentence\n", error_name(error));
        image_close(image);
        refused++;
        return;
    }
    struct volume_summary summary;
    volume_summarise(volume, &summary);
    if (volume_visit(volume, visit, &looked) != 0)
        fuzz_broken("the visit ended early\n");
    if ((flags & VOLUME_WRITABLE) && looked.path[0]) {
        error = volume_remove(volume, looked.path);
        if (error)
            fuzz_broken("\"%s\" cannot be removed: %s\n", looked.path, error_text(error));
        removed++;
    }
    volume_close(volume);
    opened++;
}

static void probe(struct ram *ram, uint64_t size)
{
    struct image *image = ram_image(ram, size);
    struct superblock superblock;
    struct sentence why = {""};
    if (volume_probe(image, &superblock, &why) < 0 && why.text[0] == '\0')
        fuzz_broken("a probe failed without a sentence\n");
    image_close(image);
}

static void one(uint64_t seed)
{
    struct random random = {seed};
    unsigned which = (unsigned)random_below(&random, 2);
    struct ram *ram = &rams[which];
    uint64_t size;
    mutate(&random, &bases[which], ram, &size);
    if (random_below(&random, 8) == 0)
        probe(ram, size);
    open_once(ram, size, 0);
    open_once(ram, size, VOLUME_CHECK);
    if (random_below(&random, 4) == 0) {
        /* what was mended by writing it anew is whole */
        open_once(ram, size, VOLUME_WRITABLE);
        open_once(ram, size, 0);
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
        unsigned long before = found;
        open_once(&rams[i], BASE_BYTES, VOLUME_CHECK);
        if (opened != (unsigned)i + 1 || found != before || (i == 1 && bases[i].commits == 0)) {
            printf("the volume to start from is none\n0 passed, 1 failed, 0 skipped\n");
            return 1;
        }
    }
    fuzz_silence();
    int status = fuzz_run(argc, argv, 2000, one);
    printf("%lu opened, %lu refused, %lu findings, %lu files removed\n", opened, refused, found, removed);
    for (int i = 0; i < 2; i++) {
        ram_close(&rams[i]);
        base_free(&bases[i]);
    }
    return status;
}
