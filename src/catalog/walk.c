#include "catalog/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "catalog/place.h"

#define FIRST_BUCKETS 1024

int walk_begin(struct walk *walk, struct catalog *catalog)
{
    memset(walk, 0, sizeof(*walk));
    walk->catalog = catalog;
    walk->buckets = calloc(FIRST_BUCKETS, sizeof(*walk->buckets));
    walk->mask = FIRST_BUCKETS - 1;
    return walk->buckets ? 0 : -ENOMEM;
}

void claim_free(struct claim *claim)
{
    while (claim) {
        struct claim *next = claim->next;
        free(claim->content);
        free(claim);
        claim = next;
    }
}

void walk_end(struct walk *walk)
{
    for (size_t i = 0; i < walk->count; i++) {
        claim_free(walk->list[i]->claims);
        free(walk->list[i]->name);
        free(walk->list[i]);
    }
    for (unsigned i = 0; i < CATALOG_DATASTORES_MAX; i++)
        free(walk->hidden[i].names);
    free(walk->list);
    free(walk->buckets);
}

static uint64_t hash_of(const struct finding *parent, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325ull ^ (parent ? parent->hash : 0);
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3ull;
    return hash ^ (hash >> 29);
}

static void grow_buckets(struct walk *walk)
{
    size_t buckets = (walk->mask + 1) * 2;
    struct finding **grown = calloc(buckets, sizeof(*grown));
    if (!grown)
        return;
    for (size_t i = 0; i < walk->count; i++) {
        struct finding **bucket = &grown[walk->list[i]->hash & (buckets - 1)];
        walk->list[i]->bucket_next = *bucket;
        *bucket = walk->list[i];
    }
    free(walk->buckets);
    walk->buckets = grown;
    walk->mask = buckets - 1;
}

static struct finding *finding_of(struct walk *walk, struct finding *parent, const char *name)
{
    uint64_t hash = hash_of(parent, name);
    for (struct finding *finding = walk->buckets[hash & walk->mask]; finding; finding = finding->bucket_next)
        if (finding->hash == hash && finding->parent == parent && strcmp(finding->name, name) == 0)
            return finding;
    if (walk->count == walk->space) {
        size_t space = walk->space ? walk->space * 2 : 256;
        struct finding **list = realloc(walk->list, space * sizeof(struct finding *));
        if (!list)
            return NULL;
        walk->list = list;
        walk->space = space;
    }
    struct finding *finding = calloc(1, sizeof(*finding));
    if (!finding || !(finding->name = strdup(name))) {
        free(finding);
        return NULL;
    }
    finding->parent = parent;
    finding->hash = hash;
    finding->bucket_next = walk->buckets[hash & walk->mask];
    walk->buckets[hash & walk->mask] = finding;
    walk->list[walk->count++] = finding;
    if (walk->count > walk->mask)
        grow_buckets(walk);
    return finding;
}

static int add_claim(struct finding *finding, unsigned index, const struct stat *st)
{
    struct claim *claim = calloc(1, sizeof(*claim)), **at = &finding->claims;
    if (!claim)
        return -ENOMEM;
    claim->datastore = index;
    claim->st = *st;
    while (*at)
        at = &(*at)->next;
    *at = claim;
    return 0;
}

static struct claim *claim_of(const struct finding *finding, unsigned index)
{
    struct claim *claim = finding->claims;
    while (claim && claim->datastore != index)
        claim = claim->next;
    return claim;
}

static int path_of(const struct finding *finding, char out[PATH_MAX])
{
    size_t at = PATH_MAX - 1;
    out[at] = '\0';
    for (; finding && finding->name[0]; finding = finding->parent) {
        size_t length = strlen(finding->name);
        bool slash = out[at] != '\0';
        if (length + slash > at)
            return -ENAMETOOLONG;
        if (slash)
            out[--at] = '/';
        at -= length;
        memcpy(out + at, finding->name, length);
    }
    memmove(out, out + at, PATH_MAX - at);
    return 0;
}

