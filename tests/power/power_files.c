#include "power_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"
#include "random.h"

#define SECTOR  512u
#define NAMES   8
#define CHANGES 64

struct content {
    uint8_t *bytes;
    size_t length, room; /* room: whole sectors, zero behind length */
};

struct sector {
    size_t number;
    uint8_t bytes[SECTOR];
};

struct object {
    struct object *next;
    struct content now, durable;
    struct sector *log; /* since the last sync */
    size_t logged, log_room;
};

struct entry {
    char name[48];
    struct object *object; /* NULL: none */
};

struct directory {
    struct entry entry[NAMES];
};

/* to becomes object, from (may be empty) nothing. */
struct change {
    char from[48], to[48];
    struct object *object;
};

struct power_files {
    struct journal_files files;
    struct object *objects;
    struct directory now, durable;
    struct change change[CHANGES]; /* since the last sync */
    unsigned change_count;
    uint64_t changes, lose_at, random;
    unsigned share;
    bool lost;
};

struct journal_file {
    struct power_files *power;
    struct object *object;
};

static struct power_files *power_of(struct journal_files *files)
{
    return container_of(files, struct power_files, files);
}

/* ---- content ---- */

static void reserve(struct content *content, size_t length)
{
    size_t room = (length + SECTOR - 1) / SECTOR * SECTOR;
    if (room <= content->room)
        return;
    room = room > content->room * 2 ? room : content->room * 2;
    content->bytes = realloc(content->bytes, room);
    if (!content->bytes)
        abort();
    memset(content->bytes + content->room, 0, room - content->room);
    content->room = room;
}

static void copy(struct content *to, const struct content *from)
{
    reserve(to, from->length);
    to->length = from->length;
    if (!to->room)
        return;
    if (from->length)
        memcpy(to->bytes, from->bytes, from->length);
    memset(to->bytes + from->length, 0, to->room - from->length);
}

static void put(struct object *object, const uint8_t *bytes, size_t length, size_t at)
{
    if (!length)
        return;
    reserve(&object->now, at + length);
    memcpy(object->now.bytes + at, bytes, length);
    if (object->now.length < at + length)
        object->now.length = at + length;
    for (size_t number = at / SECTOR; number * SECTOR < at + length; number++) {
        if (object->logged == object->log_room) {
            object->log_room = object->log_room ? object->log_room * 2 : 256;
            object->log = realloc(object->log, object->log_room * sizeof(*object->log));
            if (!object->log)
                abort();
        }
        struct sector *sector = &object->log[object->logged++];
        sector->number = number;
        memcpy(sector->bytes, object->now.bytes + number * SECTOR, SECTOR);
    }
}

/* ---- losing ---- */

static bool stays(struct power_files *power, unsigned share)
{
    return share >= 256 || random_pick(&power->random, 256) < share;
}

/* What the blocks hold of another file, when nothing was written there. */
static void leave_old(struct power_files *power, struct object *object, size_t from, size_t to)
{
    unsigned skip = random_pick(&power->random, 8), kind = random_pick(&power->random, 3);
    const struct object *other = power->objects;
    while (other && (other == object || skip-- > 0))
        other = other->next;
    for (size_t at = from; at < to && kind > 0; at++)
        object->durable.bytes[at] = kind == 1                         ? (uint8_t)random_pick(&power->random, 256)
                                    : other && at < other->now.length ? other->now.bytes[at]
                                                                      : 0;
}

static void lose_object(struct power_files *power, struct object *object)
{
    size_t before = object->durable.length, after = object->now.length, length = after;
    if (after > before && power->share < 256)
        length = before + random_pick(&power->random, 2) * random_pick(&power->random, (uint32_t)(after - before + 1));
    if (after > before && length == before && stays(power, power->share))
        length = after;
    reserve(&object->durable, length);
    object->durable.length = length;
    if (length > before && power->share < 256)
        leave_old(power, object, before, length);
    for (size_t i = 0; i < object->logged; i++) {
        size_t at = object->log[i].number * SECTOR;
        if (at < length && stays(power, power->share))
            memcpy(object->durable.bytes + at, object->log[i].bytes, length - at < SECTOR ? length - at : SECTOR);
    }
    object->logged = 0;
}

