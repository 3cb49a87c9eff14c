/* volume-power: a volume under loads that end by a loss of power.
 *
 *   volume-power [--runs N] [--seed S] [--verbose]
 *
 * Each run: a fresh volume on an image that forgets any subset of its unflushed sectors; rounds of random changes, each ended
 * by a loss of power at a random moment, at times by further ones while the volume is being opened again. Then: it
 * loads, the check finds nothing, its names are those of one moment not before the last that was known to be durable, and
 * each word of each file is what was flushed or written to that file since. Run number n has seed S + n; its last
 * line tells how to repeat one that failed. Even runs wait for the volume's machines after each change, so that they
 * repeat exactly; odd ones do not. At times it is not the power that is lost but the process that dies, and is followed by
 * another of the same mount: then all that was answered is there, flushed or not. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/volume/inside.h"
#include "backends/volume/names.h"
#include "call.h"
#include "model.h"
#include "power_image.h"
#include "random.h"

#define VOLUME_BYTES (24u << 20)
#define STEPS        60
#define EXTENT       (1u << 20)

struct stand {
    uint64_t seed, random;
    bool verbose, wait;
    bool death; /* of the process: what was answered is there, flushed or not */
    FILE *out;
    struct datastore datastore;
    struct volume_datastore own;
    struct reactor *reactor;
    struct power_image *base, *power;
    struct model model;
    struct image *images[MODEL_OBJECTS];
    bool gone[MODEL_OBJECTS]; /* it has no name any more */
    uint32_t value;
    uint32_t answered; /* the moment up to which all changes were answered */
    unsigned long losses, deaths, moments, words;
    uint64_t *memory;
};

static struct stand stand;

static void __attribute__((noreturn, format(printf, 1, 2))) broken(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stand.out, "seed %llu: ", (unsigned long long)stand.seed);
    vfprintf(stand.out, format, arguments);
    fprintf(stand.out, "\nagain: volume-power --runs 1 --seed %llu --verbose\n", (unsigned long long)stand.seed);
    va_end(arguments);
    fflush(stand.out);
    _exit(1);
}

#define tell(...) (stand.verbose ? (void)fprintf(stand.out, __VA_ARGS__) : (void)0)

static uint32_t pick(uint32_t count)
{
    return random_pick(&stand.random, count);
}

static int submit(struct image *image, enum verb verb, unsigned flags, uint64_t start, uint64_t end, void *memory)
{
    return call_verb(stand.reactor, image, verb, flags, start, end, memory);
}

static void wait_for_rest(void)
{
    struct volume *volume = stand.own.volume;
    if (!stand.wait)
        return;
    pthread_mutex_lock(&volume->mutex);
    while (!(commit_idle(volume) && release_idle(volume)))
        pthread_cond_wait(&volume->quiet, &volume->mutex);
    pthread_mutex_unlock(&volume->mutex);
}

/* ---- the volume ---- */

static void said(void *argument, enum finding finding, const char *sentence)
{
    tell("  %s\n", sentence);
    if (finding == FINDING_DAMAGED)
        broken("the check found: %s", sentence);
}

/* A mount of its own: nothing is known of an earlier one. */
static void forget(void)
{
    for (unsigned i = 0; i < DATASTORE_NOTES; i++)
        atomic_store(datastore_note(&stand.datastore, i), 0);
}

static int open_volume(unsigned flags)
{
    const struct volume_findings findings = {said, NULL};
    struct sentence why = {""};
    int error = volume_open(&stand.own.volume, power_open(stand.power), NULL, flags, &findings, &why);
    if (error && !power_is_lost(stand.power))
        broken("the volume does not open: %s", why.text);
    return error;
}

static void close_images(void)
{
    for (unsigned i = 0; i < MODEL_OBJECTS; i++)
        if (stand.images[i]) {
            image_close(stand.images[i]);
            stand.images[i] = NULL;
        }
}

