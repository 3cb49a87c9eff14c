/* dmtable: where a file's bytes lie, as a table for dmsetup(8), or as commands for a shell. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>

#include "volume_tool/commands.h"
#include "volume_tool/opened.h"

#define SECTOR 512u

/* A part of the file, in bytes: written and in one piece on the image, or zero. */
struct part {
    uint64_t start, end, place;
    bool written;
};

struct table {
    const struct arguments *arguments;
    const char *path; /* the one that is printed now */
    const char *device;
    uint32_t round; /* a device-mapper device's size is a multiple of it */
    bool found;
    int error;
};

/* ---- words for a shell ---- */

static void print_quoted(const char *text)
{
    putchar('\'');
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*text);
    putchar('\'');
}

static const char *output_of(const struct table *table)
{
    const char *slash = strrchr(table->path, '/');
    return table->arguments->output ? table->arguments->output : slash ? slash + 1 : table->path;
}

static void print_part(const struct table *table, const struct part *part)
{
    if (table->arguments->dd) {
        if (!part->written)
            return;
        printf("dd bs=1M conv=notrunc,sparse iflag=skip_bytes,count_bytes oflag=seek_bytes status=none "
               "skip=%" PRIu64 " count=%" PRIu64 " seek=%" PRIu64 " if=",
            part->place, part->end - part->start, part->start);
        print_quoted(table->device);
        fputs(" of=", stdout);
        print_quoted(output_of(table));
        fputs(" &&\n", stdout);
        return;
    }
    uint64_t end = (part->end + table->round - 1) / table->round * table->round;
    printf("%" PRIu64 " %" PRIu64, part->start / SECTOR, (end - part->start) / SECTOR);
    if (part->written)
        printf(" linear %s %" PRIu64 "\n", table->device, part->place / SECTOR);
    else
        printf(" zero\n");
}

static void begin(const struct table *table, uint64_t size)
{
    if (table->arguments->dd) {
        fputs("rm -f ", stdout);
        print_quoted(output_of(table));
        fputs(" &&\n", stdout);
        return;
    }
    if (table->arguments->path_count > 1)
        printf("# %s\n", table->path);
    if (size % table->round)
        printf("# the file has %" PRIu64 " bytes: the last %u of the table are none of it\n", size,
            (unsigned)(table->round - size % table->round));
}

static void finish(const struct table *table, uint64_t size)
{
    if (!table->arguments->dd)
        return;
    printf("truncate -s %" PRIu64 " ", size);
    print_quoted(output_of(table));
    putchar('\n');
}

/* ---- the file ---- */

static bool follows(const struct part *part, const struct part *next)
{
    return part->written == next->written && (!part->written || part->place + (part->end - part->start) == next->place);
}

static void print_file(const struct table *table, const struct map *map, uint64_t size)
{
    uint64_t blocks = (size + VOLUME_BLOCK - 1) / VOLUME_BLOCK, until;
    struct part part = {0};
    begin(table, size);
    for (uint64_t block = 0; block < blocks; block = until) {
        uint64_t place = 0;
        bool written = map_written(map, block, blocks, &until, &place);
        struct part next = {.start = block * VOLUME_BLOCK,
            .end = until * VOLUME_BLOCK,
            .place = place * VOLUME_BLOCK,
            .written = written};
        if (next.end > size)
            next.end = size;
        if (block > 0 && follows(&part, &next)) {
            part.end = next.end;
            continue;
        }
        if (block > 0)
            print_part(table, &part);
        part = next;
    }
    if (blocks > 0)
        print_part(table, &part);
    finish(table, size);
}

static int visit(void *argument, const char *path, const struct stat *st, const struct map *map, const char *content)
{
    struct table *table = argument;
    if (strcmp(path, table->path) != 0)
        return 0;
    table->found = true;
    table->error = S_ISDIR(st->st_mode) ? -EISDIR : S_ISREG(st->st_mode) ? 0 : -EINVAL;
    if (!table->error)
        print_file(table, map, (uint64_t)st->st_size);
    return 1;
}

/* ---- the device ---- */

/* 0; the device that the table's lines name. What was given may hold no blank, which would end the word. */
static int find_device(struct table *table, const struct medium *medium, struct sentence *why)
{
    const char *scheme = medium_scheme(medium);
    table->device = table->arguments->device;
    table->round = SECTOR;
    if (!table->device && strcmp(scheme, "device") != 0 && strcmp(scheme, "local") != 0)
        return refuse(why, -EINVAL,
            "dmtable: %s is no device of this machine; --device names the one by which the LUN is seen where the table "
            "is "
            "used",
            medium->url);
    if (!table->device)
        table->device = medium_rest(medium);
    if (!table->arguments->dd && strpbrk(table->device, " \t\n"))
        return refuse(
            why, -EINVAL, "dmtable: device-mapper takes no device with a blank in its name: \"%s\"", table->device);
    if (strcmp(scheme, "local") != 0 && medium->image->limits.block > SECTOR)
        table->round = medium->image->limits.block;
    return 0;
}

static int print_path(struct table *table, struct opened *opened, const char *path, struct sentence *why)
{
    table->path = path;
    table->found = false;
    int error = volume_visit(opened->volume, visit, table);
    if (error < 0)
        return refuse(why, error, "%s: %s", opened->medium.url, error_text(error));
    if (!table->found)
        return refuse(
            why, -ENOENT, "%s: there is no file %s; svmfs-volume list tells what there is", opened->medium.url, path);
    if (table->error)
        return refuse(why, table->error, "%s: %s is no regular file", opened->medium.url, path);
    return 0;
}

int command_dmtable(const struct arguments *arguments, struct sentence *why)
{
    struct opened opened;
    struct table table = {.arguments = arguments};
    if (opened_look(&opened, arguments, why) < 0)
        return STATUS_FAILED;
    int error = find_device(&table, &opened.medium, why);
    for (unsigned i = 0; i < arguments->path_count && !error; i++)
        error = print_path(&table, &opened, arguments->paths[i], why);
    struct sentence closing = {""};
    opened_close(&opened, &closing);
    return error ? STATUS_FAILED : STATUS_DONE;
}
