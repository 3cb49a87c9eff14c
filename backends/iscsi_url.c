#include "backends/iscsi_url.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN_MAX 80

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes [from, end) apart from its escapes. False: a wrong escape, a control character, or it is too long. */
static bool unescape(char *out, size_t size, const char *from, const char *end)
{
    size_t length = 0;
    while (from < end) {
        char c = *from++;
        if (c == '%') {
            int high = from < end ? hex(from[0]) : -1, low = from + 1 < end ? hex(from[1]) : -1;
            if (high < 0 || low < 0)
                return false;
            c = (char)(high << 4 | low);
            from += 2;
        }
        if ((unsigned char)c < 0x20 || c == 0x7f || length + 1 >= size)
            return false;
        out[length++] = c;
    }
    out[length] = 0;
    return true;
}

/* So much of it is repeated in a sentence. */
static int shown(const char *from, const char *end)
{
    return end - from < SHOWN_MAX ? (int)(end - from) : SHOWN_MAX;
}

static bool number(unsigned *out, const char *from, const char *end, unsigned most)
{
    uint64_t value = 0;
    if (from == end)
        return false;
    for (; from < end; from++) {
        if (*from < '0' || *from > '9')
            return false;
        value = value * 10 + (unsigned)(*from - '0');
        if (value > most)
            return false;
    }
    *out = (unsigned)value;
    return true;
}

static int parse_portal(struct lun_url *out, const char *name, const char *from, const char *end, struct sentence *why)
{
    const char *host_end, *colon;
    if (from < end && *from == '[') {
        host_end = memchr(from, ']', (size_t)(end - from));
        if (!host_end)
            return refuse(why, -EINVAL, "datastore %s: the portal's IPv6 address has no closing ]", name);
        from++;
        colon = host_end + 1;
    } else {
        colon = memchr(from, ':', (size_t)(end - from));
        host_end = colon = colon ? colon : end;
    }
    if (!unescape(out->host, sizeof(out->host), from, host_end) || !*out->host)
        return refuse(
            why, -EINVAL, "datastore %s: the url names no portal; write iscsi://host[:port]/target-name/lun", name);
    out->port = ISCSI_PORT;
    if (colon < end && (*colon != ':' || !number(&out->port, colon + 1, end, 65535) || out->port == 0))
        return refuse(why, -EINVAL, "datastore %s: the portal's port \"%.*s\" is none", name, shown(colon, end), colon);
    return 0;
}

static int parse_query(struct lun_url *out, const char *name, const char *query, struct sentence *why)
{
    while (*query) {
        const char *end = strchrnul(query, '&'), *equals = memchr(query, '=', (size_t)(end - query));
        size_t length = (size_t)((equals ? equals : end) - query);
        char value[LUN_NAME_MAX + 1] = "";
        if (!equals || !unescape(value, sizeof(value), equals + 1, end) || !*value)
            return refuse(why, -EINVAL, "datastore %s: \"%.*s\" in the url has no value or a wrong one", name,
                shown(query, end), query);
        if (length == 9 && memcmp(query, "initiator", length) == 0) {
            strcpy(out->initiator, value);
        } else if (length == 13 && memcmp(query, "header_digest", length) == 0) {
            out->header_digest = strcmp(value, "yes") == 0;
            if (!out->header_digest && strcmp(value, "no") != 0)
                return refuse(why, -EINVAL, "datastore %s: header_digest is yes or no, not \"%s\"", name, value);
        } else {
            return refuse(why, -EINVAL,
                "datastore %s: the url's key \"%.*s\" is not known; there are initiator and "
                "header_digest",
                name, shown(query, query + length), query);
        }
        query = *end ? end + 1 : end;
    }
    return 0;
}

/* RFC 7143 section 4.2.7: iqn., eui. and naa. are the types of names. */
static bool is_name(const char *text)
{
    if (strncmp(text, "iqn.", 4) != 0 && strncmp(text, "eui.", 4) != 0 && strncmp(text, "naa.", 4) != 0)
        return false;
    return text[4] && !strpbrk(text, " /\\,;&");
}