static struct image *image_of(unsigned slot)
{
    uint32_t object = model_now(&stand.model)->entry[slot].object;
    if (!stand.images[object] &&
        backend_volume.open_image(&stand.datastore, model_paths[slot], true, &stand.images[object]) < 0)
        broken("%s is not there", model_paths[slot]);
    return stand.images[object];
}

/* ---- changes ---- */

static struct model_entry *entry_at(unsigned slot)
{
    return &model_now(&stand.model)->entry[slot];
}

/* A slot that is taken, or free. MODEL_SLOTS: none. */
static unsigned some_slot(bool taken)
{
    unsigned slot = pick(MODEL_SLOTS), tries = 0;
    while ((entry_at(slot)->object != 0) != taken && ++tries < MODEL_SLOTS)
        slot = (slot + 1) % MODEL_SLOTS;
    return tries < MODEL_SLOTS ? slot : MODEL_SLOTS;
}

/* What was answered is as the model has it; what was not was cut off by the loss. */
static void judge(const char *what, unsigned slot, int result)
{
    if (result == 0)
        stand.answered = stand.model.moment;
    tell("%s %s: %d\n", what, slot < MODEL_SLOTS ? model_paths[slot] : "", result);
    if (result < 0 && !power_is_lost(stand.power))
        broken("%s of %s failed: %s", what, slot < MODEL_SLOTS ? model_paths[slot] : "", error_text(result));
}

static void change_create(void)
{
    unsigned slot = some_slot(false);
    if (slot == MODEL_SLOTS || stand.model.objects + 1 == MODEL_OBJECTS)
        return;
    struct model_names *names = model_next(&stand.model);
    if (!names)
        return;
    uint32_t object = ++stand.model.objects;
    struct stat st = {.st_mode = S_IFREG | 0600, .st_uid = object};
    names->entry[slot] = (struct model_entry){.object = object, .mode = 0600};
    stand.model.object[object].changed = stand.model.moment;
    stand.gone[object] = false;
    judge("create", slot, backend_volume.create(&stand.datastore, model_paths[slot], &st, NULL));
}

static void change_rename(void)
{
    unsigned from = some_slot(true), to = pick(MODEL_SLOTS);
    struct model_names *names = from < MODEL_SLOTS && from != to ? model_next(&stand.model) : NULL;
    if (!names)
        return;
    uint32_t old = names->entry[to].object;
    stand.model.object[names->entry[from].object].changed = stand.model.moment;
    stand.gone[old] = true;
    names->entry[to] = names->entry[from];
    names->entry[from].object = 0;
    if (old && stand.images[old] && pick(2)) {
        image_close(stand.images[old]);
        stand.images[old] = NULL;
    }
    judge("rename to", to, backend_volume.rename(&stand.datastore, model_paths[from], model_paths[to], true));
}

static void change_remove(void)
{
    unsigned slot = some_slot(true);
    struct model_names *names = slot < MODEL_SLOTS ? model_next(&stand.model) : NULL;
    if (!names)
        return;
    uint32_t object = names->entry[slot].object;
    names->entry[slot].object = 0;
    stand.gone[object] = true;
    judge("remove", slot, backend_volume.remove(&stand.datastore, model_paths[slot], false));
    if (stand.images[object] && pick(2)) {
        image_close(stand.images[object]);
        stand.images[object] = NULL;
    }
}

static void some_range(uint64_t *start, uint64_t *end)
{
    random_range(&stand.random, MODEL_BYTES, start, end);
}

static bool room_for_change(uint32_t object)
{
    return stand.model.object[object].change_count < MODEL_CHANGES - 2;
}