static void sync_object(struct object *object)
{
    copy(&object->durable, &object->now);
    object->logged = 0;
}

static struct entry *find(struct directory *directory, const char *name, bool make)
{
    struct entry *room = NULL;
    for (unsigned i = 0; i < NAMES; i++) {
        struct entry *entry = &directory->entry[i];
        if (entry->object && strcmp(entry->name, name) == 0)
            return entry;
        if (!entry->object && !room)
            room = entry;
    }
    if (!make || !room)
        return NULL;
    snprintf(room->name, sizeof(room->name), "%s", name);
    return room;
}

static void apply(struct directory *directory, const struct change *change)
{
    struct entry *from = change->from[0] ? find(directory, change->from, false) : NULL;
    if (from)
        from->object = NULL;
    struct entry *to = change->to[0] ? find(directory, change->to, true) : NULL;
    if (to)
        to->object = change->object;
}

static void lose(struct power_files *power)
{
    if (power->lost)
        return;
    for (struct object *object = power->objects; object; object = object->next)
        lose_object(power, object);
    for (unsigned i = 0; i < power->change_count; i++)
        if (stays(power, power->share))
            apply(&power->durable, &power->change[i]);
    power->change_count = 0;
    power->lost = true;
}

/* True: the power goes with this change. */
static bool is_last(struct power_files *power)
{
    return ++power->changes == power->lose_at;
}

static int end_change(struct power_files *power, bool last)
{
    if (last)
        lose(power);
    return last ? -EIO : 0;
}

/* ---- the calls ---- */

static int change_names(struct power_files *power, const char *from, const char *to, struct object *object)
{
    if (power->change_count == CHANGES)
        return -ENOSPC;
    bool last = is_last(power);
    struct change *change = &power->change[power->change_count++];
    *change = (struct change){.object = object};
    snprintf(change->from, sizeof(change->from), "%s", from);
    snprintf(change->to, sizeof(change->to), "%s", to);
    apply(&power->now, change);
    return end_change(power, last);
}

static int open_file(struct journal_files *files, const char *name, bool make, struct journal_file **out)
{
    struct power_files *power = power_of(files);
    struct entry *entry = find(&power->now, name, false);
    struct object *object = entry ? entry->object : NULL;
    if (power->lost)
        return -EIO;
    if (!make && !object)
        return -ENOENT;
    if (make) {
        object = calloc(1, sizeof(*object));
        if (!object)
            return -ENOMEM;
        object->next = power->objects;
        power->objects = object;
        int error = change_names(power, "", name, object);
        if (error)
            return error;
    }
    *out = malloc(sizeof(**out));
    **out = (struct journal_file){power, object};
    return 0;
}

static int64_t length_of(struct journal_file *file)
{
    return file->power->lost ? -EIO : (int64_t)file->object->now.length;
}

static int64_t read_file(struct journal_file *file, void *bytes, size_t length, uint64_t at)
{
    const struct content *now = &file->object->now;
    if (file->power->lost)
        return -EIO;
    size_t there = at < now->length ? now->length - at : 0, got = there < length ? there : length;
    if (got)
        memcpy(bytes, now->bytes + at, got);
    return (int64_t)got;
}

static int write_file(struct journal_file *file, const void *bytes, size_t length, uint64_t at)
{
    if (file->power->lost)
        return -EIO;
    bool last = is_last(file->power);
    put(file->object, bytes, length, at);
    return end_change(file->power, last);
}

static int sync_file(struct journal_file *file)
{
    if (file->power->lost)
        return -EIO;
    bool last = is_last(file->power);
    if (!last)
        sync_object(file->object);
    return end_change(file->power, last);
}

