/* The hidden files of moves: made with the source's attributes, found again, set aside. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/event.h"
#include "base/log.h"
#include "catalog/place.h"
#include "catalog/records.h"

#define XATTR_MAX 65536

/* A file's attributes on their way from the source to the target. They are read while the node is visited and written
 * after: a target that hangs keeps nobody from the disk's name (law 13). */
struct attribute {
    char name[NAME_MAX + 1];
    size_t size;
    char *value;
};

struct attributes {
    struct stat st;
    char *content; /* a symlink's */
    size_t count;
    struct attribute *list;
};

static void attributes_free(struct attributes *attributes)
{
    for (size_t i = 0; i < attributes->count; i++)
        free(attributes->list[i].value);
    free(attributes->list);
    free(attributes->content);
}

static int read_xattr(struct visit *visit, struct attributes *attributes, const char *name)
{
    struct attribute *list = realloc(attributes->list, (attributes->count + 1) * sizeof(*list));
    if (!list)
        return -ENOMEM;
    attributes->list = list;
    char *value = malloc(XATTR_MAX);
    ssize_t size = value ? visit->datastore->ops->get_xattr(visit->datastore, visit->path, name, value, XATTR_MAX)
                         : -ENOMEM;
    if (size < 0) {
        free(value);
        return size == -ENODATA ? 0 : (int)size;
    }
    struct attribute *attribute = &list[attributes->count++];
    snprintf(attribute->name, sizeof(attribute->name), "%s", name);
    attribute->size = (size_t)size;
    attribute->value = value;
    return 0;
}

static int read_attributes(struct visit *visit, struct attributes *attributes, struct sentence *why)
{
    struct datastore *source = visit->datastore;
    auto_free char *names = malloc(XATTR_MAX);
    int error = names ? source->ops->lookup(source, visit->path, &attributes->st) : -ENOMEM;
    if (!error && S_ISLNK(attributes->st.st_mode)) {
        attributes->content = malloc(PATH_MAX);
        error = attributes->content ? source->ops->readlink(source, visit->path, attributes->content, PATH_MAX)
                                    : -ENOMEM;
    }
    bool holds = S_ISREG(attributes->st.st_mode) || S_ISDIR(attributes->st.st_mode); /* user xattrs */
    ssize_t length = error || !holds ? 0 : source->ops->list_xattr(source, visit->path, names, XATTR_MAX);
    if (length < 0 && length != -EOPNOTSUPP)
        error = (int)length;
    for (const char *name = names; !error && length > 0 && name < names + length; name += strlen(name) + 1)
        error = read_xattr(visit, attributes, name);
    if (error)
        return refuse(why, error, "%s: its attributes on datastore %s, the source, cannot be read: %s", visit->path,
            source->name, error_text(error));
    return 0;
}

static bool has(const struct attributes *attributes, const char *name)
{
    for (size_t i = 0; i < attributes->count; i++)
        if (strcmp(attributes->list[i].name, name) == 0)
            return true;
    return false;
}

static int write_xattrs(struct datastore *target, const char *path, const char *partial,
    const struct attributes *attributes, struct sentence *why)
{
    for (size_t i = 0; i < attributes->count; i++) {
        const struct attribute *attribute = &attributes->list[i];
        int error = target->ops->set_xattr(target, partial, attribute->name, attribute->value, attribute->size, 0);
        if (error)
            return refuse(why, error, "%s: its attribute %s cannot be held by datastore %s, the target: %s", path,
                attribute->name, target->name, error_text(error));
    }
    if (!S_ISREG(attributes->st.st_mode) && !S_ISDIR(attributes->st.st_mode))
        return 0;
    /* What was removed since the last copy. */
    auto_free char *there = malloc(XATTR_MAX);
    ssize_t length = there ? target->ops->list_xattr(target, partial, there, XATTR_MAX) : -ENOMEM;
    for (const char *name = there; length > 0 && name < there + length; name += strlen(name) + 1)
        if (!has(attributes, name))
            target->ops->remove_xattr(target, partial, name);
    return 0;
}

static int write_attributes(struct datastore *target, const char *path, const char *partial,
    const struct attributes *attributes, struct sentence *why)
{
    const struct datastore_ops *ops = target->ops;
    const struct stat *st = &attributes->st;
    int error = write_xattrs(target, path, partial, attributes, why);
    if (error)
        return error;
    /* Owner first: it clears set-id bits; times last. */
    error = ops->set_attributes(target, partial, st, ATTRIBUTE_OWNER);
    if (!error && !S_ISLNK(st->st_mode))
        error = ops->set_attributes(target, partial, st, ATTRIBUTE_MODE);
    if (!error)
        error = ops->set_attributes(target, partial, st, ATTRIBUTE_ATIME | ATTRIBUTE_MTIME);
    if (!error)
        error = ops->sync_directory(target, partial);
    if (error)
        return refuse(why, error, "%s: owner, mode and times cannot be held by datastore %s, the target: %s", path,
            target->name, error_text(error));
    return 0;
}