static void change_write(void)
{
    unsigned slot = some_slot(true);
    uint64_t start, end;
    if (slot == MODEL_SLOTS || !room_for_change(entry_at(slot)->object))
        return;
    struct image *image = image_of(slot);
    uint32_t object = entry_at(slot)->object, value = ++stand.value;
    some_range(&start, &end);
    if (end > entry_at(slot)->size) {
        struct model_names *names = model_next(&stand.model);
        if (!names)
            return;
        names->entry[slot].size = end;
        stand.model.object[object].changed = stand.model.moment;
    }
    for (uint64_t at = start; at < end; at += 8)
        stand.memory[(at - start) / 8] = model_word(object, value);
    model_write(&stand.model, object, start, end, value);
    tell("write [%llu, %llu) value %u, object %u: ", (unsigned long long)start, (unsigned long long)end, value, object);
    int result = submit(image, VERB_WRITE, pick(2) ? IO_DIRECT : 0, start, end, stand.memory);
    judge("write", slot, result);
}

/* Nobody may see these again, unless the loss brings the name back. */
static void change_nameless(void)
{
    uint32_t object = 1 + pick(MODEL_OBJECTS - 1), value = ++stand.value;
    if (!stand.images[object] || !stand.gone[object] || !room_for_change(object))
        return;
    for (unsigned i = 0; i < MODEL_WORDS; i++)
        stand.memory[i] = model_word(object, value);
    uint64_t at = (uint64_t)pick(3) * EXTENT;
    model_write(&stand.model, object, at, at + 4096, value);
    judge("write without a name", MODEL_SLOTS,
        submit(stand.images[object], VERB_WRITE, IO_DIRECT, at, at + 4096, stand.memory));
}

static void change_zero(void)
{
    unsigned slot = some_slot(true);
    uint64_t start, end;
    if (slot == MODEL_SLOTS || !room_for_change(entry_at(slot)->object))
        return;
    struct image *image = image_of(slot);
    some_range(&start, &end);
    if (pick(2)) {
        start &= ~(uint64_t)(EXTENT - 1);
        end = start + EXTENT;
    }
    uint64_t size = entry_at(slot)->size;
    if (start < size)
        model_write(&stand.model, entry_at(slot)->object, start, end < size ? end : size, 0);
    tell("[%llu, %llu) ", (unsigned long long)start, (unsigned long long)end);
    judge("zero", slot, submit(image, VERB_ZERO, pick(4) ? IO_MAY_UNMAP : 0, start, end, NULL));
}

static void change_resize(void)
{
    unsigned slot = some_slot(true);
    uint64_t start, end;
    if (slot == MODEL_SLOTS || !room_for_change(entry_at(slot)->object))
        return;
    struct image *image = image_of(slot);
    uint32_t object = entry_at(slot)->object;
    some_range(&start, &end);
    if (pick(4) == 0)
        start = 0;
    struct model_names *names = start == entry_at(slot)->size ? NULL : model_next(&stand.model);
    if (!names)
        return;
    names->entry[slot].size = start;
    stand.model.object[object].changed = stand.model.moment;
    model_write(&stand.model, object, start, MODEL_BYTES, 0);
    tell("to %llu ", (unsigned long long)start);
    judge("resize", slot, submit(image, VERB_RESIZE, 0, 0, start, NULL));
}

static void change_allocate(void)
{
    unsigned slot = some_slot(true);
    if (slot == MODEL_SLOTS)
        return;
    uint64_t start = (uint64_t)pick(3) * EXTENT;
    judge("allocate", slot, submit(image_of(slot), VERB_ALLOCATE, 0, start, start + EXTENT, NULL));
}

static void change_flush(void)
{
    unsigned slot = some_slot(true);
    if (slot == MODEL_SLOTS)
        return;
    int result = submit(image_of(slot), VERB_FLUSH, pick(2) ? IO_DATA_ONLY : 0, 0, 0, NULL);
    judge("flush", slot, result);
    if (result == 0)
        model_flushed(&stand.model, entry_at(slot)->object);
}

static void change_sync(void)
{
    int result = backend_volume.sync_directory(&stand.datastore, "");
    judge("sync_directory", MODEL_SLOTS, result);
    if (result == 0)
        stand.model.durable = stand.model.moment;
}

