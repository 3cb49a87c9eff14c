#include "backends/nfs_url.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SHOWN 200 /* bytes of what is wrong */
#define FORM  "nfs://host[:port]/export[/directory][?nfsport=N&mountport=N&uid=N&gid=N&connections=N]"

static bool number(const char *text, const char *end, long least, long most, long *out)
{
    char *stop;
    if (text == end || *text < '0' || *text > '9')
        return false;
    errno = 0;
    *out = strtol(text, &stop, 10);
    return !errno && stop == end && *out >= least && *out <= most;
}

/* host, host:port, [v6], [v6]:port */
static bool take_authority(struct nfsds_url *url, const char *text, const char *end)
{
    const char *host = text, *host_end, *after;
    if (text < end && *text == '[') {
        host = text + 1;
        host_end = memchr(host, ']', (size_t)(end - host));
        if (!host_end)
            return false;
        after = host_end + 1;
    } else {
        host_end = memchr(text, ':', (size_t)(end - text));
        host_end = host_end ? host_end : end;
        after = host_end;
    }
    size_t length = (size_t)(host_end - host);
    if (length == 0 || length >= sizeof(url->host) || memchr(host, '@', length))
        return false;
    memcpy(url->host, host, length);
    long port = 0;
    if (after < end && (*after != ':' || !number(after + 1, end, 1, 65535, &port)))
        return false;
    url->nfs_port = (int)port;
    return true;
}

static int hex(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static bool is_dots(const char *component, size_t length)
{
    return (length == 1 && component[0] == '.') || (length == 2 && component[0] == '.' && component[1] == '.');
}

/* Slashes in a row are one; "." and ".." are refused. */
static bool take_path(struct nfsds_url *url, const char *text, const char *end)
{
    size_t used = 0, component = 0;
    for (; text < end; text++) {
        char byte = *text;
        if (byte == '%') {
            if (end - text < 3 || hex(text[1]) < 0 || hex(text[2]) < 0)
                return false;
            byte = (char)(hex(text[1]) << 4 | hex(text[2]));
            text += 2;
        }
        if (byte == '\0' || used + 2 >= sizeof(url->path))
            return false;
        if (byte == '/') {
            if (is_dots(url->path + component, used - component))
                return false;
            if (used > 0 && url->path[used - 1] == '/')
                continue;
            component = used + 1;
        }
        url->path[used++] = byte;
    }
    if (is_dots(url->path + component, used - component))
        return false;
    while (used > 0 && url->path[used - 1] == '/')
        used--;
    url->path[used] = '\0';
    return true;
}

static int take_key(struct nfsds_url *url, const char *name, const char *text, const char *end, struct sentence *why)
{
    const char *equals = memchr(text, '=', (size_t)(end - text)), *value = equals ? equals + 1 : end;
    size_t length = (size_t)((equals ? equals : end) - text);
    long got = 0;
    const struct {
        const char *key;
        long least, most;
    } keys[] = {{"nfsport", 1, 65535}, {"mountport", 1, 65535}, {"uid", 0, UINT32_MAX - 1l},
        {"gid", 0, UINT32_MAX - 1l}, {"connections", 1, NFS_CONNECTIONS_MAX}};
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strlen(keys[i].key) != length || strncmp(keys[i].key, text, length) != 0)
            continue;
        if (!number(value, end, keys[i].least, keys[i].most, &got))
            return refuse(why, -EINVAL, "datastore %s: %s in the url must be a number from %ld to %ld, not \"%.*s\"",
                name, keys[i].key, keys[i].least, keys[i].most, (int)(end - value), value);
        if (i == 0 && url->nfs_port && url->nfs_port != got)
            return refuse(why, -EINVAL, "datastore %s: the url says two ports of the NFS server, :%d and nfsport=%ld",
                name, url->nfs_port, got);
        switch (i) {
        case 0:
            url->nfs_port = (int)got;
            return 0;
        case 1:
            url->mount_port = (int)got;
            return 0;
        case 2:
            url->uid = got;
            return 0;
        case 3:
            url->gid = got;
            return 0;
        default:
            url->connections = (unsigned)got;
            return 0;
        }
    }
    return refuse(why, -EINVAL,
        "datastore %s: unknown key \"%.*s\" in the url; known are nfsport, mountport, uid, gid and connections", name,
        (int)length, text);
}

int nfsds_url_parse(struct nfsds_url *out, const char *name, const char *rest, struct sentence *why)
{
    *out = (struct nfsds_url){.uid = -1, .gid = -1};
    if (strncmp(rest, "//", 2) != 0)
        return refuse(why, -EINVAL, "datastore %s: \"nfs:%s\" is no url of an export; write " FORM, name, rest);
    const char *authority = rest + 2, *question = strchr(authority, '?');
    const char *end = question ? question : authority + strlen(authority);
    const char *path = memchr(authority, '/', (size_t)(end - authority));
    if (!path || !take_authority(out, authority, path))
        return refuse(why, -EINVAL, "datastore %s: no host and export in \"nfs:%.*s\"; write " FORM, name,
            (int)(end - rest), rest);
    if (!take_path(out, path, end))
        return refuse(why, -EINVAL, "datastore %s: \"%.*s\" is no path of an export (too long, or with . or .. in it)",
            name, end - path < SHOWN ? (int)(end - path) : SHOWN, path);
    while (question) {
        const char *key = question + 1, *next = strchr(key, '&');
        int error = *key ? take_key(out, name, key, next ? next : key + strlen(key), why) : 0;
        if (error)
            return error;
        question = next;
    }
    return 0;
}