static void close_file(struct journal_file *file)
{
    free(file);
}

static int rename_file(struct journal_files *files, const char *from, const char *to)
{
    struct power_files *power = power_of(files);
    struct entry *entry = find(&power->now, from, false);
    return power->lost ? -EIO : !entry ? -ENOENT : change_names(power, from, to, entry->object);
}

static int remove_file(struct journal_files *files, const char *name)
{
    struct power_files *power = power_of(files);
    return power->lost ? -EIO : !find(&power->now, name, false) ? -ENOENT : change_names(power, name, "", NULL);
}

static int sync_directory(struct journal_files *files)
{
    struct power_files *power = power_of(files);
    if (power->lost)
        return -EIO;
    bool last = is_last(power);
    for (unsigned i = 0; i < power->change_count && !last; i++)
        apply(&power->durable, &power->change[i]);
    if (!last)
        power->change_count = 0;
    return end_change(power, last);
}

static int list_files(struct journal_files *files, void (*found)(void *argument, const char *name), void *argument)
{
    struct power_files *power = power_of(files);
    for (unsigned i = 0; i < NAMES && !power->lost; i++)
        if (power->now.entry[i].object)
            found(argument, power->now.entry[i].name);
    return power->lost ? -EIO : 0;
}

static void free_files(struct journal_files *files)
{
}

static const struct journal_files_ops ops = {
    .open = open_file,
    .length = length_of,
    .read = read_file,
    .write = write_file,
    .sync = sync_file,
    .close = close_file,
    .rename = rename_file,
    .remove = remove_file,
    .sync_directory = sync_directory,
    .list = list_files,
    .free = free_files,
};

/* ---- the test's side ---- */

struct power_files *power_files_new(void)
{
    struct power_files *power = calloc(1, sizeof(*power));
    if (power)
        power->files.ops = &ops;
    return power;
}

static void free_object(struct object *object)
{
    free(object->now.bytes);
    free(object->durable.bytes);
    free(object->log);
    free(object);
}

void power_files_free(struct power_files *power)
{
    for (struct object *object; (object = power->objects);) {
        power->objects = object->next;
        free_object(object);
    }
    free(power);
}

struct journal_files *power_files_of(struct power_files *power)
{
    return &power->files;
}

void power_files_arm(struct power_files *power, uint64_t count, unsigned share, uint64_t seed)
{
    power->changes = 0;
    power->lose_at = count;
    power->share = share;
    power->random = seed;
}

void power_files_lose(struct power_files *power)
{
    lose(power);
}

bool power_files_lost(const struct power_files *power)
{
    return power->lost;
}

static bool is_named(const struct power_files *power, const struct object *object)
{
    for (unsigned i = 0; i < NAMES; i++)
        if (power->durable.entry[i].object == object)
            return true;
    return false;
}

void power_files_return(struct power_files *power)
{
    lose(power);
    for (struct object **link = &power->objects, *object; (object = *link);) {
        if (is_named(power, object)) {
            copy(&object->now, &object->durable);
            link = &object->next;
            continue;
        }
        *link = object->next;
        free_object(object);
    }
    power->now = power->durable;
    power->lost = false;
    power->lose_at = 0;
}

uint64_t power_files_changes(const struct power_files *power)
{
    return power->changes;
}

const uint8_t *power_files_get(struct power_files *power, const char *name, size_t *length)
{
    struct entry *entry = find(&power->now, name, false);
    *length = entry ? entry->object->now.length : 0;
    return entry ? entry->object->now.bytes : NULL;
}

bool power_files_set(struct power_files *power, const char *name, const uint8_t *bytes, size_t length)
{
    struct journal_file *file;
    if (open_file(&power->files, name, true, &file) < 0)
        return false;
    int error = write_file(file, bytes, length, 0);
    if (!error)
        error = sync_file(file);
    close_file(file);
    return !error && sync_directory(&power->files) == 0;
}