static void change_attributes(void)
{
    unsigned slot = some_slot(true);
    struct model_names *names = slot < MODEL_SLOTS ? model_next(&stand.model) : NULL;
    if (!names)
        return;
    struct model_entry *entry = &names->entry[slot];
    stand.model.object[entry->object].changed = stand.model.moment;
    if (pick(2)) {
        struct stat st = {.st_mode = entry->mode = pick(01000)};
        judge("chmod", slot, backend_volume.set_attributes(&stand.datastore, model_paths[slot], &st, ATTRIBUTE_MODE));
        return;
    }
    entry->xattr = stand.seed % 4 == 0 ? 1 + pick(60000) : 1 + pick(100);
    memset(stand.memory, (int)entry->xattr & 255, entry->xattr);
    judge("setxattr", slot,
        backend_volume.set_xattr(&stand.datastore, model_paths[slot], "user.x", stand.memory, entry->xattr, 0));
}

/* ---- what is there ---- */

static void read_names(struct model_names *names)
{
    *names = (struct model_names){0};
    for (unsigned slot = 0; slot < MODEL_SLOTS; slot++) {
        struct stat st;
        int error = backend_volume.lookup(&stand.datastore, model_paths[slot], &st);
        if (error == -ENOENT)
            continue;
        if (error || st.st_uid == 0 || st.st_uid >= MODEL_OBJECTS)
            broken("%s is what was never made: %d", model_paths[slot], error);
        ssize_t xattr = backend_volume.get_xattr(
            &stand.datastore, model_paths[slot], "user.x", stand.memory, MODEL_BYTES);
        for (ssize_t i = 0; i < xattr; i++)
            if (((uint8_t *)stand.memory)[i] != (uint8_t)xattr)
                broken("%s: an xattr has another's bytes", model_paths[slot]);
        names->entry[slot] = (struct model_entry){.object = st.st_uid,
            .size = (uint64_t)st.st_size,
            .mode = st.st_mode & 07777,
            .xattr = xattr < 0 ? 0 : (uint32_t)xattr};
    }
}

static bool is_touched(const struct model_object *object, uint32_t page)
{
    uint32_t start = page * MODEL_WORDS, end = start + MODEL_WORDS;
    if (object->durable[page] || object->now[page])
        return true;
    for (uint32_t i = 0; i < object->change_count; i++)
        if (object->changes[i].start < end && start < object->changes[i].end)
            return true;
    return false;
}

static void check_file(unsigned slot, const struct model_entry *entry)
{
    struct model_object *object = &stand.model.object[entry->object];
    struct image *image;
    uint32_t pages = (uint32_t)((entry->size + 4095) / 4096);
    if (backend_volume.open_image(&stand.datastore, model_paths[slot], false, &image) < 0)
        broken("%s cannot be opened", model_paths[slot]);
    for (uint32_t page = 0; page < MODEL_PAGES; page++) {
        if (!is_touched(object, page) && pick(64) != 0)
            continue;
        memset(stand.memory, 0, 4096);
        if (page < pages &&
            submit(image, VERB_READ, IO_DIRECT, page * 4096ull, page * 4096ull + 4096, stand.memory) < 0)
            broken("%s cannot be read", model_paths[slot]);
        for (uint32_t i = 0; i < MODEL_WORDS; i++) {
            uint32_t word = page * MODEL_WORDS + i;
            if (word * 8ull < entry->size && !model_allows(&stand.model, entry->object, word, stand.memory[i]))
                broken("%s (object %u, %llu bytes): at %llu stands object %llu, value %llu", model_paths[slot],
                    entry->object, (unsigned long long)entry->size, word * 8ull,
                    (unsigned long long)(stand.memory[i] >> 32), (unsigned long long)(uint32_t)stand.memory[i]);
        }
        stand.words += MODEL_WORDS;
        model_adopt_page(&stand.model, entry->object, page, stand.memory);
    }
    image_close(image);
}

