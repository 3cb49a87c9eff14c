#include "catalog/scan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "catalog/intent.h"
#include "catalog/place.h"
#include "catalog/records.h"

struct scan {
    struct catalog *catalog;
    struct walk walk;
    bool serving;
    unsigned stamp, found, gone;
};

/* One path while it is decided. */
struct subject {
    uint64_t parent;
    const char *name;
    struct finding *finding; /* NULL: nobody claims it */
    struct entry *entry;     /* the record, or NULL */
    char path[PATH_MAX];
    struct hold hold;
    struct claim *asked; /* serving: what the datastores say now */
};

static const char *place_text(const struct datastore *datastore, const char *path, char *out, size_t size)
{
    const char *local = datastore->url ? strstr(datastore->url, "local:") : NULL;
    if (local)
        snprintf(out, size, "%.200s/%.300s", local + strlen("local:"), path);
    else
        snprintf(out, size, "%.300s on %.200s", path, datastore->url ? datastore->url : datastore->name);
    return out;
}

/* Both places, and the commands that settle it. */
static void tell_conflict(struct scan *scan, const struct subject *subject, const struct claim *claims)
{
    char places[2][520];
    const struct claim *two[2] = {NULL, NULL};
    struct catalog *catalog = scan->catalog;
    for (const struct claim *claim = claims; claim; claim = claim->next)
        if (!two[1])
            two[two[0] != NULL] = claim;
    if (!two[0])
        return;
    struct datastore *first = catalog->datastores[two[0]->datastore];
    unsigned other = two[1] ? two[1]->datastore : subject->entry ? subject->entry->datastore : two[0]->datastore;
    struct datastore *second = catalog->datastores[other];
    place_text(first, subject->path, places[0], sizeof(places[0]));
    place_text(second, subject->path, places[1], sizeof(places[1]));
    log_error(
        "%s stands on datastore %s and on datastore %s: it answers EIO until one is chosen. Remove or rename one: "
        "mv '%s' '%s.old'  or  mv '%s' '%s.old'  then: svmfs --rescan",
        subject->path, first->name, second->name, places[0], places[0], places[1], places[1]);
}

static void remove_records(struct scan *scan, const struct entry *entry)
{
    for (unsigned i = 0; i < entry->child_count; i++)
        remove_records(scan, entry->children[i]);
    record_delete(scan->catalog, entry->id);
}

static void remove_entries(struct scan *scan, struct entry *entry)
{
    while (entry->child_count > 0)
        remove_entries(scan, entry->children[entry->child_count - 1]);
    entry_touch(entry->parent);
    tree_unlink(&scan->catalog->tree, entry);
    tree_drop(&scan->catalog->tree, entry);
    catalog_count_file(scan->catalog, entry, -1);
    entry_free(entry);
    scan->gone++;
}

/* The entry is owned, and so is everything below it. */
static int enact_gone(struct scan *scan, struct subject *subject)
{
    struct entry *entry = subject->entry;
    store_begin(scan->catalog->store, false);
    remove_records(scan, entry);
    int error = store_commit(scan->catalog->store);
    if (error)
        return error;
    tree_lock(scan->catalog);
    for (int i = 0; i < 2; i++)
        if (subject->hold.owned[i] == entry)
            subject->hold.owned[i] = NULL;
    remove_entries(scan, entry);
    tree_unlock(scan->catalog);
    subject->entry = NULL;
    return 0;
}

static int enact_new(struct scan *scan, struct subject *subject, const struct decision *decision)
{
    struct catalog *catalog = scan->catalog;
    tree_lock(catalog);
    struct entry *directory = tree_get(&catalog->tree, subject->parent);
    int error = directory ? tree_reserve(directory) : -ENOENT;
    uint64_t id = catalog->next_id++;
    tree_unlock(catalog);
    if (error)
        return error;
    struct entry *entry = entry_new(id, subject->name, &decision->claim->st, decision->claim->content);
    if (!entry)
        return -ENOMEM;
    entry->datastore = decision->datastore;
    entry->carriers = decision->carriers;
    entry->trouble = decision->trouble;
    entry->known = true;
    entry->stamp = scan->stamp;
    store_begin(catalog->store, false);
    record_add(catalog, entry, subject->parent);
    error = store_commit(catalog->store);
    if (error) {
        entry_free(entry);
        return error;
    }
    tree_lock(catalog);
    tree_add(&catalog->tree, entry);
    tree_link(&catalog->tree, directory, entry);
    catalog_count_file(catalog, entry, 1);
    tree_unlock(catalog);
    subject->entry = entry;
    scan->found++;
    return 0;
}

