/* What exists: scans, restarts, conflicts, datastores that are away. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stage.h"

static struct stage stage;

static void open_two(void)
{
    stage_open(&stage, 2);
}

static void done(void)
{
    stage_hook = NULL;
    stage_close(&stage);
}

TestSuite(catalog, .init = open_two, .fini = done);

static int look(const char *path)
{
    struct node node;
    return stage_look(&stage, path, &node);
}

static void rescan(unsigned want_found, unsigned want_gone)
{
    unsigned found, gone;
    struct sentence why = {""};
    cr_assert_eq(names_rescan(stage.catalog, &found, &gone, &why), 0, "%s", why.text);
    cr_assert_eq(found, want_found, "found %u", found);
    cr_assert_eq(gone, want_gone, "gone %u", gone);
}

struct listing {
    unsigned count, stop_after;
    uint64_t last;
    char names[8192];
};

static int add_name(void *argument, const char *name, const struct node *node)
{
    struct listing *listing = argument;
    cr_assert_gt(node->id, listing->last, "not in the order of ids");
    listing->last = node->id;
    strcat(listing->names, name);
    strcat(listing->names, node->conflict ? "! " : " ");
    return ++listing->count == listing->stop_after;
}

static const char *list(const char *path, struct listing *listing)
{
    memset(listing, 0, sizeof(*listing));
    cr_assert_eq(catalog_list(stage.catalog, stage_id(&stage, path), 0, add_name, listing), 0);
    return listing->names;
}

Test(catalog, an_empty_mount_has_a_root)
{
    struct node root;
    stage_mount(&stage, true);
    cr_assert_eq(catalog_get(stage.catalog, NODE_ROOT, &root), 0);
    cr_assert(S_ISDIR(root.st.st_mode) && root.known && root.st.st_ino == NODE_ROOT && root.st.st_nlink == 2);
    cr_assert_eq(root.parent, NODE_ROOT);
    cr_assert_eq(look("x"), -ENOENT);
    cr_assert_eq(look("x/y"), -ENOENT);
    char path[PATH_MAX];
    cr_assert_eq(catalog_path(stage.catalog, NODE_ROOT, path), 0);
    cr_assert_str_eq(path, "");
}

Test(catalog, shows_the_union)
{
    struct node node;
    struct listing listing;
    char text[512], path[PATH_MAX];
    unsigned datastore;
    stage_mkdir(&stage, 0, "vm");
    stage_mkdir(&stage, 1, "vm");
    stage_put(&stage, 0, "vm/one", "1");
    stage_put(&stage, 1, "vm/two", "22");
    stage_mkdir(&stage, 1, "only");
    stage_mkdir(&stage, 1, ".svmfs");
    stage_put(&stage, 1, ".svmfs/secret", "s");
    snprintf(text, sizeof(text), "%s/a/link", stage.root);
    cr_assert_eq(symlink("vm/one", text), 0);
    snprintf(text, sizeof(text), "%s/a/pipe", stage.root);
    cr_assert_eq(mkfifo(text, 0600), 0);
    stage_mount(&stage, true);
    cr_assert_eq(stage_where(&stage, "vm/one"), 0);
    cr_assert_eq(stage_where(&stage, "vm/two"), 1);
    cr_assert_eq(stage_where(&stage, "vm"), 0);
    cr_assert_eq(stage_where(&stage, "only"), 1);
    cr_assert_eq(stage_look(&stage, "vm/two", &node), 0);
    cr_assert(S_ISREG(node.st.st_mode) && node.st.st_size == 2 && node.known && node.st.st_ino == node.id);
    cr_assert_eq(catalog_path(stage.catalog, node.id, path), 0);
    cr_assert_str_eq(path, "vm/two");
    cr_assert_eq(catalog_file(stage.catalog, node.id, &datastore, path), 0);
    cr_assert(datastore == 1 && strcmp(path, "vm/two") == 0);
    cr_assert_eq(catalog_readlink(stage.catalog, stage_id(&stage, "link"), path), 0);
    cr_assert_str_eq(path, "vm/one");
    cr_assert_eq(catalog_readlink(stage.catalog, node.id, path), -EINVAL);
    cr_assert_eq(stage_look(&stage, "pipe", &node), 0);
    cr_assert(S_ISFIFO(node.st.st_mode));
    cr_assert_eq(look(".svmfs"), -ENOENT);
    cr_assert_eq(look(".svmfs/secret"), -ENOENT);
    cr_assert_eq(look("vm/one/x"), -ENOTDIR);
    list("", &listing);
    cr_assert_eq(listing.count, 4, "%s", listing.names);
    cr_assert_eq(catalog_files(stage.catalog, 0), 3);
    cr_assert_eq(catalog_files(stage.catalog, 1), 1);
    cr_assert_eq(catalog_get(stage.catalog, NODE_ROOT, &node), 0);
    cr_assert_eq(node.st.st_nlink, 4);
}

Test(catalog, refuses_names_that_are_too_long)
{
    char name[300];
    struct node node;
    memset(name, 'n', 256);
    name[256] = '\0';
    stage_mount(&stage, true);
    cr_assert_eq(catalog_lookup(stage.catalog, NODE_ROOT, name, &node), -ENAMETOOLONG);
    name[255] = '\0';
    cr_assert_eq(catalog_lookup(stage.catalog, NODE_ROOT, name, &node), -ENOENT);
    stage_make(&stage, name, S_IFREG | 0600);
    cr_assert_eq(look(name), 0);
}

Test(catalog, a_following_worker_takes_the_records)
{
    struct node node, again;
    stage_put(&stage, 1, "disk", "abc");
    stage_mount(&stage, true);
    cr_assert_eq(stage_look(&stage, "disk", &node), 0);
    stage_unmount(&stage);
    stage_put(&stage, 1, "later", "x"); /* not seen: nobody reads datastores now */
    stage_mount(&stage, false);
    cr_assert_eq(stage_look(&stage, "disk", &again), 0);
    cr_assert(again.id == node.id && again.datastore == 1 && !again.known && again.st.st_size == 3);
    cr_assert_eq(look("later"), -ENOENT);
    stage_put(&stage, 1, "disk", "abcde");
    cr_assert_eq(names_refresh(stage.catalog, again.id, &again), 0);
    cr_assert(again.known && again.st.st_size == 5);
    rescan(1, 0);
    cr_assert_eq(look("later"), 0);
}

