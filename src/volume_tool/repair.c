/* A volume that is opened for writing writes all of its metadata anew, in both copies; but for the superblocks, which
 * are written by format and grow alone, and here. One head after the other, so that one is good in every moment. */
#include "volume_tool/repair.h"

#include <string.h>

#include "volume_tool/opened.h"

static const uint32_t places[] = {HEAD_SUPERBLOCK, HEAD_TWIN};

static int repair_head(struct carrier *carrier, const struct superblock *superblock, uint32_t head)
{
    struct page __attribute__((aligned(VOLUME_BLOCK))) good, found;
    bool written = false;
    memset(&good, 0, sizeof(good));
    superblock_encode(superblock, &good);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        uint64_t at = (uint64_t)head * VOLUME_EXTENT + places[i];
        int error = carrier_read(carrier, at, sizeof(found), &found);
        struct superblock there;
        if (!error && superblock_decode(&found, &there) == 0 && there.sequence == superblock->sequence)
            continue;
        error = carrier_write(carrier, at, sizeof(good), &good);
        if (error)
            return error;
        written = true;
    }
    return written ? carrier_flush(carrier) : 0;
}

int repair_copies(const struct arguments *arguments, struct sentence *why)
{
    struct opened opened;
    struct volume_summary summary;
    int error = opened_change(&opened, arguments, why);
    if (error)
        return error;
    volume_summarise(opened.volume, &summary);
    for (int copy = 0; copy < 2 && !error; copy++)
        error = repair_head(&opened.medium.carrier, &summary.superblock, summary.superblock.head[copy]);
    if (error)
        refuse(why, error, "%s: a superblock could not be written: %s", opened.medium.url, error_text(error));
    struct sentence closing = {""};
    int closed = opened_close(&opened, &closing);
    if (!error && closed)
        *why = closing;
    return error ? error : closed;
}
