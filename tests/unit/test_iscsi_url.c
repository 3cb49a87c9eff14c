#include <criterion/criterion.h>
#include <string.h>

#include "backends/iscsi_url.h"

static struct lun_url url;
static struct sentence why;

static int parse(const char *rest)
{
    why.text[0] = 0;
    return lun_url_parse(&url, "san", rest, &why);
}

static void refused(const char *rest, const char *part)
{
    cr_assert_eq(parse(rest), -EINVAL, "%s was taken", rest);
    cr_assert(strncmp(why.text, "datastore san: ", 15) == 0, "%s", why.text);
    cr_assert(strstr(why.text, part), "\"%s\" does not say \"%s\"", why.text, part);
}

Test(iscsi_url, whole)
{
    cr_assert_eq(parse("//joe@10.0.0.1:3333/iqn.2026-01.org.x:disk%3A1/12?initiator=iqn.y:z&header_digest=yes"), 0);
    cr_assert_str_eq(url.user, "joe");
    cr_assert_str_eq(url.host, "10.0.0.1");
    cr_assert_eq(url.port, 3333);
    cr_assert_str_eq(url.target, "iqn.2026-01.org.x:disk:1");
    cr_assert_eq(url.lun, 12);
    cr_assert_str_eq(url.initiator, "iqn.y:z");
    cr_assert(url.header_digest);
}

Test(iscsi_url, short_forms)
{
    char text[LUN_PORTAL_SIZE];
    cr_assert_eq(parse("//san.example.org/eui.0011223344556677/0"), 0);
    cr_assert_eq(url.port, ISCSI_PORT);
    cr_assert_str_empty(url.user);
    cr_assert_str_empty(url.initiator);
    cr_assert_not(url.header_digest);
    cr_assert_not(lun_url_numeric(&url));
    cr_assert_str_eq(lun_url_portal(&url, text), "san.example.org:3260");
    cr_assert_eq(parse("//[fe80::1]/naa.52004567BA64678D/16383?header_digest=no"), 0);
    cr_assert_str_eq(url.host, "fe80::1");
    cr_assert(lun_url_numeric(&url));
    cr_assert_str_eq(lun_url_portal(&url, text), "[fe80::1]:3260");
    cr_assert_eq(parse("//[::1]:99/iqn.a/1"), 0);
    cr_assert_eq(url.port, 99);
}

Test(iscsi_url, refused)
{
    refused("", "iscsi://");
    refused("127.0.0.1/iqn.a/1", "iscsi://");
    refused("//127.0.0.1", "iscsi://");
    refused("//127.0.0.1/iqn.a", "iscsi://");
    refused("///iqn.a/1", "portal");
    refused("//:3260/iqn.a/1", "portal");
    refused("//h:/iqn.a/1", "port");
    refused("//h:0/iqn.a/1", "port");
    refused("//h:65536/iqn.a/1", "port");
    refused("//h:33x/iqn.a/1", "port");
    refused("//[::1/iqn.a/1", "]");
    refused("//[::1]x/iqn.a/1", "port");
    refused("//h/disk/1", "target's name");
    refused("//h/iqn./1", "target's name");
    refused("//h/iqn.a%0a/1", "target's name");
    refused("//h/iqn.a%zz/1", "target's name");
    refused("//h/iqn.a/", "LUN");
    refused("//h/iqn.a/x", "LUN");
    refused("//h/iqn.a/16384", "LUN");
    refused("//h/iqn.a/99999999999999999999", "LUN");
    refused("//h/iqn.a/1/2", "LUN");
    refused("//@h/iqn.a/1", "user");
    refused("//joe:secret@h/iqn.a/1", "password-file");
    refused("//h/iqn.a/1?initiator", "initiator");
    refused("//h/iqn.a/1?initiator=", "initiator");
    refused("//h/iqn.a/1?initiator=host", "initiator");
    refused("//h/iqn.a/1?header_digest=maybe", "header_digest");
    refused("//h/iqn.a/1?colour=red", "colour");
    cr_assert_not(strstr(why.text, "secret"));
}

Test(iscsi_url, a_password_is_not_repeated)
{
    refused("//joe:hush@h/iqn.a/1", "password-file");
    cr_assert_not(strstr(why.text, "hush"));
}

Test(iscsi_url, too_long)
{
    char rest[2000] = "//h/iqn.";
    memset(rest + 8, 'a', 1000);
    strcpy(rest + 1008, "/1");
    refused(rest, "target's name");
}

Test(iscsi_url, redirection)
{
    cr_assert_eq(parse("//h/iqn.a/1"), 0);
    cr_assert(lun_url_move(&url, "192.0.2.7:3261,1"));
    cr_assert_str_eq(url.host, "192.0.2.7");
    cr_assert_eq(url.port, 3261);
    cr_assert(lun_url_move(&url, "[2001:db8::1]"));
    cr_assert_eq(url.port, ISCSI_PORT);
    cr_assert_str_eq(url.target, "iqn.a");
    cr_assert_not(lun_url_move(&url, "192.0.2.7:x"));
}

Test(iscsi_url, resolves)
{
    char text[LUN_PORTAL_SIZE];
    cr_assert_eq(parse("//127.0.0.1:77/iqn.a/1"), 0);
    cr_assert_eq(lun_url_resolve(&url, 3, text), 0);
    cr_assert_str_eq(text, "127.0.0.1:77");
}