Test(catalog, ids_survive_mounts_and_are_not_used_again)
{
    stage_mkdir(&stage, 0, "d");
    stage_put(&stage, 0, "d/x", "1");
    stage_mount(&stage, true);
    uint64_t d = stage_id(&stage, "d"), x = stage_id(&stage, "d/x"),
             last = stage_make(&stage, "d/last", S_IFREG | 0600);
    cr_assert_eq(stage_unlink(&stage, NULL, "d/last", false, NULL), 0);
    stage_unmount(&stage);
    stage_mount(&stage, true);
    cr_assert(stage_id(&stage, "d") == d && stage_id(&stage, "d/x") == x);
    cr_assert_gt(stage_make(&stage, "d/next", S_IFREG | 0600), last);
}

Test(catalog, what_came_and_went_between_mounts_is_seen)
{
    stage_mkdir(&stage, 0, "d");
    stage_put(&stage, 0, "d/gone", "1");
    stage_put(&stage, 0, "kind", "1");
    stage_put(&stage, 0, "moved", "1");
    stage_mount(&stage, true);
    uint64_t kind = stage_id(&stage, "kind"), moved = stage_id(&stage, "moved");
    stage_unmount(&stage);
    stage_drop(&stage, 0, "d/gone");
    stage_drop(&stage, 0, "d");
    stage_drop(&stage, 0, "kind");
    stage_mkdir(&stage, 0, "kind");
    stage_put(&stage, 0, "kind/below", "1");
    stage_drop(&stage, 0, "moved");
    stage_put(&stage, 1, "moved", "12");
    stage_mount(&stage, true);
    cr_assert_eq(look("d"), -ENOENT);
    cr_assert_neq(stage_id(&stage, "kind"), kind);
    cr_assert_eq(look("kind/below"), 0);
    cr_assert_eq(stage_id(&stage, "moved"), moved);
    cr_assert_eq(stage_where(&stage, "moved"), 1);
    cr_assert_eq(catalog_files(stage.catalog, 0), 1);
    cr_assert_eq(catalog_files(stage.catalog, 1), 1);
    stage_unmount(&stage);
    stage_mount(&stage, false);
    cr_assert_eq(look("d"), -ENOENT);
    cr_assert_eq(stage_where(&stage, "moved"), 1);
}

