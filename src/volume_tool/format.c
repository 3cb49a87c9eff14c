#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "volume_tool/commands.h"
#include "volume_tool/guard.h"
#include "volume_tool/opened.h"

/* What lies behind the last whole extent is no volume's: whatever described the image there must not go on doing so. */
static int clear_rest(struct medium *medium)
{
    static const uint8_t zeroes[VOLUME_EXTENT];
    uint64_t size = atomic_load(&medium->image->size), end = size / VOLUME_EXTENT * VOLUME_EXTENT;
    return end == size ? 0 : carrier_write(&medium->carrier, end, size - end, zeroes);
}

static void tell(const struct arguments *arguments)
{
    struct superblock superblock;
    if (!opened_superblock(arguments, &superblock))
        return;
    uint64_t copy = 1 + superblock.journal_extents + 2ull * superblock.area_extents;
    printf("%s: a volume of %u MiB%s%s%s, %llu MiB of them for metadata\n", arguments->url, superblock.extents,
        superblock.label[0] ? " \"" : "", superblock.label, superblock.label[0] ? "\"" : "",
        (unsigned long long)(2 * copy));
}

/* Is there something that must not be overwritten? 0, or -errno with a sentence. what: what will be. */
static int guard(const struct arguments *arguments, struct sentence *what, struct sentence *why)
{
    struct medium medium;
    int error = medium_open(&medium, arguments, false, why);
    if (error)
        return error;
    int found = guard_look(&medium, what);
    if (found < 0) {
        *why = *what;
        medium_sentence(&medium, why);
    }
    if (found > 0 && !arguments->force)
        found = refuse(why, -EEXIST,
            "%s holds %s; nothing was changed. If nothing of it is needed any more, give --force", medium.url,
            what->text);
    medium_close(&medium);
    return found < 0 ? found : 0;
}

static int format(struct medium *medium, const struct arguments *arguments, struct sentence *why)
{
    struct sentence what = {""};
    struct superblock superblock;
    struct claim claim;
    int error = guard(arguments, &what, why);
    if (!error)
        error = claim_take(&claim, medium, opened_superblock(arguments, &superblock) ? &superblock : NULL, why);
    if (error)
        return error;
    /* its heart would go on beating in the old volume's heads */
    claim_release_record(&claim);
    const struct volume_format_options options = {
        .label = arguments->label, .node_bytes = arguments->names_size, .uid = geteuid(), .gid = getegid()};
    error = clear_rest(medium);
    if (error)
        refuse(why, error, "%s: %s", medium->url, error_text(error));
    else
        error = volume_format(medium->image, &options, why);
    medium_sentence(medium, why);
    claim_release(&claim);
    if (!error && *what.text)
        printf("%s: held %s, which is gone\n", medium->url, what.text);
    return error;
}

int command_format(const struct arguments *arguments, struct sentence *why)
{
    struct medium medium;
    if (medium_open(&medium, arguments, true, why) < 0)
        return STATUS_FAILED;
    int error = format(&medium, arguments, why);
    medium_close(&medium);
    if (!error)
        tell(arguments);
    return error ? STATUS_FAILED : STATUS_DONE;
}