int lun_url_parse(struct lun_url *out, const char *name, const char *rest, struct sentence *why)
{
    memset(out, 0, sizeof(*out));
    if (strncmp(rest, "//", 2) != 0)
        return refuse(
            why, -EINVAL, "datastore %s: the url is not of the form iscsi://[user@]host[:port]/target-name/lun", name);
    const char *from = rest + 2, *query = strchrnul(from, '?');
    const char *slash = memchr(from, '/', (size_t)(query - from));
    const char *second = slash ? memchr(slash + 1, '/', (size_t)(query - slash - 1)) : NULL;
    if (!second)
        return refuse(
            why, -EINVAL, "datastore %s: the url is not of the form iscsi://[user@]host[:port]/target-name/lun", name);
    const char *at = memrchr(from, '@', (size_t)(slash - from));
    if (at) {
        if (!unescape(out->user, sizeof(out->user), from, at) || !*out->user)
            return refuse(why, -EINVAL, "datastore %s: the user's name in the url is empty or wrong", name);
        if (memchr(from, ':', (size_t)(at - from)))
            return refuse(why, -EINVAL,
                "datastore %s: the url seems to hold a password; name a file that holds it by password-file, and take "
                "it out of the url",
                name);
        from = at + 1;
    }
    int error = parse_portal(out, name, from, slash, why);
    if (error)
        return error;
    if (!unescape(out->target, sizeof(out->target), slash + 1, second) || !is_name(out->target))
        return refuse(why, -EINVAL,
            "datastore %s: \"%.*s\" is no target's name; it begins with iqn., eui. or naa. and the target lists it",
            name, shown(slash + 1, second), slash + 1);
    if (!number(&out->lun, second + 1, query, LUN_NUMBER_MAX))
        return refuse(why, -EINVAL, "datastore %s: \"%.*s\" is no LUN; it is a number from 0 to %u", name,
            shown(second + 1, query), second + 1, LUN_NUMBER_MAX);
    error = parse_query(out, name, *query ? query + 1 : query, why);
    if (!error && *out->initiator && !is_name(out->initiator))
        return refuse(why, -EINVAL, "datastore %s: the initiator's name \"%s\" does not begin with iqn., eui. or naa.",
            name, out->initiator);
    return error;
}

bool lun_url_move(struct lun_url *url, const char *portal)
{
    return parse_portal(url, "", portal, strchrnul(portal, ','), NULL) == 0;
}

const char *lun_url_portal(const struct lun_url *url, char out[static LUN_PORTAL_SIZE])
{
    bool v6 = strchr(url->host, ':') != NULL;
    snprintf(out, LUN_PORTAL_SIZE, "%s%s%s:%u", v6 ? "[" : "", url->host, v6 ? "]" : "", url->port);
    return out;
}

bool lun_url_numeric(const struct lun_url *url)
{
    unsigned char address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, url->host, address) == 1 || inet_pton(AF_INET6, url->host, address) == 1;
}

int lun_url_resolve(const struct lun_url *url, unsigned turn, char out[static LUN_PORTAL_SIZE])
{
    if (lun_url_numeric(url)) {
        lun_url_portal(url, out);
        return 0;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *found;
    if (getaddrinfo(url->host, NULL, &hints, &found) != 0)
        return -EADDRNOTAVAIL;
    unsigned count = 0;
    for (struct addrinfo *one = found; one; one = one->ai_next)
        count++;
    struct addrinfo *one = found;
    for (turn %= count; turn > 0; turn--)
        one = one->ai_next;
    char text[NI_MAXHOST];
    int error = getnameinfo(one->ai_addr, one->ai_addrlen, text, sizeof(text), NULL, 0, NI_NUMERICHOST);
    bool v6 = one->ai_family == AF_INET6;
    freeaddrinfo(found);
    if (error)
        return -EADDRNOTAVAIL;
    snprintf(out, LUN_PORTAL_SIZE, "%s%.256s%s:%u", v6 ? "[" : "", text, v6 ? "]" : "", url->port);
    return 0;
}