static bool attributes_differ(const struct stat *a, const struct stat *b)
{
    return a->st_mode != b->st_mode || a->st_uid != b->st_uid || a->st_gid != b->st_gid || a->st_size != b->st_size ||
           a->st_mtim.tv_sec != b->st_mtim.tv_sec || a->st_mtim.tv_nsec != b->st_mtim.tv_nsec ||
           a->st_rdev != b->st_rdev;
}

static bool place_differs(const struct entry *entry, const struct decision *decision)
{
    return entry->trouble != decision->trouble || (entry->file && !entry->orphan) ||
           (decision->verdict == DECIDE_BE &&
               (entry->datastore != decision->datastore || entry->carriers != decision->carriers));
}

static int enact_update(struct scan *scan, struct subject *subject, const struct decision *decision)
{
    struct catalog *catalog = scan->catalog;
    struct entry *entry = subject->entry;
    const struct claim *claim = decision->verdict == DECIDE_BE ? decision->claim : NULL;
    tree_lock(catalog);
    struct place place = place_of(entry);
    bool moves = place_differs(entry, decision);
    bool changes = claim && attributes_differ(&entry->st, &claim->st);
    tree_unlock(catalog);
    place.trouble = decision->trouble;
    place.file = NULL;
    if (decision->verdict == DECIDE_BE) {
        place.datastore = decision->datastore;
        place.carriers = decision->carriers;
    }
    if (moves || changes) {
        store_begin(catalog->store, false);
        if (moves)
            record_place(catalog, entry->id, &place);
        if (changes)
            record_attributes(catalog, entry->id, &claim->st);
        int error = store_commit(catalog->store);
        if (error)
            return error;
    }
    tree_lock(catalog);
    catalog_count_file(catalog, entry, -1);
    entry->datastore = place.datastore;
    entry->carriers = place.carriers;
    entry->trouble = place.trouble;
    catalog_count_file(catalog, entry, 1);
    free(entry->file);
    entry->file = NULL;
    if (claim && (!scan->serving || !entry->known)) {
        entry->st = claim->st;
        entry->known = true;
    } else if (decision->verdict == DECIDE_KEEP) {
        entry->known = false;
    }
    tree_unlock(catalog);
    return 0;
}

static int enact(
    struct scan *scan, struct subject *subject, const struct decision *decision, const struct claim *claims)
{
    int error = 0;
    if (subject->entry && (decision->verdict == DECIDE_GONE || decision->replace))
        error = enact_gone(scan, subject);
    if (error || decision->verdict == DECIDE_GONE)
        return error;
    error = subject->entry    ? enact_update(scan, subject, decision)
            : decision->claim ? enact_new(scan, subject, decision)
                              : 0;
    if (!error && (decision->trouble == TROUBLE_CONFLICT || decision->trouble == TROUBLE_AMBIGUOUS))
        tell_conflict(scan, subject, claims);
    return error;
}

/* A committed move whose file may still have its hidden name. True: settled here. */
static bool is_moved(struct scan *scan, struct subject *subject, const struct claim *claims)
{
    struct catalog *catalog = scan->catalog;
    struct entry *entry = subject->entry;
    if (!entry || !entry->file || entry->orphan)
        return false;
    bool scanned = (scan->walk.scanned & catalog_bit(catalog, entry->datastore)) != 0;
    if (!scanned)
        entry->known = false;
    if (!scanned || walk_hidden(&scan->walk, entry->datastore, entry->file))
        return true;
    for (const struct claim *claim = claims; claim; claim = claim->next)
        if (claim->datastore == entry->datastore)
            return false; /* it has its name already */
    log_error("%s was moved to datastore %s, which has neither %s nor %s: it answers EIO; nothing is removed",
        subject->path, catalog->datastores[entry->datastore]->name, entry->file, subject->path);
    entry->trouble = TROUBLE_LOST;
    return true;
}

