#include <criterion/criterion.h>

#include "io/extent.h"

Test(extent, rounding)
{
    struct extent e = extent_round_out((struct extent){1, 4097}, 4096);
    cr_expect(e.start == 0 && e.end == 8192);
    e = extent_round_out((struct extent){4096, 8192}, 4096);
    cr_expect(e.start == 4096 && e.end == 8192);
    e = extent_round_out((struct extent){5, UINT64_MAX}, 4096);
    cr_expect(e.start == 0 && e.end > INT64_MAX, "the end must not wrap");
}

Test(extent, overlap_is_half_open)
{
    struct extent a = {0, 10}, b = {10, 20}, c = {9, 11};
    cr_expect(!extent_overlaps(a, b));
    cr_expect(extent_overlaps(a, c) && extent_overlaps(b, c));
    cr_expect(extent_empty(extent_intersect(a, b)));
    struct extent d = extent_intersect(a, c);
    cr_expect(d.start == 9 && d.end == 10);
}

Test(extent, aligned)
{
    cr_expect(extent_aligned((struct extent){512, 1024}, 512));
    cr_expect(!extent_aligned((struct extent){512, 1025}, 512));
    cr_expect(!extent_aligned((struct extent){1, 513}, 512));
}