int jobs_copy_attributes(struct catalog *catalog, const struct job_record *record, struct sentence *why)
{
    struct visit visit;
    struct attributes attributes = {.count = 0};
    int error = visit_begin(&visit, catalog, record->node);
    if (error)
        return refuse(why, error, "the disk of job %" PRIu64 " cannot be reached: %s", record->id, error_text(error));
    tree_lock(catalog);
    unsigned changes = visit.entry->attribute_changes;
    bool flipped = visit.entry->file && strcmp(visit.entry->file, record->partial) == 0;
    tree_unlock(catalog);
    if (!flipped)
        error = read_attributes(&visit, &attributes, why);
    visit_end(&visit);
    struct datastore *target = place_datastore(catalog, record->target);
    if (!error && !flipped)
        error = target ? write_attributes(target, visit.path, record->partial, &attributes, why)
                       : refuse(why, -EIO, "%s: datastore %s, the target, is away", visit.path,
                             catalog->datastores[record->target]->name);
    attributes_free(&attributes);
    tree_lock(catalog);
    struct job *job = job_of_id(catalog, record->id);
    if (!error && job) {
        job->attributes = changes;
        job->copied = true;
    }
    tree_unlock(catalog);
    return error;
}

int jobs_copy_directory(
    struct catalog *catalog, const struct job_record *family, uint64_t directory, struct sentence *why)
{
    struct visit visit;
    struct attributes attributes = {.count = 0};
    int error = visit_begin(&visit, catalog, directory);
    if (error)
        return refuse(
            why, error, "a directory of job %" PRIu64 " cannot be reached: %s", family->id, error_text(error));
    tree_lock(catalog);
    unsigned changes = visit.entry->attribute_changes;
    tree_unlock(catalog);
    struct datastore *target = place_datastore(catalog, family->target);
    bool root = directory == NODE_ROOT; /* the datastores' own directories keep their attributes */
    if (!target)
        error = refuse(
            why, -EIO, "%s: datastore %s, the target, is away", visit.path, catalog->datastores[family->target]->name);
    if (!error && !root)
        error = read_attributes(&visit, &attributes, why);
    if (!error && !root && (error = place_directories(catalog, visit.entry, family->target, false)) < 0)
        refuse(why, error, "%s: the directory cannot be made on datastore %s, the target: %s", visit.path, target->name,
            error_text(error));
    if (!error && !root && visit.datastore != target) {
        error = write_attributes(target, visit.path, visit.path, &attributes, why);
        if (error == -ENOENT && place_directories(catalog, visit.entry, family->target, true) == 0)
            error = write_attributes(target, visit.path, visit.path, &attributes, why);
    }
    if (!error) {
        tree_lock(catalog);
        visit.entry->copied_for = family->id;
        visit.entry->copied_changes = changes;
        tree_unlock(catalog);
    }
    visit_end(&visit);
    attributes_free(&attributes);
    return error;
}

static int check_free(struct datastore *target, const char *path, struct sentence *why)
{
    struct stat st;
    int error = target->ops->lookup(target, path, &st);
    if (error == -ENOENT)
        return 0;
    if (error)
        return refuse(
            why, error, "%s: datastore %s, the target, cannot be asked: %s", path, target->name, error_text(error));
    if (S_ISDIR(st.st_mode))
        return refuse(why, -EISDIR, "%s: datastore %s, the target, has a directory of that name", path, target->name);
    return refuse(why, -EEXIST, "%s: datastore %s, the target, has a file of that name", path, target->name);
}

/* The record owns the name before the file exists: whoever finds one without a record knows that it is a stray. */
static int name_partial(struct catalog *catalog, struct job_record *record)
{
    uint32_t random;
    int error = 0;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return -EIO;
    if (record->id == 0)
        error = jobs_put(catalog, record, NULL);
    if (error)
        return error;
    snprintf(record->partial, sizeof(record->partial), "%s/partial-%" PRIu64 "-%08" PRIx32, DATASTORE_PRIVATE,
        record->id, random);
    return jobs_put(catalog, record, NULL);
}

/* On the target; the directory's path is held. */
static int make(struct catalog *catalog, const struct entry *directory, const char *path, struct job_record *record,
    const struct attributes *attributes, struct sentence *why)
{
    struct datastore *target = place_datastore(catalog, record->target);
    if (!target)
        return refuse(
            why, -EIO, "%s: datastore %s, the target, is away", path, catalog->datastores[record->target]->name);
    int error = check_free(target, path, why);
    if (error)
        return error;
    if (record->partial[0]) /* of the start before (law 4) */
        target->ops->remove(target, record->partial, false);
    error = place_private(target);
    if (!error)
        error = place_directories(catalog, directory, record->target, false);
    if (error == -ENOENT) /* somebody removed what the record says is there */
        error = place_directories(catalog, directory, record->target, true);
    if (!error)
        error = name_partial(catalog, record);
    event("job-partial-recorded");
    if (!error)
        error = target->ops->create(target, record->partial, &attributes->st, attributes->content);
    event("job-partial-made");
    if (error)
        return refuse(why, error, "%s: no file could be made on datastore %s, the target: %s", path, target->name,
            error_text(error));
    return write_attributes(target, path, record->partial, attributes, why);
}