Test(catalog, a_path_on_two_datastores_is_a_conflict_until_it_is_settled)
{
    struct listing listing;
    stage_put(&stage, 0, "both", "1");
    stage_put(&stage, 1, "both", "2");
    stage_put(&stage, 0, "fine", "1");
    for (int first = 1; first >= 0; first--) {
        stage_mount(&stage, first);
        cr_assert_eq(look("both"), -EIO);
        cr_assert_eq(look("fine"), 0);
        cr_assert(strstr(list("", &listing), "both! "), "%s", listing.names);
        cr_assert_eq(stage_unlink(&stage, NULL, "both", false, NULL), -EIO);
        cr_assert_eq(stage_rename(&stage, NULL, "both", "other", 0, false, NULL), -EIO);
        cr_assert_eq(stage_rename(&stage, NULL, "fine", "both", 0, false, NULL), -EIO);
        cr_assert_eq(stage_create(&stage, NULL, "both", S_IFREG | 0600, NULL), -EIO);
        struct node node;
        cr_assert_eq(names_refresh(stage.catalog, 2, &node), -EIO);
        if (first)
            stage_unmount(&stage);
    }
    stage_drop(&stage, 0, "both");
    rescan(0, 0);
    cr_assert_eq(stage_where(&stage, "both"), 1);
    cr_assert_str_eq(stage_content(&stage, 1, "both"), "2");
}

Test(catalog, a_file_over_a_directory_is_a_conflict)
{
    stage_mkdir(&stage, 0, "x");
    stage_put(&stage, 0, "x/below", "1");
    stage_mount(&stage, true);
    cr_assert_eq(look("x/below"), 0);
    uint64_t below = stage_id(&stage, "x/below");
    stage_put(&stage, 1, "x", "2");
    rescan(0, 0);
    cr_assert_eq(look("x"), -EIO);
    stage_unmount(&stage);
    stage_mount(&stage, true);
    cr_assert_eq(look("x"), -EIO);
    stage_drop(&stage, 1, "x");
    rescan(0, 0);
    cr_assert_eq(stage_id(&stage, "x/below"), below);
}

Test(catalog, an_open_disk_goes_on_in_a_conflict)
{
    struct node node;
    stage_put(&stage, 0, "disk", "1");
    stage_mount(&stage, true);
    uint64_t id = stage_id(&stage, "disk");
    stage_put(&stage, 1, "disk", "other");
    rescan(0, 0);
    cr_assert_eq(look("disk"), -EIO);
    cr_assert_eq(names_refresh(stage.catalog, id, &node), 0);
    cr_assert(node.datastore == 0 && node.conflict && node.st.st_size == 1);
}

Test(catalog, a_datastore_that_is_away_keeps_its_names)
{
    struct node node;
    stage_mkdir(&stage, 1, "d");
    stage_put(&stage, 1, "d/disk", "abc");
    stage_put(&stage, 0, "here", "1");
    stage_mount(&stage, true);
    uint64_t id = stage_id(&stage, "d/disk");
    stage_unmount(&stage);
    stage.datastores[1]->away = true;
    stage_mount(&stage, true);
    cr_assert_eq(stage_look(&stage, "d/disk", &node), 0);
    cr_assert(node.id == id && !node.known && node.st.st_size == 3);
    cr_assert_eq(look("unknown"), -ENOENT); /* it was read to its end before */
    cr_assert_eq(names_refresh(stage.catalog, id, &node), -EIO);
    cr_assert_eq(stage_create(&stage, NULL, "d/new", S_IFREG | 0600, NULL), -EIO);
    cr_assert_eq(stage_unlink(&stage, NULL, "d/disk", false, NULL), -EIO);
    cr_assert_eq(stage_rename(&stage, NULL, "d", "e", 0, false, NULL), -EIO);
    cr_assert_eq(stage_create(&stage, NULL, "new", S_IFREG | 0600, NULL), 0);
    stage.datastores[1]->away = false;
    stage_put(&stage, 1, "d/more", "1");
    rescan(1, 0);
    cr_assert_eq(stage_look(&stage, "d/disk", &node), 0);
    cr_assert(node.id == id && node.known);
}

