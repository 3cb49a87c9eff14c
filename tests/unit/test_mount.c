/* What is agreed with the kernel, and the mount options: pure parts of fs/mount.c. */
#include <criterion/criterion.h>

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#include "fs/mount.h"

static uint64_t agreed(const struct fuse_init_out *out)
{
    return out->flags | (uint64_t)out->flags2 << 32;
}

Test(mount, nothing_is_taken_that_was_not_offered)
{
    struct fuse_init_in in = {.major = 7, .minor = 31, .max_readahead = 131072};
    struct fuse_init_out out;
    mount_negotiate(&in, &out);
    cr_expect_eq(agreed(&out), 0);
    cr_expect_eq(out.max_pages, 0);
    cr_expect_eq(out.minor, 31);
    in.flags = FUSE_ASYNC_READ | FUSE_MAX_PAGES;
    in.flags2 = ~0u; /* without INIT_EXT it means nothing */
    mount_negotiate(&in, &out);
    cr_expect_eq(agreed(&out), (uint64_t)(FUSE_ASYNC_READ | FUSE_MAX_PAGES));
    cr_expect_eq(out.max_pages, 256);
}

Test(mount, what_would_hurt_is_never_taken)
{
    struct fuse_init_in in = {.major = 7, .minor = 99, .max_readahead = 131072, .flags = ~0u, .flags2 = ~0u};
    struct fuse_init_out out;
    mount_negotiate(&in, &out);
    uint64_t never = FUSE_ATOMIC_O_TRUNC | FUSE_AUTO_INVAL_DATA | FUSE_WRITEBACK_CACHE | FUSE_POSIX_LOCKS |
                     FUSE_FLOCK_LOCKS | FUSE_NO_OPEN_SUPPORT | FUSE_NO_OPENDIR_SUPPORT | FUSE_POSIX_ACL | 1ull << 39;
    cr_expect_eq(agreed(&out) & never, 0);
    cr_expect(agreed(&out) & FUSE_HANDLE_KILLPRIV_V2);
    cr_expect(agreed(&out) & 1ull << 36, "mmap of files with direct I/O");
    cr_expect_eq(out.max_write, 1u << 20);
    cr_expect_eq(out.max_background, 65535);
    cr_expect_eq(out.time_gran, 1);
    cr_expect_leq(out.minor, FUSE_KERNEL_MINOR_VERSION);
}

Test(mount, options_become_flags)
{
    unsigned long flags;
    char data[256];
    cr_assert_eq(mount_options_parse(
                     "ro,nosuid,nodev,noexec,noatime,defaults,_netdev,x-systemd.automount", &flags, data, sizeof(data)),
        0);
    cr_expect_eq(flags, (unsigned long)(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME));
    cr_expect_str_eq(data, "");
    cr_assert_eq(mount_options_parse("ro,nodev,rw,dev", &flags, data, sizeof(data)), 0);
    cr_expect_eq(flags, 0, "the last one counts");
    cr_assert_eq(mount_options_parse(NULL, &flags, data, sizeof(data)), 0);
    cr_expect_eq(flags, 0);
}

Test(mount, a_security_context_is_passed_on_and_has_bounds)
{
    unsigned long flags;
    char data[64];
    cr_assert_eq(mount_options_parse("context=system_u:object_r:x_t:s0,rw", &flags, data, sizeof(data)), 0);
    cr_expect_str_eq(data, ",context=system_u:object_r:x_t:s0");
    char small[16];
    cr_expect_eq(mount_options_parse("context=system_u:object_r:x_t:s0", &flags, small, sizeof(small)), -ENAMETOOLONG);
}
