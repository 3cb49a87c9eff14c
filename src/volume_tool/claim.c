#include "volume_tool/claim.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backends/owner_record.h"

#define MOUNT_WITH "mount with --takeover" /* what the record's sentence says to a mount */
#define TEXT_MAX   (sizeof(((struct page *)0)->payload) - sizeof(struct disk_owner))

static uint64_t place_of(const struct superblock *superblock, int copy)
{
    return (uint64_t)superblock->head[copy] * VOLUME_EXTENT + HEAD_OWNER;
}

static bool is_empty(const struct page *page)
{
    const uint8_t *bytes = (const uint8_t *)page;
    for (size_t i = 0; i < sizeof(*page); i++)
        if (bytes[i])
            return false;
    return true;
}

/* The record with the higher number. Length of its text, 0: there is none, -errno: neither copy can be read. */
static ssize_t read_record(struct medium *medium, const struct superblock *superblock, char *text, size_t size,
    uint64_t *number, unsigned *damaged)
{
    struct page __attribute__((aligned(VOLUME_BLOCK))) page;
    ssize_t length = 0;
    int error = 0, errors = 0;
    *number = 0;
    *damaged = 0;
    for (int copy = 0; copy < 2; copy++) {
        struct page_info info;
        int result = carrier_read(&medium->carrier, place_of(superblock, copy), sizeof(page), &page);
        if (result < 0) {
            error = result;
            errors++;
        }
        if (result < 0 || !page_open(&page, superblock->uuid, PAGE_OWNER, &info)) {
            if (result < 0 || !is_empty(&page))
                *damaged |= 1u << copy;
            continue;
        }
        if (info.number < *number || info.used < sizeof(struct disk_owner))
            continue;
        const struct disk_owner *disk = (const struct disk_owner *)page.payload;
        size_t told = get16(disk->length), room = info.used - sizeof(*disk);
        told = told < room ? told : room;
        told = told < size ? told : size;
        memcpy(text, disk->text, told);
        length = (ssize_t)told;
        *number = info.number;
    }
    return errors == 2 ? error : length;
}

/* ---- the owner's place ---- */

static ssize_t place_read(void *argument, char *text)
{
    struct claim *claim = argument;
    uint64_t number;
    unsigned damaged;
    ssize_t length = read_record(claim->medium, &claim->superblock, text, OWNER_RECORD, &number, &damaged);
    if (number > claim->number)
        claim->number = number;
    return length;
}

static int place_write(void *argument, const char *text, size_t length)
{
    struct claim *claim = argument;
    struct page __attribute__((aligned(VOLUME_BLOCK))) page;
    struct disk_owner *disk = (struct disk_owner *)page.payload;
    if (length > TEXT_MAX)
        return -EINVAL;
    memset(&page, 0, sizeof(page));
    disk->length = put16((uint16_t)length);
    memcpy(disk->text, text, length);
    page_seal(&page, claim->superblock.uuid,
        &(struct page_info){
            .type = PAGE_OWNER, .used = (uint16_t)(sizeof(*disk) + length), .pages = 1, .number = ++claim->number});
    int error = 0;
    for (int copy = 0; copy < 2 && !error; copy++)
        error = carrier_write(&claim->medium->carrier, place_of(&claim->superblock, copy), sizeof(page), &page);
    return error ? error : carrier_flush(&claim->medium->carrier);
}

/* owner.c has logged it; every change of the tool ends whole or not at all. */
static void place_lost(void *argument, const char *sentence)
{
    _exit(1);
}

/* ---- the claim ---- */

static int reserve(struct claim *claim, struct sentence *why)
{
    struct medium *medium = claim->medium;
    const struct identity *identity = &medium->datastore->identity;
    if (!medium->ops->reserve)
        return 0;
    int error = medium->ops->reserve(medium->image, identity->mount, identity->takeover, why);
    if (!error)
        claim->key = identity->mount;
    return error == -EOPNOTSUPP ? 0 : error;
}

/* The record's sentence is written for a mount. */
static void mend(const struct medium *medium, struct sentence *why)
{
    char *at = strstr(why->text, MOUNT_WITH);
    if (at)
        snprintf(at, sizeof(why->text) - (size_t)(at - why->text), "give --takeover");
    medium_sentence(medium, why);
}

int claim_take(struct claim *claim, struct medium *medium, const struct superblock *superblock, struct sentence *why)
{
    char whom[400] = "";
    unsigned damaged;
    *claim = (struct claim){.medium = medium};
    if (superblock)
        claim->superblock = *superblock;
    struct sentence reserved = {""};
    int error = reserve(claim, &reserved); /* first: the sessions that come after it share it */
    bool used = superblock && claim_look(medium, superblock, whom, sizeof(whom), &damaged) > 0;
    if (error) {
        refuse(why, error, "%s%s%s", reserved.text, used ? "; it is " : "", whom);
        medium_sentence(medium, why);
        return error;
    }
    if (used && !medium->datastore->identity.takeover)
        fprintf(stderr, "svmfs-volume: %s is %s; looking whether that one lives\n", medium->url, whom);
    const struct owner_place place = {.read = place_read, .write = place_write, .lost = place_lost, .argument = claim};
    if (superblock)
        error = owner_claim(&claim->owner, medium->datastore, &place, NULL, why);
    if (error && *why->text == '\0')
        refuse(why, error, "%s: the owner's record: %s", medium->url, error_text(error));
    mend(medium, why);
    if (error)
        claim_release(claim);
    return error;
}

void claim_release_record(struct claim *claim)
{
    owner_release(claim->owner);
    claim->owner = NULL;
}

void claim_release(struct claim *claim)
{
    if (!claim->medium)
        return; /* never taken */
    claim_release_record(claim);
    if (claim->key && claim->medium->ops->release)
        claim->medium->ops->release(claim->medium->image, claim->key);
    claim->key = 0;
}

int claim_look(struct medium *medium, const struct superblock *superblock, char *out, size_t size, unsigned *damaged)
{
    char text[TEXT_MAX];
    struct owner_record record;
    uint64_t number;
    ssize_t length = read_record(medium, superblock, text, sizeof(text), &number, damaged);
    if (length < 0)
        return (int)length;
    int kind = owner_decode(text, (size_t)length, &record);
    if ((kind == 0 && !record.held) || kind == -ENOENT || kind == -EINVAL)
        return 0;
    if (owner_describe(text, (size_t)length, out, size) < 0)
        snprintf(out, size, "in use by an unknown program");
    return 1;
}