/* In the middle of a round: what was written last is there. */
static void check_now(void)
{
    unsigned slot = some_slot(true);
    uint64_t start, end;
    if (slot == MODEL_SLOTS)
        return;
    const struct model_object *object = &stand.model.object[entry_at(slot)->object];
    struct image *image = image_of(slot);
    some_range(&start, &end);
    int result = submit(image, VERB_READ, pick(2) ? IO_DIRECT : 0, start, end, stand.memory);
    judge("read", slot, result);
    for (uint64_t at = start; at < end && result == 0; at += 8) {
        const uint32_t *page = object->now[at / 4096];
        uint32_t value = page && at < entry_at(slot)->size ? page[at / 8 % MODEL_WORDS] : 0;
        if (stand.memory[(at - start) / 8] != model_word(entry_at(slot)->object, value))
            broken("%s: at %llu stands %llx while the power is on, not value %u", model_paths[slot],
                (unsigned long long)at, (unsigned long long)stand.memory[(at - start) / 8], value);
    }
}

static void check_all(void)
{
    struct model_names names;
    if (stand.death) {
        stand.deaths++;
        model_answered(&stand.model, stand.answered);
    }
    read_names(&names);
    uint32_t moment = model_match(&stand.model, &names);
    if (moment == UINT32_MAX) {
        for (unsigned i = 0; i < MODEL_SLOTS; i++)
            fprintf(stand.out, "  %s: object %u size %llu mode %o xattr %u\n", model_paths[i], names.entry[i].object,
                (unsigned long long)names.entry[i].size, names.entry[i].mode, names.entry[i].xattr);
        broken("the names are as at no moment from %u to %u", stand.model.durable, stand.model.moment);
    }
    tell("names are those of moment %u of %u … %u\n", moment, stand.model.durable, stand.model.moment);
    for (unsigned slot = 0; slot < MODEL_SLOTS; slot++)
        if (names.entry[slot].object)
            check_file(slot, &names.entry[slot]);
    model_adopt_names(&stand.model, &names);
    memset(stand.gone, 0, sizeof(stand.gone));
}

/* ---- a run ---- */

static void change(void)
{
    static void (*const changes[])(void) = {change_create, change_create, change_rename, change_remove, change_write,
        change_write, change_write, change_write, change_write, change_write, change_nameless, change_zero, change_zero,
        change_resize, change_allocate, change_flush, change_flush, change_flush, change_sync, change_attributes,
        check_now, check_now};
    struct statvfs space;
    backend_volume.statfs(&stand.datastore, &space);
    if (space.f_bavail < 3 * 256) { /* a file needs three extents at most */
        if (some_slot(true) < MODEL_SLOTS)
            change_remove();
        close_images();
        return;
    }
    changes[pick(sizeof(changes) / sizeof(changes[0]))]();
}

static void reopen(void)
{
    for (unsigned tries = 0;; tries++) {
        if (!stand.death)
            forget();
        power_return(stand.power);
        if (open_volume(VOLUME_CHECK) == 0)
            volume_close(stand.own.volume);
        if (tries < 3 && pick(3) == 0 && !stand.death)
            power_arm(stand.power, 1 + pick(12), pick(257), stand.random);
        int error = open_volume(VOLUME_WRITABLE);
        if (!error && !power_is_lost(stand.power)) {
            power_arm(stand.power, 0, 0, 0);
            return;
        }
        stand.losses++;
        tell("power lost while opening\n");
        if (!error)
            volume_close(stand.own.volume);
    }
}

static void round_of_changes(void)
{
    uint64_t after = 1 + pick(pick(2) ? 40 : 400);
    unsigned share = pick(4) ? pick(257) : 256 * pick(2);
    stand.death = pick(4) == 0;
    stand.answered = 0;
    forget();
    power_arm(stand.power, after, stand.death ? POWER_STOP : share, stand.random);
    for (unsigned i = 0; i < STEPS && !power_is_lost(stand.power); i++) {
        change();
        if (!power_is_lost(stand.power))
            wait_for_rest();
    }
    stand.death ? power_stop(stand.power) : power_lose(stand.power);
    stand.losses++;
    stand.moments += stand.model.moment;
    tell("power lost\n");
    close_images();
    volume_close(stand.own.volume);
}

