/* libfuzzer-volume: changes to the metadata of a volume. The first byte says which volume and how (bits below), then a
 * change each: number of the page among those of the metadata (2 bytes), place in it (2), length (1), that many bytes; all
 * little endian. */
#include <string.h>

#include "backends/volume/volume.h"
#include "base/log.h"
#include "fuzz.h"
#include "mutate.h"
#include "volume_target.h"

#define DEAD  1 /* as a dead worker leaves it */
#define SEAL  2 /* the changed pages' checksums are right */
#define TWINS 4 /* both copies are changed */
#define WRITE 8 /* it is also opened for writing */

static struct base bases[2];
static struct ram rams[2];

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    log_open("libfuzzer", false, LOG_LEVEL_ERROR);
    for (int i = 0; i < 2; i++) {
        base_make(&bases[i], i == 0);
        if (!ram_open(&rams[i], bases[i].bytes, BASE_BYTES))
            fuzz_broken("no memory\n");
    }
    return 0;
}

static void change(
    const struct base *base, struct ram *ram, uint64_t at, size_t place, const uint8_t *bytes, size_t length, bool seal)
{
    struct page *page = ram_page(ram, at);
    memcpy((uint8_t *)page + place, bytes, length);
    if (seal)
        seal_page(base, page);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct volume_sums sums = {0};
    unsigned how = size ? bytes[0] : 0;
    const struct base *base = &bases[how & DEAD];
    struct ram *ram = &rams[how & DEAD];
    for (size_t at = 1, length; size >= 6 && at <= size - 5; at += 5 + length) {
        uint64_t page = base->pages[(bytes[at] | (unsigned)bytes[at + 1] << 8) % base->page_count];
        size_t place = (bytes[at + 2] | (unsigned)bytes[at + 3] << 8) % RAM_PAGE;
        length = bytes[at + 4];
        length = length < size - at - 5 ? length : size - at - 5;
        length = length < RAM_PAGE - place ? length : RAM_PAGE - place;
        change(base, ram, page, place, bytes + at + 5, length, how & SEAL);
        if (how & TWINS)
            change(base, ram, twin_of(base, page), place, bytes + at + 5, length, how & SEAL);
    }
    volume_target_probe(ram, BASE_BYTES);
    volume_target(ram, BASE_BYTES, 0, &sums);
    volume_target(ram, BASE_BYTES, VOLUME_CHECK, &sums);
    if (how & WRITE)
        volume_target(ram, BASE_BYTES, VOLUME_WRITABLE, &sums);
    ram_restore(ram);
    return 0;
}
