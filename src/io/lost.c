#include "io/lost.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PAGES (REGION_SIZE / LOST_PAGE)

bool lost_by(int error)
{
    switch (-error) {
    case EIO:
    case EREMOTEIO:
    case EILSEQ:
    case ENODATA:
    case EBADMSG:
    case EUCLEAN:
        return true;
    default:
        return false;
    }
}

/* Where the region is, or would be. */
static size_t find(const struct lost *lost, uint64_t region)
{
    size_t low = 0, high = lost->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (lost->list[middle].region < region)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool has(const struct lost_region *region, uint64_t page)
{
    return region->pages[page / 64] >> page % 64 & 1;
}

static bool is_empty(const struct lost_region *region)
{
    uint64_t any = 0;
    for (uint64_t i = 0; i < PAGES / 64; i++)
        any |= region->pages[i];
    return any == 0;
}

static int make_room(struct lost *lost, size_t more)
{
    if (lost->count + more <= lost->room)
        return 0;
    size_t room = lost->room * 2 > lost->count + more ? lost->room * 2 : lost->count + more;
    struct lost_region *list = realloc(lost->list, room * sizeof(*list));
    if (!list)
        return -ENOMEM;
    lost->list = list;
    lost->room = room;
    return 0;
}

static struct lost_region *region_at(struct lost *lost, uint64_t region)
{
    size_t at = find(lost, region);
    if (at == lost->count || lost->list[at].region != region) {
        memmove(lost->list + at + 1, lost->list + at, (lost->count - at) * sizeof(*lost->list));
        lost->list[at] = (struct lost_region){.region = region};
        lost->count++;
    }
    return &lost->list[at];
}

int lost_add(struct lost *lost, struct extent extent)
{
    if (extent_empty(extent))
        return 0;
    uint64_t first = extent.start / LOST_PAGE, last = (extent.end - 1) / LOST_PAGE;
    int error = make_room(lost, (size_t)(last / PAGES - first / PAGES + 1));
    for (uint64_t page = first; page <= last && !error; page++)
        region_at(lost, page / PAGES)->pages[page % PAGES / 64] |= 1ull << page % 64;
    return error;
}

void lost_remove(struct lost *lost, struct extent extent)
{
    uint64_t first = extent.start / LOST_PAGE + (extent.start % LOST_PAGE != 0), end = extent.end / LOST_PAGE;
    size_t kept = find(lost, first / PAGES);
    for (size_t i = kept; i < lost->count; i++) {
        struct lost_region region = lost->list[i];
        uint64_t base = region.region * PAGES;
        for (uint64_t page = 0; page < PAGES; page++)
            if (base + page >= first && base + page < end)
                region.pages[page / 64] &= ~(1ull << page % 64);
        lost->list[kept] = region;
        kept += !is_empty(&region);
    }
    lost->count = kept < lost->count ? kept : lost->count;
}

bool lost_overlaps(const struct lost *lost, struct extent extent)
{
    struct extent run;
    return !extent_empty(extent) && lost_run(lost, extent.start, &run) && run.start < extent.end;
}

bool lost_run(const struct lost *lost, uint64_t from, struct extent *out)
{
    uint64_t first = from / LOST_PAGE, page = first, end = 0;
    bool open = false;
    for (size_t i = find(lost, first / PAGES); i < lost->count; i++) {
        const struct lost_region *region = &lost->list[i];
        uint64_t base = region->region * PAGES;
        if (open && base != end)
            break;
        for (uint64_t n = base < first ? first - base : 0; n < PAGES; n++) {
            if (has(region, n)) {
                page = open ? page : base + n;
                end = base + n + 1;
                open = true;
            } else if (open) {
                goto found;
            }
        }
    }
found:
    *out = (struct extent){page * LOST_PAGE > from ? page * LOST_PAGE : from, end * LOST_PAGE};
    return open;
}

uint64_t lost_bytes(const struct lost *lost, uint64_t size, uint64_t *runs)
{
    uint64_t bytes = 0;
    struct extent run = {0, 0};
    *runs = 0;
    while (lost_run(lost, run.end, &run) && run.start < size) {
        bytes += extent_length(extent_intersect(run, (struct extent){0, size}));
        ++*runs;
    }
    return bytes;
}

int lost_copy(struct lost *to, const struct lost *from)
{
    *to = (struct lost){0};
    if (from->count == 0)
        return 0;
    int error = make_room(to, from->count);
    if (error)
        return error;
    memcpy(to->list, from->list, from->count * sizeof(*to->list));
    to->count = from->count;
    return 0;
}

void lost_free(struct lost *lost)
{
    free(lost->list);
    *lost = (struct lost){0};
}