static int check_node(
    struct catalog *catalog, const struct visit *visit, const struct job_record *record, struct sentence *why)
{
    const struct entry *entry = visit->entry;
    if (record->target >= catalog->count)
        return refuse(why, -ENODEV, "%s: there is no such target", visit->path);
    if (entry_is_directory(entry))
        return refuse(why, -EISDIR, "%s is a directory and not a disk", visit->path);
    if (!S_ISREG(entry->st.st_mode) && record->state != JOB_RECORD_MEMBER)
        return refuse(why, -EINVAL, "%s is not a disk: it moves with its directory only", visit->path);
    if (entry->orphan)
        return refuse(why, -ENOENT, "%s was unlinked: it cannot be moved", visit->path);
    if (entry->datastore == record->target)
        return refuse(why, -EEXIST, "%s is on datastore %s already", visit->path, visit->datastore->name);
    if (entry->trouble)
        return refuse(why, -EIO, "%s stands on two datastores: settle that first", visit->path);
    return 0;
}

int jobs_make_partial(struct catalog *catalog, struct job_record *record, struct sentence *why)
{
    struct visit visit;
    struct attributes attributes = {.count = 0};
    struct hold directory;
    int error = visit_begin(&visit, catalog, record->node);
    if (error)
        return refuse(why, error, "the disk of the move cannot be reached: %s", error_text(error));
    error = check_node(catalog, &visit, record, why);
    if (!error)
        error = read_attributes(&visit, &attributes, why);
    /* From the node to its directory, without a gap. */
    hold_init(&directory, catalog);
    tree_lock(catalog);
    directory.used[0] = error ? NULL : visit.entry->parent;
    while (!hold_take(&directory))
        hold_wait(catalog);
    hold_release_locked(&visit.hold);
    tree_unlock(catalog);
    if (!error)
        error = make(catalog, directory.used[0], visit.path, record, &attributes, why);
    hold_release(&directory);
    attributes_free(&attributes);
    return error;
}

struct strays {
    char (*names)[NAME_MAX + 1];
    size_t count, space;
};

static int collect(void *argument, const char *name, const struct stat *st)
{
    struct strays *strays = argument;
    if (strncmp(name, "partial-", 8) != 0)
        return 0;
    if (strays->count == strays->space) {
        size_t space = strays->space ? strays->space * 2 : 16;
        void *names = realloc(strays->names, space * sizeof(*strays->names));
        if (!names)
            return -ENOMEM;
        strays->names = names;
        strays->space = space;
    }
    snprintf(strays->names[strays->count++], NAME_MAX + 1, "%s", name);
    return 0;
}

static bool owned(struct catalog *catalog, unsigned datastore, const char *path)
{
    bool found = false;
    tree_lock(catalog);
    list_for_each (link, &catalog->jobs) {
        const struct job *job = container_of(link, struct job, link);
        found = found || (job->record.target == datastore && strcmp(job->record.partial, path) == 0);
    }
    tree_unlock(catalog);
    return found;
}

static void set_aside(struct datastore *datastore, const char *name)
{
    char from[PATH_MAX], to[PATH_MAX];
    int error = -EEXIST;
    snprintf(from, sizeof(from), "%s/%s", DATASTORE_PRIVATE, name);
    for (int i = 0; error == -EEXIST && i < 100; i++) {
        int length = snprintf(to, sizeof(to), "%s/stray-%s", DATASTORE_PRIVATE, name + strlen("partial-"));
        if (i > 0)
            snprintf(to + length, sizeof(to) - (size_t)length, ".%d", i);
        error = datastore->ops->rename(datastore, from, to, false);
    }
    if (error)
        log_error("datastore %s: the partial image %s belongs to no job and cannot be set aside: %s", datastore->name,
            from, error_text(error));
    else
        log_warning("datastore %s: the partial image %s belongs to no job; it was set aside as %s and may be removed",
            datastore->name, from, to);
}

int jobs_set_aside_strays(struct catalog *catalog)
{
    int result = 0;
    for (unsigned i = 0; i < catalog->count; i++) {
        struct datastore *datastore = place_datastore(catalog, i);
        struct strays strays = {0};
        if (!datastore)
            continue;
        int error = datastore->ops->list(datastore, DATASTORE_PRIVATE, collect, &strays);
        for (size_t at = 0; at < strays.count; at++) {
            char path[PATH_MAX];
            snprintf(path, sizeof(path), "%s/%s", DATASTORE_PRIVATE, strays.names[at]);
            if (!owned(catalog, i, path))
                set_aside(datastore, strays.names[at]);
        }
        free(strays.names);
        if (error && error != -ENOENT)
            result = error;
    }
    return result;
}