Test(catalog, no_such_file_needs_every_datastores_word)
{
    stage.datastores[1]->away = true;
    stage_put(&stage, 0, "here", "1");
    stage_put(&stage, 1, "there", "1");
    stage_mount(&stage, true);
    cr_assert_eq(look("here"), 0);
    cr_assert_eq(look("there"), -EIO);
    cr_assert_eq(stage_create(&stage, NULL, "there", S_IFREG | 0600, NULL), -EIO);
    cr_assert_eq(stage_rename(&stage, NULL, "here", "there", 0, false, NULL), -EIO);
    cr_assert_eq(look(".svmfs"), -ENOENT);
    stage_unmount(&stage);
    stage_mount(&stage, false);
    cr_assert_eq(look("there"), -EIO);
    stage.datastores[1]->away = false;
    rescan(1, 0);
    cr_assert_eq(look("there"), 0);
    cr_assert_eq(look("nowhere"), -ENOENT);
}

Test(catalog, a_following_worker_reads_what_the_last_one_could_not)
{
    stage.datastores[1]->away = true;
    stage_put(&stage, 1, "there", "1");
    stage_mount(&stage, true);
    cr_assert_eq(look("there"), -EIO);
    stage_unmount(&stage); /* dies when the datastore is back, before it was read */
    stage.datastores[1]->away = false;
    stage_mount(&stage, false);
    while (look("nowhere") == -EIO)
        usleep(1000);
    cr_assert_eq(look("nowhere"), -ENOENT);
    cr_assert_eq(look("there"), 0);
}

static int list_fails(const char *call, const struct datastore *datastore, const char *path)
{
    return strcmp(call, "list") == 0 && strcmp(path, "d") == 0 && datastore->name[0] == 'b' ? -EIO : 0;
}

Test(catalog, a_scan_that_breaks_off_takes_nothing_away)
{
    stage_mkdir(&stage, 1, "d");
    stage_put(&stage, 1, "d/disk", "1");
    stage_put(&stage, 1, "top", "1");
    stage_mount(&stage, true);
    stage_hook = list_fails;
    rescan(0, 0);
    cr_assert_eq(look("d/disk"), 0);
    stage_unmount(&stage);
    stage_mount(&stage, true);
    cr_assert_eq(look("d/disk"), 0);
    cr_assert_eq(look("top"), 0);
}

Test(catalog, records_go_by_the_datastores_names)
{
    stage_put(&stage, 0, "one", "1");
    stage_put(&stage, 1, "two", "2");
    stage_mount(&stage, true);
    uint64_t one = stage_id(&stage, "one");
    stage_unmount(&stage);
    struct datastore *swap = stage.datastores[0];
    stage.datastores[0] = stage.datastores[1];
    stage.datastores[1] = swap;
    stage_mount(&stage, false);
    cr_assert(stage_id(&stage, "one") == one && stage_where(&stage, "one") == 1 && stage_where(&stage, "two") == 0);
    stage_unmount(&stage);
    swap = stage.datastores[0];
    stage.datastores[0] = stage.datastores[1];
    stage.datastores[1] = swap;
}

Test(catalog, names_of_a_datastore_that_is_not_configured_answer_eio)
{
    stage_mkdir(&stage, 0, "d");
    stage_mkdir(&stage, 1, "d");
    stage_put(&stage, 1, "d/two", "2");
    stage_mount(&stage, true);
    uint64_t two = stage_id(&stage, "d/two");
    stage_unmount(&stage);
    stage.count = 1;
    stage_mount(&stage, true);
    cr_assert_eq(look("d"), 0);
    cr_assert_eq(look("d/two"), -EIO);
    stage_unmount(&stage);
    stage.count = 2;
    stage_mount(&stage, true);
    cr_assert_eq(stage_id(&stage, "d/two"), two);
}

Test(catalog, a_datastore_may_get_another_name)
{
    stage_put(&stage, 1, "two", "2");
    stage_mount(&stage, true);
    uint64_t two = stage_id(&stage, "two");
    stage_unmount(&stage);
    strcpy(stage.datastores[1]->name, "renamed");
    stage_mount(&stage, true);
    cr_assert_eq(stage_where(&stage, "two"), 1);
    cr_assert_eq(stage_id(&stage, "two"), two);
}

