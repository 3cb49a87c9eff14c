#include <criterion/criterion.h>
#include <string.h>

#include "fs/dirent.h"

static const struct fuse_dirent *at(const struct dirent_room *room, size_t offset)
{
    return (const void *)(room->data + offset);
}

Test(dirent, entries_follow_each_other_aligned)
{
    _Alignas(8) char data[256];
    memset(data, 0x55, sizeof(data));
    struct dirent_room room = {data, sizeof(data), 0};
    cr_assert(dirent_add(&room, NULL, 11, dirent_cookie(11), S_IFREG | 0644, "disk.img"));
    cr_assert(dirent_add(&room, NULL, 12, dirent_cookie(12), S_IFDIR | 0755, "a"));
    const struct fuse_dirent *first = at(&room, 0), *second = at(&room, FUSE_DIRENT_SIZE(first));
    cr_assert(first->ino == 11 && first->off == 12 && first->namelen == 8 && first->type == 8);
    cr_assert_eq(memcmp(first->name, "disk.img", 8), 0);
    cr_assert(second->ino == 12 && second->off == 13 && second->namelen == 1 && second->type == 4);
    cr_assert_eq(room.used, FUSE_DIRENT_SIZE(first) + FUSE_DIRENT_SIZE(second));
    for (size_t i = (size_t)(second->name - data) + 1; i < room.used; i++)
        cr_assert_eq(data[i], 0, "padding carries no old bytes");
}

Test(dirent, what_does_not_fit_changes_nothing)
{
    _Alignas(8) char data[64], before[64];
    for (size_t size = 0; size <= sizeof(data); size++) {
        memset(data, 0x55, sizeof(data));
        memcpy(before, data, sizeof(data));
        struct dirent_room room = {data, size, 0};
        bool fits = size >= 32; /* 24 bytes and a name of 5, aligned */
        cr_assert_eq(dirent_add(&room, NULL, 3, 4, S_IFIFO, "abcde"), fits, "size %zu", size);
        cr_assert_eq(room.used, fits ? 32 : 0);
        cr_assert_eq(memcmp(data + (fits ? 32 : 0), before, sizeof(data) - (fits ? 32 : 0)), 0);
    }
}

Test(dirent, plus_carries_the_entry)
{
    _Alignas(8) char data[1024];
    struct dirent_room room = {data, sizeof(data), 0};
    struct fuse_entry_out entry = {.nodeid = 9, .attr.size = 42};
    cr_assert(dirent_add(&room, &entry, 9, dirent_cookie(9), S_IFREG, "x"));
    const struct fuse_direntplus *plus = (const void *)data;
    cr_assert(plus->entry_out.nodeid == 9 && plus->entry_out.attr.size == 42);
    cr_assert(plus->dirent.ino == 9 && plus->dirent.namelen == 1 && plus->dirent.name[0] == 'x');
    cr_assert_eq(room.used, FUSE_DIRENTPLUS_SIZE(plus));
}

Test(dirent, cookies_go_on_after_their_entry)
{
    for (uint64_t id = 2; id < 1000; id++) {
        cr_assert_eq(dirent_after(dirent_cookie(id)), id);
        cr_assert_gt(dirent_cookie(id), DIRENT_AFTER_DOTDOT);
    }
    cr_assert_eq(dirent_after(0), 0);
    cr_assert_eq(dirent_after(DIRENT_AFTER_DOT), 0);
    cr_assert_eq(dirent_after(DIRENT_AFTER_DOTDOT), 0);
}
