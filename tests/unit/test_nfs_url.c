#include <criterion/criterion.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "backends/nfs_url.h"

static struct nfsds_url good(const char *rest)
{
    struct nfsds_url url;
    struct sentence why = {""};
    cr_assert_eq(nfsds_url_parse(&url, "nas", rest, &why), 0, "%s: %s", rest, why.text);
    return url;
}

static void bad(const char *rest, const char *says)
{
    struct nfsds_url url;
    struct sentence why = {""};
    cr_assert_eq(nfsds_url_parse(&url, "nas", rest, &why), -EINVAL, "%s", rest);
    cr_assert(strstr(why.text, "datastore nas") && strstr(why.text, says), "%s: %s", rest, why.text);
}

Test(nfs_url, plain)
{
    struct nfsds_url url = good("//filer/vol/vms");
    cr_assert_str_eq(url.host, "filer");
    cr_assert_str_eq(url.path, "/vol/vms");
    cr_assert(url.nfs_port == 0 && url.mount_port == 0 && url.uid == -1 && url.gid == -1 && url.connections == 0);
}

Test(nfs_url, everything)
{
    struct nfsds_url url = good("//10.0.0.1:2050//a//b%20c/?mountport=20048&uid=0&gid=4294967294&connections=4");
    cr_assert_str_eq(url.host, "10.0.0.1");
    cr_assert_str_eq(url.path, "/a/b c");
    cr_assert(url.nfs_port == 2050 && url.mount_port == 20048 && url.uid == 0 && url.gid == 4294967294);
    cr_assert_eq(url.connections, 4);
    cr_assert_eq(good("//h/e?nfsport=7").nfs_port, 7);
    cr_assert_eq(good("//h:7/e?nfsport=7").nfs_port, 7);
    cr_assert_str_eq(good("//[::1]/e").host, "::1");
    cr_assert_eq(good("//[fe80::1]:99/e").nfs_port, 99);
    cr_assert_str_eq(good("//h/").path, "");
    cr_assert_str_eq(good("//h/e?").path, "/e");
    cr_assert_str_eq(good("//h/e/...").path, "/e/...");
}

Test(nfs_url, refused)
{
    char longer[2000] = "//h/";
    memset(longer + 4, 'x', sizeof(longer) - 5);
    bad("/e", "nfs://host");
    bad("//", "nfs://host");
    bad("//host", "nfs://host");
    bad("///e", "nfs://host");
    bad("//h:/e", "nfs://host");
    bad("//h:0/e", "nfs://host");
    bad("//h:65536/e", "nfs://host");
    bad("//h:7x/e", "nfs://host");
    bad("//user@h/e", "nfs://host");
    bad("//[::1/e", "nfs://host");
    bad("//[::1]x/e", "nfs://host");
    bad("//h/../e", "path");
    bad("//h/e/..", "path");
    bad("//h/./e", "path");
    bad("//h/%2e%2e/e", "path");
    bad("//h/%0", "path");
    bad("//h/%zz", "path");
    bad("//h/a%00b", "path");
    bad(longer, "path");
    bad("//h/e?nfsprt=3", "unknown key \"nfsprt\"");
    bad("//h/e?nfsport", "nfsport");
    bad("//h/e?nfsport=", "nfsport");
    bad("//h/e?mountport=65536", "mountport");
    bad("//h/e?uid=-1", "uid");
    bad("//h/e?uid=4294967295", "uid");
    bad("//h/e?connections=0", "connections");
    bad("//h/e?connections=9", "connections");
    bad("//h:1/e?nfsport=2", "two ports");
}

/* Any bytes: an answer, never more. */
Test(nfs_url, anything)
{
    static const char bytes[] = "/:@?&=%[].aeh0129nfsportuidgid\x80\xff";
    unsigned random = 1;
    for (unsigned i = 0; i < 200000; i++) {
        char rest[64] = "//h/";
        struct nfsds_url url;
        unsigned length = random >> 8 & 31;
        for (unsigned j = 0; j < length; j++) {
            random = random * 1664525u + 1013904223u;
            rest[(i & 1 ? 4 : 0) + j] = bytes[(random >> 16) % (sizeof(bytes) - 1)];
        }
        random = random * 1664525u + 1013904223u;
        rest[(i & 1 ? 4 : 0) + length] = '\0';
        if (nfsds_url_parse(&url, "nas", rest, NULL) == 0)
            cr_assert(url.host[0] && (url.path[0] == '/' || url.path[0] == '\0'));
    }
}