Test(catalog, listings_go_on_where_they_stopped)
{
    struct listing listing;
    char name[16];
    stage_mount(&stage, true);
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        stage_make(&stage, name, S_IFREG | 0600);
    }
    memset(&listing, 0, sizeof(listing));
    unsigned total = 0;
    for (unsigned before = 1; listing.count != before;) {
        before = listing.count;
        listing.stop_after = before + 7;
        cr_assert_eq(catalog_list(stage.catalog, NODE_ROOT, listing.last, add_name, &listing), 0);
        total = listing.count;
        if (total == 70) { /* names come and go meanwhile */
            cr_assert_eq(stage_unlink(&stage, NULL, "f3", false, NULL), 0);
            cr_assert_eq(stage_unlink(&stage, NULL, "f150", false, NULL), 0);
            stage_make(&stage, "late", S_IFREG | 0600);
        }
    }
    cr_assert_eq(total, 200, "%u", total);
    cr_assert_eq(catalog_list(stage.catalog, 12345, 0, add_name, &listing), -ENOENT);
}

Test(catalog, writes_are_noted_in_memory)
{
    struct node node;
    stage_mount(&stage, true);
    uint64_t id = stage_make(&stage, "disk", S_IFREG | 0600);
    catalog_wrote(stage.catalog, id, 4096, false);
    cr_assert_eq(catalog_get(stage.catalog, id, &node), 0);
    cr_assert_eq(node.st.st_size, 4096);
    catalog_wrote(stage.catalog, id, 512, false);
    catalog_get(stage.catalog, id, &node);
    cr_assert_eq(node.st.st_size, 4096);
    catalog_wrote(stage.catalog, id, 512, true);
    catalog_get(stage.catalog, id, &node);
    cr_assert_eq(node.st.st_size, 512);
    catalog_wrote(stage.catalog, 999, 1, true);
}

static void make_many(void)
{
    char path[64];
    for (int d = 0; d < 10; d++) {
        snprintf(path, sizeof(path), "d%d", d);
        stage_mkdir(&stage, d & 1, path);
        for (int i = 0; i < 100; i++) {
            snprintf(path, sizeof(path), "d%d/f%d", d, i);
            stage_put(&stage, d & 1, path, "1");
        }
    }
}

Test(catalog, many_names_are_read_once)
{
    make_many();
    stage_mount(&stage, true);
    cr_assert_eq(catalog_files(stage.catalog, 0) + catalog_files(stage.catalog, 1), 1000);
    cr_assert_eq(look("d7/f99"), 0);
    stage_unmount(&stage);
    stage_mount(&stage, false);
    cr_assert_eq(catalog_files(stage.catalog, 0) + catalog_files(stage.catalog, 1), 1000);
    cr_assert_eq(look("d7/f99"), 0);
    rescan(0, 0);
}

Test(catalog, a_damaged_or_newer_file_is_refused_with_a_sentence)
{
    struct sentence why = {""};
    struct catalog *catalog = NULL;
    char state[128], file[160], command[256];
    stage_mount(&stage, true);
    stage_unmount(&stage);
    snprintf(state, sizeof(state), "%s/state", stage.root);
    snprintf(file, sizeof(file), "%s/catalog.db", state);
    snprintf(command, sizeof(command), "printf garbage | dd of=%s conv=notrunc status=none", file);
    cr_assert_eq(system(command), 0);
    cr_assert_eq(catalog_open(&catalog, state, stage.datastores, 2, 0, true, &why), -EIO);
    cr_assert(strstr(why.text, file), "%s", why.text);
}

Test(catalog, the_carriers_of_a_directory_are_known)
{
    stage_mkdir(&stage, 0, "both");
    stage_mkdir(&stage, 1, "both");
    stage_mkdir(&stage, 1, "second");
    stage_put(&stage, 0, "file", "x");
    stage_mount(&stage, true);
    cr_expect_eq(catalog_carriers(stage.catalog, stage_id(&stage, "both")), 3);
    cr_expect_eq(catalog_carriers(stage.catalog, stage_id(&stage, "second")), 2);
    cr_expect_eq(catalog_carriers(stage.catalog, stage_id(&stage, "file")), 0);
    cr_expect_eq(catalog_carriers(stage.catalog, 12345), 0);
}