/* Serving: what the datastores that could have it say now. */
static int ask(struct scan *scan, struct subject *subject)
{
    struct catalog *catalog = scan->catalog;
    struct claim **end = &subject->asked;
    uint64_t bits = 0;
    for (const struct claim *claim = subject->finding ? subject->finding->claims : NULL; claim; claim = claim->next)
        bits |= catalog_bit(catalog, claim->datastore);
    tree_lock(catalog);
    if (subject->entry)
        bits |= catalog_bit(catalog, subject->entry->datastore) | subject->entry->carriers;
    tree_unlock(catalog);
    for (unsigned i = 0; i < catalog->count; i++) {
        struct entry *looked;
        if (!(bits & scan->walk.scanned & catalog_bit(catalog, i)))
            continue;
        int error = place_look(catalog, i, subject->path, subject->name, &looked);
        if (error == -ENOENT || error == -ENOTDIR || error == -ELOOP)
            continue;
        if (error)
            return error;
        struct claim *claim = calloc(1, sizeof(*claim));
        if (claim) {
            *claim = (struct claim){.datastore = i, .st = looked->st, .content = looked->content};
            looked->content = NULL;
            *end = claim;
            end = &claim->next;
        }
        entry_free(looked);
        if (!claim)
            return -ENOMEM;
    }
    return 0;
}

/* Owns the name or the record; a directory that stays one is only used. False: it is not for the scan any more. */
static bool hold_subject(struct scan *scan, struct subject *subject, bool own)
{
    struct catalog *catalog = scan->catalog;
    struct hold *hold = &subject->hold;
    bool taken = false;
    hold_init(hold, catalog);
    tree_lock(catalog);
    for (;;) {
        struct entry *directory;
        if (catalog_directory(catalog, subject->parent, &directory) != 0 ||
            tree_path_of(directory, subject->name, subject->path) != 0)
            break;
        subject->entry = tree_child(&catalog->tree, directory, subject->name);
        if (subject->entry && job_of_node(catalog, subject->entry->id))
            break;
        hold->used[0] = directory;
        hold->owned[0] = subject->entry && own ? subject->entry : NULL;
        hold->used[1] = subject->entry && !own ? subject->entry : NULL;
        hold->parent = subject->parent;
        hold->name = subject->name;
        taken = hold_take(hold);
        if (taken)
            break;
        hold_wait(catalog);
    }
    tree_unlock(catalog);
    return taken;
}

static bool stays_directory(const struct entry *entry, const struct decision *decision)
{
    return entry && entry_is_directory(entry) && decision->verdict == DECIDE_BE && !decision->replace;
}

/* While the mount serves: held, asked again, decided again. */
static int change_serving(struct scan *scan, struct subject *subject, bool own)
{
    struct decision decision;
    if (!hold_subject(scan, subject, own))
        return 0;
    int error = ask(scan, subject);
    if (!error) {
        tree_lock(scan->catalog);
        decide(scan->catalog, scan->walk.scanned, subject->asked, subject->entry, NULL, &decision);
        bool may = own || !subject->entry || stays_directory(subject->entry, &decision);
        tree_unlock(scan->catalog);
        if (may)
            error = enact(scan, subject, &decision, subject->asked);
    }
    if (!error && subject->entry) {
        subject->entry->stamp = scan->stamp;
        if (subject->finding && !entry_trouble(subject->entry))
            subject->finding->id = subject->entry->id;
    }
    hold_release(&subject->hold);
    claim_free(subject->asked);
    return error;
}

