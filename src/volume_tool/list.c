#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "volume_tool/commands.h"
#include "volume_tool/opened.h"

struct entry {
    char *path, *content;
    struct stat st;
    uint64_t runs;
};

struct listing {
    struct entry *entries;
    size_t count, room;
};

static int add(void *argument, const char *path, const struct stat *st, const struct map *map, const char *content)
{
    struct listing *listing = argument;
    if (listing->count == listing->room) {
        size_t room = listing->room ? listing->room * 2 : 64;
        struct entry *entries = realloc(listing->entries, room * sizeof(*entries));
        if (!entries)
            return -ENOMEM;
        listing->entries = entries;
        listing->room = room;
    }
    struct entry *entry = &listing->entries[listing->count++];
    *entry = (struct entry){
        .path = strdup(path), .content = content ? strdup(content) : NULL, .st = *st, .runs = map->runs};
    return entry->path && (!content || entry->content) ? 0 : -ENOMEM;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

/* Bytes that would break a line, and backslashes, as backslash and three octal digits. */
static void print_name(const char *name)
{
    for (; *name; name++)
        if ((unsigned char)*name < ' ' || *name == 127 || *name == '\\')
            printf("\\%03o", (unsigned char)*name);
        else
            putchar(*name);
}

static char type_of(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return 'd';
    case S_IFLNK:
        return 'l';
    case S_IFIFO:
        return 'p';
    case S_IFSOCK:
        return 's';
    case S_IFBLK:
        return 'b';
    case S_IFCHR:
        return 'c';
    default:
        return '-';
    }
}

static void print_attributes(const struct entry *entry)
{
    const struct stat *st = &entry->st;
    struct tm when;
    char time[32] = "?";
    if (gmtime_r(&st->st_mtim.tv_sec, &when))
        strftime(time, sizeof(time), "%Y-%m-%dT%H:%M:%SZ", &when);
    printf("%c%04o %5u %5u ", type_of(st->st_mode), st->st_mode & 07777, st->st_uid, st->st_gid);
    if (S_ISBLK(st->st_mode) || S_ISCHR(st->st_mode))
        printf("%16s %15s", "", "");
    else
        printf("%16" PRIu64 " %15" PRIu64, (uint64_t)st->st_size, (uint64_t)st->st_blocks * 512);
    printf(" %6" PRIu64 " %s ", entry->runs, time);
}

static void print(const struct listing *listing, bool attributes)
{
    for (size_t i = 0; i < listing->count; i++) {
        const struct entry *entry = &listing->entries[i];
        if (*entry->path == '\0')
            continue; /* the root */
        if (attributes)
            print_attributes(entry);
        print_name(entry->path);
        if (attributes && entry->content) {
            printf(" -> ");
            print_name(entry->content);
        }
        if (attributes && (S_ISBLK(entry->st.st_mode) || S_ISCHR(entry->st.st_mode)))
            printf(" %u:%u", major(entry->st.st_rdev), minor(entry->st.st_rdev));
        putchar('\n');
    }
}

int command_list(const struct arguments *arguments, struct sentence *why)
{
    struct opened opened;
    struct listing listing = {0};
    if (opened_look(&opened, arguments, why) < 0)
        return STATUS_FAILED;
    int error = volume_visit(opened.volume, add, &listing);
    if (error < 0)
        refuse(why, error, "%s: %s", opened.medium.url, error_text(error));
    else if (listing.count)
        qsort(listing.entries, listing.count, sizeof(*listing.entries), by_path);
    if (!error)
        print(&listing, arguments->attributes);
    for (size_t i = 0; i < listing.count; i++) {
        free(listing.entries[i].path);
        free(listing.entries[i].content);
    }
    free(listing.entries);
    struct sentence closing = {""};
    opened_close(&opened, &closing);
    return error ? STATUS_FAILED : STATUS_DONE;
}
