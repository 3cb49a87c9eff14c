#include "backends/nfs_record.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define HEAD  "svmfs-xattrs 1\n"
#define XATTR "xattr "

static const char digits[] = "0123456789abcdef";

static int hex(char digit)
{
    const char *at = digit ? strchr(digits, digit) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* Bytes that would end a word or a line are %xx. Length; out may be NULL. */
static size_t encode(const char *name, char *out)
{
    size_t used = 0;
    for (; *name; name++) {
        unsigned char byte = (unsigned char)*name;
        bool plain = byte > ' ' && byte != '%' && byte != 0x7f;
        if (out && plain)
            out[used] = *name;
        if (out && !plain) {
            out[used] = '%';
            out[used + 1] = digits[byte >> 4];
            out[used + 2] = digits[byte & 15];
        }
        used += plain ? 1 : 3;
    }
    return used;
}

/* One line's words. */
struct line {
    const char *start, *name, *name_end, *value, *end; /* end: its newline */
};

/* False: no line begins there. */
static bool take_line(const char *at, struct line *line)
{
    if (strncmp(at, XATTR, strlen(XATTR)) != 0)
        return false;
    line->start = at;
    line->name = at + strlen(XATTR);
    line->name_end = strchr(line->name, ' ');
    line->end = strchr(line->name, '\n');
    if (!line->name_end || !line->end || line->name_end >= line->end || line->name_end == line->name)
        return false;
    line->value = line->name_end + 1;
    if ((line->end - line->value) % 2)
        return false;
    for (const char *digit = line->value; digit < line->end; digit++)
        if (hex(*digit) < 0)
            return false;
    return true;
}

bool nfsds_record_parse(struct nfsds_record *record, char *text, size_t size)
{
    struct line line;
    const char *at = text + strlen(HEAD);
    bool good = strlen(text) == size && strncmp(text, HEAD, strlen(HEAD)) == 0;
    while (good && *at) {
        good = take_line(at, &line);
        at = good ? line.end + 1 : at;
    }
    *record = (struct nfsds_record){text, size};
    if (!good)
        nfsds_record_free(record);
    return good;
}

void nfsds_record_free(struct nfsds_record *record)
{
    free(record->text);
    *record = (struct nfsds_record){NULL, 0};
}

bool nfsds_record_is_empty(const struct nfsds_record *record)
{
    return record->size <= strlen(HEAD);
}

static const char *first(const struct nfsds_record *record)
{
    return record->text ? record->text + strlen(HEAD) : "";
}

static bool find(const struct nfsds_record *record, const char *name, struct line *line)
{
    char encoded[3 * 256 + 1];
    size_t length = strlen(name) <= 255 ? encode(name, encoded) : 0;
    for (const char *at = first(record); length && take_line(at, line); at = line->end + 1)
        if ((size_t)(line->name_end - line->name) == length && memcmp(line->name, encoded, length) == 0)
            return true;
    return false;
}

ssize_t nfsds_record_get(const struct nfsds_record *record, const char *name, void *value, size_t size)
{
    struct line line;
    unsigned char *out = value;
    if (!find(record, name, &line))
        return -ENODATA;
    size_t length = (size_t)(line.end - line.value) / 2;
    if (size && length > size)
        return -ERANGE;
    for (size_t i = 0; size && i < length; i++)
        out[i] = (unsigned char)(hex(line.value[2 * i]) << 4 | hex(line.value[2 * i + 1]));
    return (ssize_t)length;
}

ssize_t nfsds_record_list(const struct nfsds_record *record, char *out, size_t size)
{
    struct line line;
    size_t used = 0;
    for (const char *at = first(record); take_line(at, &line); at = line.end + 1) {
        for (const char *from = line.name; from <= line.name_end; from++) {
            char byte = from == line.name_end ? '\0' : *from;
            if (byte == '%' && line.name_end - from > 2 && hex(from[1]) >= 0 && hex(from[2]) >= 0) {
                byte = (char)(hex(from[1]) << 4 | hex(from[2]));
                from += 2;
            }
            if (size && used == size)
                return -ERANGE;
            if (size)
                out[used] = byte;
            used++;
        }
    }
    return (ssize_t)used;
}

int nfsds_record_set(struct nfsds_record *record, const char *name, const void *value, size_t size, int flags)
{
    struct line line;
    const unsigned char *bytes = value;
    bool found = find(record, name, &line);
    if (found && value && flags & XATTR_CREATE)
        return -EEXIST;
    if (!found && (!value || flags & XATTR_REPLACE))
        return -ENODATA;
    const char *text = record->text ? record->text : HEAD;
    size_t total = strlen(text), before = found ? (size_t)(line.start - text) : total;
    size_t after = found ? (size_t)(line.end + 1 - text) : total;
    size_t fresh = value ? strlen(XATTR) + encode(name, NULL) + 1 + 2 * size + 1 : 0;
    char *out = malloc(total + fresh + 1), *at = out;
    if (!out)
        return -ENOMEM;
    at = (char *)memcpy(at, text, before) + before;
    if (value) {
        at = stpcpy(at, XATTR);
        at += encode(name, at);
        *at++ = ' ';
        for (size_t i = 0; i < size; i++) {
            *at++ = digits[bytes[i] >> 4];
            *at++ = digits[bytes[i] & 15];
        }
        *at++ = '\n';
    }
    at = (char *)memcpy(at, text + after, total - after) + (total - after);
    *at = '\0';
    free(record->text);
    *record = (struct nfsds_record){out, (size_t)(at - out)};
    return 0;
}