static void run(uint64_t seed)
{
    stand.seed = stand.random = seed;
    stand.wait = seed % 2 == 0;
    stand.value = 0;
    memset(stand.gone, 0, sizeof(stand.gone));
    power_copy(stand.power, stand.base);
    forget();
    if (open_volume(VOLUME_WRITABLE) < 0)
        broken("a fresh volume does not open");
    for (unsigned round = 0, rounds = 1 + pick(3); round < rounds; round++) {
        round_of_changes();
        reopen();
        check_all();
    }
    close_images();
    int error = volume_close(stand.own.volume);
    if (error)
        broken("the end failed: %s", error_text(error));
    if (open_volume(VOLUME_CHECK) == 0)
        volume_close(stand.own.volume);
    model_clear(&stand.model);
}

static void prepare(void)
{
    struct sentence why = {""};
    struct stat st = {.st_mode = S_IFDIR | 0755};
    strcpy(stand.datastore.name, "power");
    stand.datastore.ops = &backend_volume;
    stand.datastore.state = &stand.own;
    if (pool_open(&stand.datastore.pool, "power", 2) < 0 || reactor_start(&stand.reactor, 0) < 0 ||
        power_new(&stand.base, &stand.datastore, VOLUME_BYTES) < 0 ||
        power_new(&stand.power, &stand.datastore, VOLUME_BYTES) < 0 ||
        posix_memalign((void **)&stand.memory, 4096, MODEL_BYTES + 4096) != 0)
        broken("no memory");
    if (volume_format(power_open(stand.base), &(struct volume_format_options){.label = "power"}, &why) < 0)
        broken("%s", why.text);
    power_copy(stand.power, stand.base);
    open_volume(VOLUME_WRITABLE);
    if (backend_volume.create(&stand.datastore, "x", &st, NULL) < 0 ||
        backend_volume.create(&stand.datastore, "y", &st, NULL) < 0)
        broken("no directories");
    volume_close(stand.own.volume);
    power_copy(stand.base, stand.power);
}

/* The losses are wanted; what the log says of them is not. What this program says goes to where stderr was. */
static void keep_quiet(void)
{
    int null = stand.verbose ? -1 : open("/dev/null", O_WRONLY | O_CLOEXEC);
    stand.out = null < 0 ? stderr : fdopen(dup(STDERR_FILENO), "w");
    if (null >= 0) {
        dup2(null, STDERR_FILENO);
        close(null);
    }
    mallopt(M_MMAP_THRESHOLD, 1 << 30); /* large blocks come and go with every opening */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
}

int main(int count, char **arguments)
{
    static const struct option options[] = {{"runs", required_argument, NULL, 'r'},
        {"seed", required_argument, NULL, 's'}, {"verbose", no_argument, NULL, 'v'}, {0}};
    uint64_t runs = 300, seed = 1;
    for (int option; (option = getopt_long(count, arguments, "", options, NULL)) != -1;) {
        if (option == 'r')
            runs = strtoull(optarg, NULL, 10);
        else if (option == 's')
            seed = strtoull(optarg, NULL, 10);
        else if (option == 'v')
            stand.verbose = true;
        else
            return 2;
    }
    keep_quiet();
    prepare();
    for (uint64_t i = 0; i < runs; i++)
        run(seed + i);
    power_free(stand.base);
    power_free(stand.power);
    reactor_stop(stand.reactor);
    pool_close(stand.datastore.pool);
    free(stand.memory);
    printf("%llu runs passed: %lu losses of power, %lu deaths of the process, %lu moments, %lu words looked at\n",
        (unsigned long long)runs, stand.losses - stand.deaths, stand.deaths, stand.moments, stand.words);
    return 0;
}
