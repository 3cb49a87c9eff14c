/* check: what is damaged, and what contradicts itself. Loading finds the most; what it takes as it is, is looked at here.
 *
 * A volume in use changes while it is read, and what was read of it may then fit together in no moment: it is read again
 * before damage is believed. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "volume_tool/commands.h"
#include "volume_tool/opened.h"
#include "volume_tool/repair.h"

#define TRIES_IN_USE 3

struct found {
    enum finding finding;
    char *sentence;
};

struct check {
    struct medium medium;
    char url[SENTENCE_MAX];
    struct found *list;
    size_t count, room;
    unsigned counts[FINDING_DAMAGED + 1];
    /* of the volume that is looked at */
    const struct superblock *superblock;
    uint64_t extents; /* in runs */
    uint64_t files;
};

static void say(void *argument, enum finding finding, const char *sentence)
{
    struct check *check = argument;
    check->counts[finding]++;
    if (check->count == check->room) {
        size_t room = check->room ? check->room * 2 : 16;
        struct found *list = realloc(check->list, room * sizeof(*list));
        if (!list)
            return; /* counted it is */
        check->list = list;
        check->room = room;
    }
    struct sentence own = {""};
    refuse(&own, 0, "%s", sentence);
    medium_sentence(&check->medium, &own);
    char *copy = strdup(own.text);
    if (copy)
        check->list[check->count++] = (struct found){finding, copy};
}

