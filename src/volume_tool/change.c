/* The commands that change a volume: grow, rm. */
#include <stdio.h>

#include "volume_tool/commands.h"
#include "volume_tool/opened.h"

static int end(struct opened *opened, int error, struct sentence *why)
{
    struct sentence closing = {""};
    int closed = opened_close(opened, &closing);
    if (!error && closed)
        *why = closing;
    return error || closed ? STATUS_FAILED : STATUS_DONE;
}

int command_grow(const struct arguments *arguments, struct sentence *why)
{
    struct opened opened;
    struct volume_summary summary;
    uint32_t extents = 0;
    if (opened_change(&opened, arguments, why) < 0)
        return STATUS_FAILED;
    struct medium *medium = &opened.medium;
    int error = medium->ops->refresh(medium->image);
    if (error)
        refuse(why, error, "%s: its size could not be asked: %s", medium->url, error_text(error));
    else
        error = volume_grow(opened.volume, &extents, why);
    if (error && *why->text == '\0')
        refuse(why, error, "%s: growing failed: %s", medium->url, error_text(error));
    medium_sentence(medium, why);
    volume_summarise(opened.volume, &summary);
    if (!error && extents == 0)
        printf("%s: the volume has all of it already: %u MiB\n", medium->url, summary.superblock.extents);
    else if (!error)
        printf("%s: %u MiB more, %u MiB now\n", medium->url, extents, summary.superblock.extents);
    return end(&opened, error, why);
}

int command_rm(const struct arguments *arguments, struct sentence *why)
{
    struct opened opened;
    if (opened_change(&opened, arguments, why) < 0)
        return STATUS_FAILED;
    int error = volume_remove(opened.volume, arguments->paths[0]);
    if (error)
        refuse(why, error, "%s: %s cannot be removed: %s", opened.medium.url, arguments->paths[0], error_text(error));
    return end(&opened, error, why);
}