/* One directory that is being read. */
struct reading {
    struct walk *walk;
    struct finding *directory;
    unsigned index;
    int error;
};

static int found(void *argument, const char *name, const struct stat *st)
{
    struct reading *reading = argument;
    if (strlen(name) > NAME_MAX || (!reading->directory->parent && strcmp(name, DATASTORE_PRIVATE) == 0))
        return 0;
    struct finding *finding = finding_of(reading->walk, reading->directory, name);
    reading->error = finding ? add_claim(finding, reading->index, st) : -ENOMEM;
    return reading->error;
}

static int found_hidden(void *argument, const char *name, const struct stat *st)
{
    struct reading *reading = argument;
    struct walk *walk = reading->walk;
    unsigned index = reading->index;
    if (strlen(name) > NAME_MAX)
        return 0;
    if (walk->hidden[index].count == walk->hidden[index].space) {
        size_t space = walk->hidden[index].space ? walk->hidden[index].space * 2 : 16;
        void *names = realloc(walk->hidden[index].names, space * (NAME_MAX + 1));
        if (!names)
            return reading->error = -ENOMEM;
        walk->hidden[index].names = names;
        walk->hidden[index].space = space;
    }
    strcpy(walk->hidden[index].names[walk->hidden[index].count++], name);
    return 0;
}

bool walk_hidden(const struct walk *walk, unsigned index, const char *path)
{
    const size_t prefix = strlen(DATASTORE_PRIVATE) + 1;
    for (size_t i = 0; strlen(path) > prefix && i < walk->hidden[index].count; i++)
        if (strcmp(walk->hidden[index].names[i], path + prefix) == 0)
            return true;
    return false;
}

static int read_directory(struct walk *walk, unsigned index, struct finding *directory)
{
    struct datastore *datastore = walk->catalog->datastores[index];
    struct reading reading = {.walk = walk, .directory = directory, .index = index};
    char path[PATH_MAX];
    if (path_of(directory, path) != 0)
        return 0; /* nobody can name it */
    int error = datastore->ops->list(datastore, path, found, &reading);
    if (reading.error)
        return reading.error;
    if (error == -ENOENT && directory->parent)
        return 0; /* removed while we looked */
    if (error < 0)
        log_error("datastore %s: the directory %s cannot be read: %s", datastore->name, path[0] ? path : "/",
            error_text(error));
    return error < 0 ? error : 0;
}

static int read_link(struct datastore *datastore, const struct finding *finding, struct claim *claim)
{
    char path[PATH_MAX], content[PATH_MAX] = "";
    if (path_of(finding, path) != 0)
        return 0;
    int error = datastore->ops->readlink(datastore, path, content, sizeof(content));
    if (error < 0 && error != -ENOENT)
        return error;
    claim->content = strdup(content);
    return claim->content ? 0 : -ENOMEM;
}

int walk_datastore(struct walk *walk, unsigned index)
{
    struct datastore *datastore = place_datastore(walk->catalog, index);
    struct reading hidden = {.walk = walk, .index = index};
    struct stat st;
    if (!datastore)
        return -EIO;
    int error = datastore->ops->lookup(datastore, "", &st);
    struct finding *root = finding_of(walk, NULL, "");
    if (!error)
        error = root ? add_claim(root, index, &st) : -ENOMEM;
    /* The list grows while it is gone through: children come after their parents. */
    for (size_t i = 0; i < walk->count && !error; i++) {
        struct finding *finding = walk->list[i];
        struct claim *claim = claim_of(finding, index);
        if (claim && S_ISDIR(claim->st.st_mode))
            error = read_directory(walk, index, finding);
        else if (claim && S_ISLNK(claim->st.st_mode))
            error = read_link(datastore, finding, claim);
    }
    if (!error) {
        error = datastore->ops->list(datastore, DATASTORE_PRIVATE, found_hidden, &hidden);
        error = hidden.error ? hidden.error : error == -ENOENT ? 0 : error;
    }
    if (!error)
        walk->scanned |= catalog_bit(walk->catalog, index);
    return error;
}
