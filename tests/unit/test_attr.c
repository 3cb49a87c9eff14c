#include <criterion/criterion.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "fs/attr.h"

Test(attr, device_numbers_survive)
{
    const unsigned pairs[][2] = {{0, 0}, {1, 3}, {7, 200}, {8, 255}, {8, 256}, {300, 70000}, {4095, 1048575}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        dev_t device = makedev(pairs[i][0], pairs[i][1]);
        cr_assert_eq(attr_decode_device(attr_encode_device(device)), device, "%u:%u", pairs[i][0], pairs[i][1]);
    }
    cr_assert_eq(attr_encode_device(makedev(1, 3)), 0x103);
    cr_assert_eq(attr_encode_device(makedev(8, 256)), 0x100800);
}

static struct node a_node(void)
{
    struct node node = {.id = 7, .known = true};
    node.st.st_ino = 7;
    node.st.st_mode = S_IFREG | 0640;
    node.st.st_nlink = 1;
    node.st.st_size = 1ll << 40;
    node.st.st_blocks = 3;
    node.st.st_uid = 1001;
    node.st.st_gid = 1002;
    node.st.st_atim = (struct timespec){-1, 5};
    node.st.st_mtim = (struct timespec){1ll << 32, 999999999};
    node.st.st_ctim = (struct timespec){3, 1};
    return node;
}

Test(attr, every_field_is_sent)
{
    struct node node = a_node();
    struct fuse_attr_out out;
    attr_answer(&out, &node, true);
    cr_assert_eq(out.attr_valid, ATTR_VALID_S);
    cr_assert_eq(out.attr.ino, 7);
    cr_assert_eq(out.attr.size, 1ull << 40);
    cr_assert_eq(out.attr.blocks, 3);
    cr_assert_eq((int64_t)out.attr.atime, -1);
    cr_assert_eq(out.attr.atimensec, 5);
    cr_assert_eq(out.attr.mtime, 1ull << 32);
    cr_assert_eq(out.attr.mtimensec, 999999999);
    cr_assert_eq(out.attr.ctime, 3);
    cr_assert_eq(out.attr.ctimensec, 1);
    cr_assert_eq(out.attr.mode, S_IFREG | 0640u);
    cr_assert_eq(out.attr.nlink, 1);
    cr_assert_eq(out.attr.uid, 1001);
    cr_assert_eq(out.attr.gid, 1002);
    cr_assert_eq(out.attr.blksize, ATTR_BLOCK);
}

Test(attr, what_may_change_is_not_kept_by_the_kernel)
{
    struct node node = a_node();
    struct fuse_entry_out entry;
    struct fuse_attr_out out;
    attr_entry(&entry, &node, true);
    cr_assert_eq(entry.nodeid, 7);
    cr_assert_eq(entry.generation, 1);
    cr_assert(entry.entry_valid == ATTR_VALID_S && entry.attr_valid == ATTR_VALID_S);
    attr_entry(&entry, &node, false);
    cr_assert(entry.entry_valid == ATTR_VALID_S && entry.attr_valid == 0);
    attr_answer(&out, &node, false);
    cr_assert_eq(out.attr_valid, 0);
    node.known = false;
    attr_entry(&entry, &node, true);
    cr_assert(entry.entry_valid == 0 && entry.attr_valid == 0);
    attr_answer(&out, &node, true);
    cr_assert_eq(out.attr_valid, 0);
}

Test(attr, each_flag_of_setattr)
{
    struct fuse_setattr_in in = {
        .mode = 0600, .uid = 5, .gid = 6, .atime = (uint64_t)-2, .atimensec = 7, .mtime = 8, .mtimensec = 9};
    struct stat st;
    in.valid = FATTR_MODE | FATTR_FH;
    cr_assert_eq(attr_changes(&in, &st), ATTRIBUTE_MODE);
    cr_assert_eq(st.st_mode, 0600);
    in.valid = FATTR_UID;
    cr_assert_eq(attr_changes(&in, &st), ATTRIBUTE_OWNER);
    cr_assert(st.st_uid == 5 && st.st_gid == (gid_t)-1);
    in.valid = FATTR_GID;
    cr_assert_eq(attr_changes(&in, &st), ATTRIBUTE_OWNER);
    cr_assert(st.st_uid == (uid_t)-1 && st.st_gid == 6);
    in.valid = FATTR_ATIME;
    cr_assert_eq(attr_changes(&in, &st), ATTRIBUTE_ATIME);
    cr_assert(st.st_atim.tv_sec == -2 && st.st_atim.tv_nsec == 7);
    in.valid = FATTR_MTIME | FATTR_MTIME_NOW | FATTR_ATIME | FATTR_ATIME_NOW;
    cr_assert_eq(attr_changes(&in, &st), ATTRIBUTE_ATIME | ATTRIBUTE_MTIME);
    cr_assert(st.st_atim.tv_nsec == UTIME_NOW && st.st_mtim.tv_nsec == UTIME_NOW);
    in.valid = FATTR_SIZE | FATTR_FH | FATTR_LOCKOWNER;
    cr_assert_eq(attr_changes(&in, &st), 0u);
    in.valid = FATTR_CTIME;
    cr_assert_eq(attr_changes(&in, &st), ATTRIBUTE_OWNER, "a chown to nobody new changes the change time");
    cr_assert(st.st_uid == (uid_t)-1 && st.st_gid == (gid_t)-1);
}

Test(attr, space_is_summed_in_one_unit)
{
    struct fuse_kstatfs sum;
    memset(&sum, 0, sizeof(sum));
    struct statvfs small = {
        .f_bsize = 4096, .f_frsize = 512, .f_blocks = 80, .f_bfree = 40, .f_bavail = 16, .f_files = 5, .f_ffree = 3};
    struct statvfs big = {.f_bsize = 1048576,
        .f_frsize = 1048576,
        .f_blocks = 1ull << 44,
        .f_bfree = 2,
        .f_bavail = 1,
        .f_files = 7,
        .f_ffree = 1};
    attr_add_space(&sum, &small);
    cr_assert(sum.blocks == 10 && sum.bfree == 5 && sum.bavail == 2);
    attr_add_space(&sum, &big);
    cr_assert_eq(sum.blocks, 10 + (1ull << 52));
    cr_assert(sum.bfree == 5 + 512 && sum.bavail == 2 + 256);
    cr_assert(sum.files == 12 && sum.ffree == 4);
    cr_assert(sum.bsize == ATTR_BLOCK && sum.frsize == ATTR_BLOCK && sum.namelen == 255);
}