static void find(struct check *check, enum finding finding, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void find(struct check *check, enum finding finding, const char *format, ...)
{
    char text[SENTENCE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    say(check, finding, text);
}

static void forget(struct check *check)
{
    for (size_t i = 0; i < check->count; i++)
        free(check->list[i].sentence);
    free(check->list);
    check->list = NULL;
    check->count = check->room = 0;
    memset(check->counts, 0, sizeof(check->counts));
    check->extents = check->files = 0;
}

/* ---- a file ---- */

/* Written blocks of a run at and behind a block of the file. */
static uint64_t written_behind(const struct run *run, uint64_t block)
{
    uint64_t first = (uint64_t)run->logical * VOLUME_BLOCKS, end = first + (uint64_t)run->count * VOLUME_BLOCKS;
    uint64_t count = 0;
    if (end <= block || run->state == RUN_UNWRITTEN)
        return 0;
    if (run->state == RUN_WRITTEN)
        return end - (block > first ? block : first);
    for (uint64_t at = block > first ? block : first; at < end; at++)
        count += run_bit(run, (uint32_t)(at - first));
    return count;
}

static int look_at_file(
    void *argument, const char *path, const struct stat *st, const struct map *map, const char *content)
{
    struct check *check = argument;
    uint64_t end = ((uint64_t)st->st_size + VOLUME_BLOCK - 1) / VOLUME_BLOCK, behind = 0, extents = 0, runs = 0;
    struct cursor cursor;
    check->files += S_ISREG(st->st_mode);
    for (const struct run *run = map_from(map, 0, &cursor); run; run = map_next(map, &cursor)) {
        if ((uint64_t)run->physical + run->count > check->superblock->extents)
            find(check, FINDING_DAMAGED, "\"%s\": extents %u to %" PRIu64 " are outside the volume, which has %u", path,
                run->physical, (uint64_t)run->physical + run->count - 1, check->superblock->extents);
        if (run->flags & ~RUN_RESERVED)
            find(check, FINDING_DAMAGED, "\"%s\": the run at extent %u has flags that are not known (%#x)", path,
                run->logical, run->flags);
        behind += written_behind(run, end);
        extents += run->count;
        runs++;
    }
    if (behind)
        find(check, FINDING_DAMAGED,
            "\"%s\": %" PRIu64
            " blocks behind its end are said to be written: were it to grow, what lies there would show",
            path, behind);
    if (extents != map->extents || runs != map->runs)
        find(check, FINDING_DAMAGED, "\"%s\": its runs do not add up", path);
    check->extents += extents;
    return 0;
}

/* ---- the volume ---- */

static void look_at_owner(struct check *check, const struct superblock *superblock, bool *used)
{
    char whom[400] = "";
    unsigned damaged = 0;
    int result = claim_look(&check->medium, superblock, whom, sizeof(whom), &damaged);
    *used = result > 0;
    if (result > 0)
        find(check, FINDING_NOTE, "the volume is %s: what is seen may be in motion", whom);
    if (result < 0)
        find(check, FINDING_DAMAGED, "the owner's record cannot be read: %s", error_text(result));
    else if (damaged == 3)
        find(check, FINDING_DAMAGED, "both copies of the owner's record are damaged; the next mount writes it anew");
    else if (damaged)
        find(check, FINDING_COPY, "the owner's record in the %s head is damaged; the other is used",
            damaged == 1 ? "primary" : "secondary");
}

static void look_at_volume(struct check *check, struct volume *volume, bool *used)
{
    struct volume_summary summary;
    volume_summarise(volume, &summary);
    check->superblock = &summary.superblock;
    look_at_owner(check, &summary.superblock, used);
    volume_visit(volume, look_at_file, check);
    if (check->extents + summary.free_extents != summary.data_extents)
        find(check, FINDING_DAMAGED,
            "of %u extents for data %" PRIu64 " are in files and %u free: %" PRId64
            " are in none, or in more than one file",
            summary.data_extents, check->extents, summary.free_extents,
            (int64_t)summary.data_extents - (int64_t)check->extents - (int64_t)summary.free_extents);
    if (summary.node_bytes > summary.node_bytes_max)
        find(check, FINDING_DAMAGED, "names and attributes take %" PRIu64 " bytes, there is room for %" PRIu64,
            summary.node_bytes, summary.node_bytes_max);
}

/* STATUS_…: what is known after one look. */
static enum status look(struct check *check, const struct arguments *arguments, bool *used, struct sentence *why)
{
    const struct volume_findings findings = {say, check};
    struct medium *medium = &check->medium;
    struct volume *volume;
    struct superblock superblock;
    forget(check);
    *used = false;
    if (medium_open(medium, arguments, false, why) < 0)
        return STATUS_UNREADABLE;
    snprintf(check->url, sizeof(check->url), "%s", medium->url);
    enum status status;
    int error = volume_open(&volume, medium->image, medium->ops, VOLUME_CHECK, &findings, why);
    if (error) {
        medium_sentence(medium, why);
        if (*why->text == '\0')
            refuse(why, error, "%s: %s", medium->url, error_text(error));
        if (opened_superblock(arguments, &superblock))
            look_at_owner(check, &superblock, used);
        status = error == -EUCLEAN || error == -ENOSPC ? STATUS_FAILED : STATUS_UNREADABLE;
    } else {
        *why = (struct sentence){""}; /* damage that was gone over is among what was found */
        look_at_volume(check, volume, used);
        volume_close(volume);
        medium->image = NULL;
        status = check->counts[FINDING_DAMAGED] ? STATUS_FAILED
                 : check->counts[FINDING_COPY]  ? STATUS_COPY
                                                : STATUS_DONE;
    }
    medium_close(medium);
    return status;
}

static enum status look_until_sure(struct check *check, const struct arguments *arguments, struct sentence *why)
{
    enum status status = STATUS_UNREADABLE;
    bool used = true;
    for (int tries = 0; tries < TRIES_IN_USE && used; tries++) {
        *why = (struct sentence){""};
        status = look(check, arguments, &used, why);
        if (status == STATUS_DONE || status == STATUS_UNREADABLE)
            break;
    }
    return status;
}

static void tell(const struct check *check, enum status status)
{
    static const char *const kinds[] = {"note", "copy damaged", "DAMAGED"};
    for (size_t i = 0; i < check->count; i++)
        printf("%s: %s\n", kinds[check->list[i].finding], check->list[i].sentence);
    switch (status) {
    case STATUS_DONE:
        printf("%s: clean, %" PRIu64 " files\n", check->url, check->files);
        break;
    case STATUS_COPY:
        printf("%s: %u damaged of which the other copy is good: nothing is lost. svmfs-volume check --repair-copies "
               "writes "
               "them anew; a mount writes all but superblocks\n",
            check->url, check->counts[FINDING_COPY]);
        break;
    default:
        printf("%s: damaged: %u lost or contradicting, %u in one copy only. Nothing was changed; save what can be read "
               "(svmfs-volume dmtable), and restore the rest from a backup\n",
            check->url, check->counts[FINDING_DAMAGED], check->counts[FINDING_COPY]);
    }
}

static enum status check_once(struct check *check, const struct arguments *arguments, struct sentence *why)
{
    enum status status = look_until_sure(check, arguments, why);
    if (*why->text == '\0')
        tell(check, status);
    else
        for (size_t i = 0; i < check->count; i++)
            printf("%s\n", check->list[i].sentence);
    forget(check);
    return status;
}

int command_check(const struct arguments *arguments, struct sentence *why)
{
    struct check check = {0};
    enum status status = check_once(&check, arguments, why);
    if (!arguments->repair_copies || status != STATUS_COPY)
        return status;
    if (repair_copies(arguments, why) < 0)
        return STATUS_COPY;
    printf("the copies were written anew; once more:\n");
    return check_once(&check, arguments, why);
}
