#include "migrate/zeroes.h"

#include <string.h>

static bool all_zero(const uint8_t *bytes, size_t length)
{
    static const uint8_t none[16];
    if (length <= sizeof(none))
        return memcmp(bytes, none, length) == 0;
    return memcmp(bytes, none, sizeof(none)) == 0 && memcmp(bytes, bytes + sizeof(none), length - sizeof(none)) == 0;
}

uint64_t zeroes_run(const uint8_t *bytes, uint64_t position, uint64_t length, bool *zero)
{
    uint64_t end = position;
    for (bool first = true; end < length; first = false) {
        uint64_t page = length - end < ZEROES_PAGE ? length - end : ZEROES_PAGE;
        bool is = all_zero(bytes + end, page);
        if (first)
            *zero = is;
        else if (is != *zero)
            break;
        end += page;
    }
    return end;
}
