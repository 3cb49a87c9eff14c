#include "volume_target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/volume/volume.h"
#include "fuzz.h"

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

void volume_target(struct ram *ram, uint64_t size, unsigned flags, struct volume_sums *sums)
{
    unsigned long findings = 0;
    const struct volume_findings tell = {say, &findings};
    struct sentence why = {""};
    struct volume *volume;
    struct looked looked = {0};
    struct image *image = ram_image(ram, size);
    int error = volume_open(&volume, image, NULL, flags, &tell, &why);
    sums->found += findings;
    if (error) {
        if (why.text[0] == '\0')
            fuzz_broken("refused by %s without a sentence\n", error_name(error));
        image_close(image);
        sums->refused++;
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
        sums->removed++;
    }
    volume_close(volume);
    sums->opened++;
}

void volume_target_probe(struct ram *ram, uint64_t size)
{
    struct image *image = ram_image(ram, size);
    struct superblock superblock;
    struct sentence why = {""};
    if (volume_probe(image, &superblock, &why) < 0 && why.text[0] == '\0')
        fuzz_broken("a probe failed without a sentence\n");
    image_close(image);
}