static int settle(struct scan *scan, struct subject *subject)
{
    struct catalog *catalog = scan->catalog;
    const struct claim *claims = subject->finding ? subject->finding->claims : NULL;
    struct decision decision;
    uint64_t refresh = 0;
    tree_lock(catalog);
    struct entry *directory = tree_get(&catalog->tree, subject->parent);
    subject->entry = directory ? tree_child(&catalog->tree, directory, subject->name) : NULL;
    struct entry *entry = subject->entry;
    if (!directory || tree_path_of(directory, subject->name, subject->path) != 0) {
        tree_unlock(catalog);
        return 0;
    }
    struct job *job = entry ? job_of_node(catalog, entry->id) : NULL;
    bool done = entry && (scan->serving ? job != NULL : is_moved(scan, subject, claims));
    if (!done) {
        decide(catalog, scan->walk.scanned, claims, entry, job, &decision);
        bool differs = !entry || decision.verdict == DECIDE_GONE || decision.replace || place_differs(entry, &decision);
        done = scan->serving && !differs;
        if (done && decision.verdict == DECIDE_BE && decision.claim &&
            (!entry->known || (attributes_differ(&entry->st, &decision.claim->st) && !entry_is_directory(entry))))
            refresh = entry->id;
    }
    if (done || (entry && !scan->serving))
        entry->stamp = scan->stamp;
    if (done && subject->finding && !entry_trouble(entry))
        subject->finding->id = entry->id;
    bool own = !done && !stays_directory(entry, &decision);
    tree_unlock(catalog);
    if (refresh)
        names_refresh(catalog, refresh, NULL);
    if (done)
        return 0;
    if (scan->serving)
        return change_serving(scan, subject, own);
    hold_init(&subject->hold, catalog);
    int error = enact(scan, subject, &decision, claims);
    if (!error && subject->entry && subject->finding && !entry_trouble(subject->entry))
        subject->finding->id = subject->entry->id;
    return error;
}

static void settle_root(struct scan *scan, struct finding *finding)
{
    struct catalog *catalog = scan->catalog;
    finding->id = NODE_ROOT;
    tree_lock(catalog);
    catalog->root->stamp = scan->stamp;
    for (const struct claim *claim = finding->claims; claim; claim = claim->next)
        if (claim->datastore == catalog->root->datastore) {
            catalog->root->st = claim->st;
            catalog->root->known = true;
        }
    tree_unlock(catalog);
}

/* What no datastore claimed, children before their parents. */
static int settle_rest(struct scan *scan)
{
    struct catalog *catalog = scan->catalog;
    struct rest {
        uint64_t parent;
        char *name;
    } * rest;
    size_t count = 0, from = 0;
    int error = 0;
    tree_lock(catalog);
    struct entry **list = calloc(catalog->tree.count, sizeof(struct entry *));
    rest = calloc(catalog->tree.count, sizeof(*rest));
    if (list && rest)
        list[count++] = catalog->root;
    for (; from < count; from++)
        for (unsigned i = 0; !entry_trouble(list[from]) && i < list[from]->child_count; i++)
            list[count++] = list[from]->children[i];
    for (from = 0; from < count; from++)
        if (list[from]->stamp != scan->stamp && list[from]->parent)
            rest[from] = (struct rest){list[from]->parent->id, strdup(list[from]->name)};
    tree_unlock(catalog);
    for (size_t i = count; i-- > 0;) {
        if (!error && rest[i].name) {
            struct subject *subject = calloc(1, sizeof(*subject));
            if (subject) {
                subject->parent = rest[i].parent;
                subject->name = rest[i].name;
                error = settle(scan, subject);
                free(subject);
            }
        }
        free(rest[i].name);
    }
    free(list);
    free(rest);
    return error;
}

/* Hidden files of unlinked disks, at a mount's start: those whose record says so are gone already (catalog_open). */
static void settle_orphans(struct scan *scan, unsigned index)
{
    struct catalog *catalog = scan->catalog;
    struct datastore *datastore = catalog->datastores[index];
    for (size_t i = 0; i < scan->walk.hidden[index].count; i++) {
        char path[PATH_MAX], stray[PATH_MAX];
        uint64_t id;
        int error;
        const char *name = scan->walk.hidden[index].names[i];
        if (sscanf(name, "orphan-%" SCNu64, &id) != 1)
            continue;
        struct entry *entry = tree_get(&catalog->tree, id);
        if (entry && entry->orphan)
            continue;
        snprintf(path, sizeof(path), "%s/%s", DATASTORE_PRIVATE, name);
        snprintf(stray, sizeof(stray), "%s/stray-%s", DATASTORE_PRIVATE, name);
        if (entry && entry->stamp != scan->stamp && entry->datastore == index) {
            /* its unlink was cut off before the record */
            error = datastore->ops->remove(datastore, path, false);
        } else {
            error = datastore->ops->rename(datastore, path, stray, false);
            log_warning("datastore %s: %s is in no record; it was set aside as %s and may be removed", datastore->name,
                path, stray);
        }
        if (error)
            log_error("datastore %s: %s stays: %s", datastore->name, path, error_text(error));
    }
}

