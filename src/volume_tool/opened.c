#include "volume_tool/opened.h"

#include <stdio.h>

#include "backends/volume/inside.h"

static void say(void *argument, enum finding finding, const char *sentence)
{
    const struct opened *opened = argument;
    if (finding != FINDING_NOTE)
        fprintf(stderr, "svmfs-volume: %s: %s\n", opened->medium.url, sentence);
}

static void say_nothing(void *argument, enum finding finding, const char *sentence)
{
}

static int open_volume(struct opened *opened, unsigned flags, struct sentence *why)
{
    const struct volume_findings findings = {say, opened};
    struct medium *medium = &opened->medium;
    int error = volume_open(&opened->volume, medium->image, medium->ops, flags, &findings, why);
    if (error && *why->text == '\0')
        refuse(why, error, "%s: %s", medium->url, error_text(error));
    medium_sentence(medium, why);
    return error;
}

bool opened_superblock(const struct arguments *arguments, struct superblock *out)
{
    const struct volume_findings nobody = {say_nothing, NULL};
    struct medium medium;
    struct volume *volume;
    struct volume_summary summary;
    struct sentence why;
    *out = (struct superblock){0};
    if (medium_open(&medium, arguments, false, &why) < 0)
        return false;
    if (volume_open(&volume, medium.image, medium.ops, VOLUME_CHECK, &nobody, &why) == 0) {
        volume_summarise(volume, &summary);
        *out = summary.superblock;
        volume_close(volume);
        medium.image = NULL;
    }
    medium_close(&medium);
    return out->extents > 0;
}

int opened_look(struct opened *opened, const struct arguments *arguments, struct sentence *why)
{
    struct volume_summary summary;
    char whom[400];
    unsigned damaged;
    *opened = (struct opened){0};
    int error = medium_open(&opened->medium, arguments, false, why);
    if (error)
        return error;
    error = open_volume(opened, 0, why);
    if (error) {
        medium_close(&opened->medium);
        return error;
    }
    volume_summarise(opened->volume, &summary);
    if (claim_look(&opened->medium, &summary.superblock, whom, sizeof(whom), &damaged) > 0)
        fprintf(stderr, "svmfs-volume: %s is %s: what is printed may have changed already\n", opened->medium.url, whom);
    return 0;
}

/* What cannot be opened is not claimed either: claiming writes. */
static int look_first(const struct arguments *arguments, struct superblock *out, struct sentence *why)
{
    struct opened opened = {0};
    struct volume_summary summary;
    int error = medium_open(&opened.medium, arguments, false, why);
    if (error)
        return error;
    error = open_volume(&opened, 0, why);
    if (!error) {
        volume_summarise(opened.volume, &summary);
        *out = summary.superblock;
        volume_close(opened.volume);
        opened.medium.image = NULL;
    }
    medium_close(&opened.medium);
    return error;
}

int opened_change(struct opened *opened, const struct arguments *arguments, struct sentence *why)
{
    struct superblock superblock;
    *opened = (struct opened){0};
    int error = medium_open(&opened->medium, arguments, true, why);
    if (error)
        return error;
    error = look_first(arguments, &superblock, why);
    if (!error)
        error = claim_take(&opened->claim, &opened->medium, &superblock, why);
    if (!error) {
        error = open_volume(opened, VOLUME_WRITABLE, why);
        if (error)
            claim_release(&opened->claim);
    }
    if (error)
        medium_close(&opened->medium);
    return error;
}

int opened_close(struct opened *opened, struct sentence *why)
{
    int error = volume_finish(opened->volume);
    if (error)
        refuse(why, error, "%s: the volume's metadata could not be written: %s", opened->medium.url, error_text(error));
    if (error == -ETIMEDOUT)
        return error; /* what is on its way may come back */
    claim_release(&opened->claim);
    image_close(opened->medium.image);
    opened->medium.image = NULL;
    volume_drop(opened->volume);
    medium_close(&opened->medium);
    return error;
}
