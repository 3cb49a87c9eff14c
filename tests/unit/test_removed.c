#include <criterion/criterion.h>
#include <errno.h>

#include "fs/removed.h"

static struct node node_of(uint64_t id)
{
    struct node node = {.id = id};
    node.st.st_ino = id;
    node.st.st_mode = S_IFDIR | 0755;
    node.st.st_nlink = 2;
    return node;
}

Test(removed, has_no_links_until_forgotten)
{
    struct removed *removed;
    struct node node = node_of(5), out;
    cr_assert_eq(removed_new(&removed), 0);
    cr_assert_eq(removed_get(removed, 5, &out), -ENOENT);
    removed_add(removed, &node);
    cr_assert_eq(removed_get(removed, 5, &out), 0);
    cr_assert(out.id == 5 && out.st.st_nlink == 0 && out.st.st_mode == node.st.st_mode && out.known);
    cr_assert_eq(removed_get(removed, 6, &out), -ENOENT);
    removed_forget(removed, 6);
    removed_forget(removed, 5);
    cr_assert_eq(removed_get(removed, 5, &out), -ENOENT);
    removed_free(removed);
}

Test(removed, can_be_changed)
{
    struct removed *removed;
    struct node node = node_of(5), out;
    struct stat st = {.st_mode = 0700, .st_uid = 9, .st_gid = (gid_t)-1, .st_mtim = {4, 5}};
    cr_assert_eq(removed_new(&removed), 0);
    node.st.st_gid = 3;
    removed_add(removed, &node);
    cr_assert_eq(removed_change(removed, 5, &st, ATTRIBUTE_MODE | ATTRIBUTE_OWNER | ATTRIBUTE_MTIME, &out), 0);
    cr_assert(out.st.st_mode == (S_IFDIR | 0700) && out.st.st_uid == 9 && out.st.st_gid == 3);
    cr_assert(out.st.st_mtim.tv_sec == 4 && out.st.st_mtim.tv_nsec == 5);
    cr_assert_eq(removed_change(removed, 6, &st, ATTRIBUTE_MODE, &out), -ENOENT);
    removed_free(removed);
}

Test(removed, is_bounded_and_the_oldest_goes)
{
    struct removed *removed;
    struct node out;
    cr_assert_eq(removed_new(&removed), 0);
    for (uint64_t id = 2; id < 20000; id++) {
        struct node node = node_of(id);
        removed_add(removed, &node);
    }
    cr_assert_eq(removed_get(removed, 2, &out), -ENOENT);
    cr_assert_eq(removed_get(removed, 19999, &out), 0);
    unsigned left = 0;
    for (uint64_t id = 2; id < 20000; id++)
        left += removed_get(removed, id, &out) == 0;
    cr_assert(left > 0 && left < 10000);
    removed_free(removed);
}