static int settle_all(struct scan *scan)
{
    int error = 0;
    for (size_t i = 0; i < scan->walk.count && !error; i++) {
        struct finding *finding = scan->walk.list[i];
        if (!finding->parent) {
            settle_root(scan, finding);
            continue;
        }
        if (finding->parent->id == 0)
            continue;
        struct subject *subject = calloc(1, sizeof(*subject));
        if (!subject)
            return -ENOMEM;
        subject->parent = finding->parent->id;
        subject->name = finding->name;
        subject->finding = finding;
        error = settle(scan, subject);
        free(subject);
    }
    return error;
}

static int run(struct scan *scan, struct sentence *why)
{
    struct catalog *catalog = scan->catalog;
    int error = walk_begin(&scan->walk, catalog);
    for (unsigned i = 0; i < catalog->count && !error; i++) {
        int one = walk_datastore(&scan->walk, i);
        if (one)
            log_warning("datastore %s is away or cannot be read (%s): its names are as last recorded",
                catalog->datastores[i]->name, error_text(one));
    }
    scan->stamp = ++catalog->stamp;
    if (!error && !scan->serving)
        store_begin(catalog->store, false);
    if (!error) {
        error = settle_all(scan);
        for (unsigned i = 0; i < catalog->count && !error && !scan->serving; i++)
            settle_orphans(scan, i);
        if (!error)
            error = settle_rest(scan);
        store_begin(catalog->store, false);
        for (unsigned i = 0; i < catalog->count; i++)
            if (scan->walk.scanned & catalog_bit(catalog, i))
                store_run(catalog->store, STORE_DATASTORE_SCANNED, "i", (int64_t)catalog->rows[i]);
        int last = store_commit(catalog->store);
        if (!scan->serving)
            last = store_commit(catalog->store);
        error = error ? error : last;
    }
    if (!error) {
        tree_lock(catalog);
        catalog->unseen &= ~scan->walk.scanned;
        tree_unlock(catalog);
    }
    walk_end(&scan->walk);
    return error ? refuse(why, error, "the datastores could not be scanned: %s", error_text(error)) : 0;
}

int scan_first(struct catalog *catalog, struct sentence *why)
{
    struct scan *scan = calloc(1, sizeof(*scan));
    if (!scan)
        return refuse(why, -ENOMEM, "no memory to scan the datastores");
    scan->catalog = catalog;
    int error = run(scan, why);
    free(scan);
    return error;
}

int names_rescan(struct catalog *catalog, unsigned *found, unsigned *gone, struct sentence *why)
{
    struct scan *scan = calloc(1, sizeof(*scan));
    if (!scan)
        return refuse(why, -ENOMEM, "no memory to scan the datastores");
    scan->catalog = catalog;
    scan->serving = true;
    intents_retry(catalog);
    pthread_mutex_lock(&catalog->scanning);
    int error = run(scan, why);
    pthread_mutex_unlock(&catalog->scanning);
    *found = scan->found;
    *gone = scan->gone;
    free(scan);
    return error;
}

static void *scan_unseen(void *argument)
{
    struct catalog *catalog = argument;
    unsigned found, gone;
    struct sentence why = {""};
    if (names_rescan(catalog, &found, &gone, &why) != 0)
        log_error("%s", why.text);
    return NULL;
}

void scan_follow(struct catalog *catalog)
{
    bool needed = false;
    for (unsigned i = 0; i < catalog->count; i++)
        needed = needed || ((catalog->unseen & catalog_bit(catalog, i)) && place_datastore(catalog, i));
    catalog->scanner_runs = needed && pthread_create(&catalog->scanner, NULL, scan_unseen, catalog) == 0;
}

void scan_join(struct catalog *catalog)
{
    if (catalog->scanner_runs)
        pthread_join(catalog->scanner, NULL);
}
