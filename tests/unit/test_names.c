/* The changes of names: their errnos, their traces on the datastores, hung datastores, many threads. */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
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

TestSuite(names, .init = open_two, .fini = done);

static int look(const char *path)
{
    struct node node;
    return stage_look(&stage, path, &node);
}

static void mount_first(void)
{
    stage_mount(&stage, true);
}

/* As the next worker, or after a power loss as the next mount. */
static void again(bool first)
{
    stage_unmount(&stage);
    stage_mount(&stage, first);
}

/* ---- create ---- */

Test(names, create_makes_each_kind_with_its_attributes)
{
    static const mode_t modes[] = {S_IFREG | 0640, S_IFDIR | 0750, S_IFIFO | 0600, S_IFSOCK | 0700, S_IFLNK | 0777};
    mount_first();
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        char name[8] = {(char)('a' + i), '\0'};
        struct node node;
        cr_assert_eq(stage_create(&stage, NULL, name, modes[i], &node), 0);
        cr_assert_eq(node.st.st_mode, modes[i]);
        cr_assert_eq(node.id, stage_id(&stage, name));
        cr_assert(node.known && node.datastore == 0 && node.st.st_nlink == (S_ISDIR(modes[i]) ? 2 : 1));
        cr_assert(stage_has(&stage, 0, name));
    }
    char target[PATH_MAX];
    cr_assert_eq(catalog_readlink(stage.catalog, stage_id(&stage, "e"), target), 0);
    cr_assert_str_eq(target, "goal");
}

Test(names, create_refuses_as_a_local_file_system)
{
    char name[300];
    memset(name, 'n', 256);
    name[256] = '\0';
    mount_first();
    stage_make(&stage, "file", S_IFREG | 0600);
    struct stat st = {.st_mode = S_IFREG | 0600};
    struct node node;
    cr_assert_eq(stage_create(&stage, NULL, "file", S_IFREG | 0600, NULL), -EEXIST);
    cr_assert_eq(stage_create(&stage, NULL, name, S_IFREG | 0600, NULL), -ENAMETOOLONG);
    cr_assert_eq(stage_create(&stage, NULL, ".svmfs", S_IFDIR | 0700, NULL), -EPERM);
    cr_assert_eq(names_create(stage.catalog, NULL, stage_id(&stage, "file"), "x", &st, NULL, &node), -ENOTDIR);
    cr_assert_eq(names_create(stage.catalog, NULL, 4711, "x", &st, NULL, &node), -ENOENT);
    cr_assert_eq(names_create(stage.catalog, NULL, NODE_ROOT, ".", &st, NULL, &node), -EEXIST);
    cr_assert_eq(names_create(stage.catalog, NULL, NODE_ROOT, "a/b", &st, NULL, &node), -EINVAL);
    stage_make(&stage, "d", S_IFDIR | 0700);
    cr_assert_eq(stage_create(&stage, NULL, "d/.svmfs", S_IFREG | 0700, NULL), 0);
}

Test(names, create_inherits_the_group_of_a_setgid_directory)
{
    struct stat st = {.st_mode = S_IFDIR | S_ISGID | 0775, .st_gid = 7};
    struct node node;
    if (getuid() != 0)
        cr_skip_test("only root may give files away");
    mount_first();
    cr_assert_eq(names_create(stage.catalog, NULL, NODE_ROOT, "d", &st, NULL, &node), 0);
    uint64_t directory = node.id;
    st = (struct stat){.st_mode = S_IFREG | 0600, .st_gid = 3};
    cr_assert_eq(names_create(stage.catalog, NULL, directory, "f", &st, NULL, &node), 0);
    cr_assert(node.st.st_gid == 7 && !(node.st.st_mode & S_ISGID));
    st.st_mode = S_IFDIR | 0700;
    cr_assert_eq(names_create(stage.catalog, NULL, directory, "sub", &st, NULL, &node), 0);
    cr_assert(node.st.st_gid == 7 && (node.st.st_mode & S_ISGID));
    cr_assert_eq(catalog_get(stage.catalog, directory, &node), 0);
    cr_assert_eq(node.st.st_nlink, 3);
}

Test(names, create_finds_what_somebody_put_there)
{
    mount_first();
    stage_put(&stage, 0, "foreign", "theirs");
    cr_assert_eq(look("foreign"), -ENOENT);
    cr_assert_eq(stage_create(&stage, NULL, "foreign", S_IFREG | 0600, NULL), -EEXIST);
    cr_assert_eq(look("foreign"), 0);
    cr_assert_str_eq(stage_content(&stage, 0, "foreign"), "theirs");
}

/* ---- unlink, rmdir ---- */

Test(names, unlink_removes_or_keeps_for_those_who_have_it_open)
{
    struct node node;
    char path[PATH_MAX];
    unsigned datastore;
    uint64_t id, removed;
    mount_first();
    stage_make(&stage, "d", S_IFDIR | 0700);
    stage_make(&stage, "closed", S_IFREG | 0600);
    id = stage_make(&stage, "d/open", S_IFREG | 0600);
    cr_assert_eq(stage_unlink(&stage, NULL, "nothing", false, NULL), -ENOENT);
    cr_assert_eq(stage_unlink(&stage, NULL, "d", false, NULL), -EISDIR);
    cr_assert_eq(stage_unlink(&stage, NULL, "closed", false, NULL), 0);
    cr_assert(!stage_has(&stage, 0, "closed") && look("closed") == -ENOENT);
    cr_assert_eq(stage_unlink(&stage, NULL, "d/open", true, &removed), 0);
    cr_assert_eq(removed, id);
    cr_assert(look("d/open") == -ENOENT && !stage_has(&stage, 0, "d/open"));
    for (int worker = 0; worker < 2; worker++) { /* the next worker has it still */
        cr_assert_eq(catalog_get(stage.catalog, id, &node), 0);
        cr_assert(node.orphan && node.st.st_nlink == 0 && node.st.st_ino == id);
        cr_assert_eq(catalog_file(stage.catalog, id, &datastore, path), 0);
        cr_assert(stage_has(&stage, 0, path));
        cr_assert_eq(catalog_path(stage.catalog, id, path), 0);
        cr_assert_eq(names_refresh(stage.catalog, id, &node), 0);
        if (worker == 0)
            again(false);
    }
    cr_assert_eq(stage_rmdir(&stage, NULL, "d"), 0);
    cr_assert_eq(names_release_orphan(stage.catalog, id), 0);
    cr_assert_eq(names_release_orphan(stage.catalog, id), -ENOENT);
    cr_assert_eq(stage_hidden(&stage, 0, "orphan-"), 0);
    cr_assert_eq(catalog_files(stage.catalog, 0), 0);
}

Test(names, orphans_end_with_the_mount)
{
    mount_first();
    uint64_t id = stage_make(&stage, "open", S_IFREG | 0600);
    struct node node;
    cr_assert_eq(stage_unlink(&stage, NULL, "open", true, NULL), 0);
    stage_put(&stage, 0, ".svmfs/orphan-4711", "x"); /* of nobody */
    again(true);
    cr_assert_eq(catalog_get(stage.catalog, id, &node), -ENOENT);
    cr_assert_eq(stage_hidden(&stage, 0, "orphan-"), 0);
    cr_assert_eq(stage_hidden(&stage, 0, "stray-"), 1);
}

Test(names, rmdir_goes_wherever_the_directory_stands)
{
    stage_mkdir(&stage, 0, "d");
    stage_mkdir(&stage, 1, "d");
    mount_first();
    stage_make(&stage, "d/sub", S_IFDIR | 0700);
    cr_assert_eq(stage_rmdir(&stage, NULL, "d"), -ENOTEMPTY);
    cr_assert_eq(stage_rmdir(&stage, NULL, "d/sub"), 0);
    stage_put(&stage, 1, "d/foreign", "1");
    cr_assert_eq(stage_rmdir(&stage, NULL, "d"), -ENOTEMPTY);
    cr_assert(stage_has(&stage, 0, "d") && look("d") == 0);
    stage_drop(&stage, 1, "d/foreign");
    cr_assert_eq(stage_rmdir(&stage, NULL, "d"), 0);
    cr_assert(!stage_has(&stage, 0, "d") && !stage_has(&stage, 1, "d"));
    stage_make(&stage, "file", S_IFREG | 0600);
    cr_assert_eq(stage_rmdir(&stage, NULL, "file"), -ENOTDIR);
    cr_assert_eq(stage_rmdir(&stage, NULL, "d"), -ENOENT);
}

/* ---- rename ---- */

static int move(const char *from, const char *to)
{
    return stage_rename(&stage, NULL, from, to, 0, false, NULL);
}

Test(names, rename_refuses_as_a_local_file_system)
{
    mount_first();
    stage_make(&stage, "f", S_IFREG | 0600);
    stage_make(&stage, "g", S_IFREG | 0600);
    stage_make(&stage, "d", S_IFDIR | 0700);
    stage_make(&stage, "d/sub", S_IFDIR | 0700);
    stage_make(&stage, "e", S_IFDIR | 0700);
    cr_assert_eq(move("nothing", "x"), -ENOENT);
    cr_assert_eq(move("f", "d"), -EISDIR);
    cr_assert_eq(move("d", "f"), -ENOTDIR);
    cr_assert_eq(move("d", "d/sub/x"), -EINVAL);
    cr_assert_eq(move("d", "d/x"), -EINVAL);
    cr_assert_eq(move("d/sub", "d"), -ENOTEMPTY);
    cr_assert_eq(move("e", "d"), -ENOTEMPTY);
    cr_assert_eq(move("f", ".svmfs"), -EPERM);
    cr_assert_eq(move(".svmfs", "x"), -ENOENT);
    cr_assert_eq(stage_rename(&stage, NULL, "f", "g", RENAME_NOREPLACE, false, NULL), -EEXIST);
    cr_assert_eq(stage_rename(&stage, NULL, "f", "g", RENAME_EXCHANGE, false, NULL), -EINVAL);
    cr_assert_eq(stage_rename(&stage, NULL, "f", "n", RENAME_NOREPLACE, false, NULL), 0);
    cr_assert_eq(move("n", "n"), 0);
    cr_assert_eq(look("n"), 0);
    struct node node;
    cr_assert_eq(stage_look(&stage, "d", &node), 0);
    cr_assert_eq(move("d/sub", "sub"), 0);
    cr_assert_eq(stage_look(&stage, "d", &node), 0);
    cr_assert_eq(node.st.st_nlink, 2);
    cr_assert_eq(move("d", "e"), 0); /* over an empty directory */
    cr_assert(look("d") == -ENOENT && stage_id(&stage, "e") == node.id);
    cr_assert(!stage_has(&stage, 0, "d") && stage_has(&stage, 0, "e"));
}

Test(names, rename_keeps_a_files_datastore)
{
    stage_mkdir(&stage, 1, "far");
    stage_mkdir(&stage, 1, "far/deep");
    stage_put(&stage, 1, "far/disk", "two");
    mount_first();
    stage_make(&stage, "near", S_IFDIR | 0711);
    stage_make(&stage, "near/in", S_IFDIR | 0700);
    uint64_t id = stage_id(&stage, "far/disk");
    cr_assert_eq(move("far/disk", "near/in/disk"), 0);
    cr_assert(stage_id(&stage, "near/in/disk") == id && stage_where(&stage, "near/in/disk") == 1);
    cr_assert_str_eq(stage_content(&stage, 1, "near/in/disk"), "two");
    cr_assert(!stage_has(&stage, 0, "near/in/disk"));
    cr_assert_eq(move("near", "far/deep/near"), 0); /* on both */
    cr_assert(stage_has(&stage, 1, "far/deep/near/in/disk") && stage_has(&stage, 0, "far/deep/near/in"));
    cr_assert(!stage_has(&stage, 0, "near") && !stage_has(&stage, 1, "near"));
    cr_assert_eq(stage_where(&stage, "far/deep/near/in/disk"), 1);
    stage_make(&stage, "far/deep/near/in/new", S_IFREG | 0600);
    cr_assert_eq(stage_where(&stage, "far/deep/near/in/new"), 0); /* its home did not change */
    again(true);
    cr_assert(stage_id(&stage, "far/deep/near/in/disk") == id && stage_where(&stage, "far/deep/near/in/disk") == 1);
}

Test(names, rename_over_a_file_tells_which_one)
{
    uint64_t replaced;
    struct node node;
    mount_first();
    uint64_t f = stage_make(&stage, "f", S_IFREG | 0600), g = stage_make(&stage, "g", S_IFREG | 0600);
    cr_assert_eq(stage_rename(&stage, NULL, "f", "g", 0, false, &replaced), 0);
    cr_assert(replaced == g && stage_id(&stage, "g") == f && catalog_get(stage.catalog, g, &node) == -ENOENT);
    g = stage_make(&stage, "f", S_IFREG | 0600);
    cr_assert_eq(stage_rename(&stage, NULL, "g", "f", 0, true, &replaced), 0);
    cr_assert(replaced == g && stage_id(&stage, "f") == f);
    cr_assert_eq(catalog_get(stage.catalog, g, &node), 0);
    cr_assert(node.orphan);
    cr_assert_eq(names_release_orphan(stage.catalog, g), 0);
    cr_assert_eq(stage_hidden(&stage, 0, "orphan-"), 0);
}

Test(names, rename_over_a_file_of_another_datastore)
{
    uint64_t replaced;
    struct node node;
    for (int open = 0; open < 2; open++) {
        stage_put(&stage, 0, "one", "1");
        stage_put(&stage, 1, "two", "2");
        if (open)
            again(true);
        else
            mount_first();
        uint64_t one = stage_id(&stage, "one"), two = stage_id(&stage, "two");
        cr_assert_eq(stage_rename(&stage, NULL, "one", "two", 0, open, &replaced), 0);
        cr_assert(replaced == two && stage_id(&stage, "two") == one && look("one") == -ENOENT);
        cr_assert_str_eq(stage_content(&stage, 0, "two"), "1");
        cr_assert(!stage_has(&stage, 1, "two"));
        cr_assert_eq(catalog_get(stage.catalog, two, &node), open ? 0 : -ENOENT);
        cr_assert_eq(stage_hidden(&stage, 1, "orphan-"), (unsigned)open);
        cr_assert_eq(stage_unlink(&stage, NULL, "two", false, NULL), 0);
    }
}

static int fail_call(const char *call, const struct datastore *datastore, const char *path)
{
    return strcmp(call, "rename") == 0 && datastore->name[0] == 'b' ? -EIO : 0;
}

Test(names, a_rename_that_fails_half_way_is_taken_back)
{
    stage_mkdir(&stage, 0, "d");
    stage_mkdir(&stage, 1, "d");
    stage_put(&stage, 0, "one", "1");
    stage_put(&stage, 1, "two", "2");
    mount_first();
    stage_make(&stage, "empty", S_IFDIR | 0700);
    stage_hook = fail_call;
    cr_assert_eq(move("d", "e"), -EIO);
    cr_assert_eq(move("d", "empty"), -EIO);
    cr_assert_eq(move("two", "one"), -EIO);
    cr_assert(look("d") == 0 && look("e") == -ENOENT && look("empty") == 0);
    cr_assert(stage_has(&stage, 0, "d") && stage_has(&stage, 1, "d") && stage_has(&stage, 0, "empty"));
    cr_assert(!stage_has(&stage, 0, "e") && !stage_has(&stage, 1, "e"));
    cr_assert_str_eq(stage_content(&stage, 0, "one"), "1");
    stage_hook = NULL;
    again(false);
    cr_assert(look("d") == 0 && look("e") == -ENOENT && stage_where(&stage, "one") == 0);
}

static int fail_remove(const char *call, const struct datastore *datastore, const char *path)
{
    return strcmp(call, "remove") == 0 && strcmp(path, "two") == 0 ? -EIO : 0;
}

Test(names, what_a_rename_could_not_remove_goes_later)
{
    unsigned found, gone;
    stage_put(&stage, 0, "one", "1");
    stage_put(&stage, 1, "two", "2");
    mount_first();
    stage_hook = fail_remove;
    cr_assert_eq(move("one", "two"), 0);
    cr_assert(stage_has(&stage, 1, "two") && stage_where(&stage, "two") == 0);
    stage_hook = NULL;
    cr_assert_eq(names_rescan(stage.catalog, &found, &gone, NULL), 0);
    cr_assert(!stage_has(&stage, 1, "two") && stage_where(&stage, "two") == 0 && found == 0);
}

/* ---- attributes ---- */

Test(names, attributes_go_to_the_datastore_and_back)
{
    struct stat st = {.st_mode = S_IFREG | 04755, .st_mtim = {1000, 5}, .st_atim = {2000, 0}};
    struct node node;
    mount_first();
    uint64_t id = stage_make(&stage, "f", S_IFREG | 0600);
    cr_assert_eq(
        names_set_attributes(stage.catalog, id, &st, ATTRIBUTE_MODE | ATTRIBUTE_MTIME | ATTRIBUTE_ATIME, false, &node),
        0);
    cr_assert(node.st.st_mode == (S_IFREG | 04755) && node.st.st_mtim.tv_sec == 1000 && node.st.st_mtim.tv_nsec == 5);
    cr_assert_eq(names_set_attributes(stage.catalog, id, &st, 0, true, &node), 0);
    cr_assert_eq(node.st.st_mode, S_IFREG | 0755);
    again(false);
    cr_assert_eq(catalog_get(stage.catalog, id, &node), 0);
    cr_assert(node.st.st_mode == (S_IFREG | 0755) && !node.known);
    cr_assert_eq(names_set_attributes(stage.catalog, 4711, &st, ATTRIBUTE_MODE, false, &node), -ENOENT);
}

Test(names, a_directorys_mode_holds_wherever_it_stands)
{
    struct stat st = {.st_mode = S_IFDIR | 0700};
    struct node node;
    char path[128];
    stage_mkdir(&stage, 0, "d");
    stage_mkdir(&stage, 1, "d");
    mount_first();
    cr_assert_eq(names_set_attributes(stage.catalog, stage_id(&stage, "d"), &st, ATTRIBUTE_MODE, false, &node), 0);
    for (int i = 0; i < 2; i++) {
        struct stat is;
        snprintf(path, sizeof(path), "%s/%c/d", stage.root, 'a' + i);
        cr_assert_eq(stat(path, &is), 0);
        cr_assert_eq(is.st_mode & 07777, 0700);
    }
}

Test(names, xattrs)
{
    char value[64], names[256];
    mount_first();
    uint64_t id = stage_make(&stage, "f", S_IFREG | 0600);
    if (names_set_xattr(stage.catalog, id, "user.x", "1", 1, 0) == -EOPNOTSUPP)
        cr_skip_test("no user xattrs in /tmp");
    cr_assert_eq(names_set_xattr(stage.catalog, id, "user.x", "2", 1, XATTR_CREATE), -EEXIST);
    cr_assert_eq(names_set_xattr(stage.catalog, id, "user.y", "2", 1, XATTR_REPLACE), -ENODATA);
    cr_assert_eq(names_get_xattr(stage.catalog, id, "user.x", value, sizeof(value)), 1);
    cr_assert_eq(names_get_xattr(stage.catalog, id, "user.y", value, sizeof(value)), -ENODATA);
    cr_assert_eq(names_list_xattr(stage.catalog, id, names, sizeof(names)), 7);
    cr_assert_str_eq(names, "user.x");
    cr_assert_eq(names_remove_xattr(stage.catalog, id, "user.x"), 0);
    cr_assert_eq(names_remove_xattr(stage.catalog, id, "user.x"), -ENODATA);
}

Test(names, a_file_that_its_datastore_lost_is_an_error_not_absent)
{
    struct node node;
    struct image *image;
    mount_first();
    uint64_t id = stage_make(&stage, "f", S_IFREG | 0600);
    stage_drop(&stage, 0, "f");
    cr_assert_eq(names_refresh(stage.catalog, id, &node), -EIO);
    cr_assert_eq(names_open_image(stage.catalog, id, true, &image), -EIO);
    cr_assert_eq(stage_unlink(&stage, NULL, "f", false, NULL), 0);
    cr_assert_eq(names_open_image(stage.catalog, NODE_ROOT, true, &image), -EISDIR);
}

/* ---- law 14 ---- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool hangs, arrived;

static int hang_a(const char *call, const struct datastore *datastore, const char *path)
{
    if (datastore->name[0] != 'a' || strcmp(call, "lookup") == 0)
        return 0;
    pthread_mutex_lock(&gate);
    arrived = true;
    pthread_cond_broadcast(&gate_changed);
    while (hangs)
        pthread_cond_wait(&gate_changed, &gate);
    pthread_mutex_unlock(&gate);
    return 0;
}

static void *hung_create(void *argument)
{
    stage_make(&stage, "d/hung", S_IFREG | 0600);
    return NULL;
}

static void *waiting_rename(void *argument)
{
    cr_assert_eq(move("d", "e"), 0);
    return NULL;
}

Test(names, a_hung_datastore_holds_up_only_what_needs_it)
{
    pthread_t creator, renamer;
    struct node node;
    stage_mkdir(&stage, 0, "d");
    stage_mkdir(&stage, 1, "d");
    stage_put(&stage, 1, "d/two", "2");
    stage_mkdir(&stage, 1, "other");
    mount_first();
    uint64_t two = stage_id(&stage, "d/two");
    stage_hook = hang_a;
    hangs = true;
    pthread_create(&creator, NULL, hung_create, NULL);
    pthread_mutex_lock(&gate);
    while (!arrived)
        pthread_cond_wait(&gate_changed, &gate);
    pthread_mutex_unlock(&gate);
    pthread_create(&renamer, NULL, waiting_rename, NULL); /* of the directory in which the hung call is */
    for (int i = 0; i < 50; i++) {
        usleep(1000);
        cr_assert_eq(names_refresh(stage.catalog, two, &node), 0);
        cr_assert_eq(look("d/two"), 0);
        char name[32];
        snprintf(name, sizeof(name), "other/f%d", i);
        cr_assert_eq(stage_create(&stage, NULL, name, S_IFREG | 0600, NULL), 0);
    }
    cr_assert_eq(stage_unlink(&stage, NULL, "d/two", true, NULL), 0);
    cr_assert_eq(look("d/hung"), -ENOENT);
    pthread_mutex_lock(&gate);
    hangs = false;
    pthread_cond_broadcast(&gate_changed);
    pthread_mutex_unlock(&gate);
    pthread_join(creator, NULL);
    pthread_join(renamer, NULL);
    cr_assert(look("e/hung") == 0 && look("d") == -ENOENT && stage_has(&stage, 0, "e/hung"));
}

/* ---- a state directory that is full ---- */

static void state_is_full(bool full)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = full ? 1 : limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

Test(names, without_records_nothing_is_made_or_renamed)
{
    signal(SIGXFSZ, SIG_IGN);
    mount_first();
    uint64_t f = stage_make(&stage, "f", S_IFREG | 0600);
    stage_make(&stage, "d", S_IFDIR | 0700);
    stage_make(&stage, "gone", S_IFREG | 0600);
    state_is_full(true);
    cr_assert_lt(stage_create(&stage, NULL, "x", S_IFREG | 0600, NULL), 0);
    cr_assert(look("x") == -ENOENT && !stage_has(&stage, 0, "x"));
    cr_assert_lt(move("f", "y"), 0);
    cr_assert_lt(move("d", "y"), 0);
    cr_assert_lt(stage_unlink(&stage, NULL, "f", true, NULL), 0);
    cr_assert(stage_id(&stage, "f") == f && stage_has(&stage, 0, "f") && stage_has(&stage, 0, "d"));
    cr_assert_eq(stage_unlink(&stage, NULL, "gone", false, NULL), 0);
    cr_assert_eq(look("gone"), -ENOENT);
    state_is_full(false);
    cr_assert_eq(stage_create(&stage, NULL, "x", S_IFREG | 0600, NULL), 0);
    cr_assert_eq(move("f", "y"), 0);
    again(true);
    cr_assert(stage_id(&stage, "y") == f && look("gone") == -ENOENT && look("x") == 0 && look("d") == 0);
}

/* ---- many at once ---- */

#define STORM_THREADS 4
#define STORM_ROUNDS  150

static void *storm(void *argument)
{
    unsigned seed = (unsigned)(uintptr_t)argument;
    char from[32], to[32];
    for (int i = 0; i < STORM_ROUNDS; i++) {
        seed = seed * 1103515245 + 12345;
        struct node parent, other;
        snprintf(from, sizeof(from), "f%u", seed >> 8 & 7);
        snprintf(to, sizeof(to), "f%u", seed >> 12 & 7);
        struct stat st = {.st_mode = S_IFREG | 0600};
        uint64_t id;
        if (stage_look(&stage, seed & 1 << 20 ? "d" : "e", &parent) != 0 ||
            stage_look(&stage, seed & 1 << 21 ? "d" : "e", &other) != 0)
            continue;
        switch (seed >> 16 & 7) {
        case 0:
        case 1:
        case 2:
            names_create(stage.catalog, NULL, parent.id, from, &st, NULL, &other);
            break;
        case 3:
        case 4:
            names_rename(stage.catalog, NULL, parent.id, from, other.id, to, 0, NULL, NULL, &id);
            break;
        case 5:
            names_unlink(stage.catalog, NULL, parent.id, from, NULL, NULL, &id);
            break;
        case 6:
            if (catalog_lookup(stage.catalog, parent.id, from, &other) == 0)
                names_refresh(stage.catalog, other.id, &other);
            break;
        default: /* both directories stand on both datastores */
            names_rename(stage.catalog, NULL, NODE_ROOT, "d", NODE_ROOT, "tmp", 0, NULL, NULL, &id);
            names_rename(stage.catalog, NULL, NODE_ROOT, "tmp", NODE_ROOT, "d", RENAME_NOREPLACE, NULL, NULL, &id);
        }
    }
    return NULL;
}

static int count_name(void *argument, const char *name, const struct node *node)
{
    char path[PATH_MAX];
    unsigned datastore;
    cr_assert_eq(catalog_file(stage.catalog, node->id, &datastore, path), 0);
    cr_assert(stage_has(&stage, datastore, path), "%s is not on datastore %u", path, datastore);
    cr_assert(!stage_has(&stage, !datastore, path), "%s is on both", path);
    ++*(unsigned *)argument;
    return 0;
}

Test(names, many_threads_leave_the_catalog_as_the_datastores_are, .timeout = 120)
{
    pthread_t threads[STORM_THREADS];
    unsigned count = 0, after = 0, found, gone;
    stage_mkdir(&stage, 0, "d");
    stage_mkdir(&stage, 1, "d");
    stage_mkdir(&stage, 1, "e");
    stage_put(&stage, 0, "d/f0", "1");
    stage_put(&stage, 1, "d/f1", "1");
    mount_first();
    for (uintptr_t i = 0; i < STORM_THREADS; i++)
        pthread_create(&threads[i], NULL, storm, (void *)(i + 1));
    for (int i = 0; i < 3; i++)
        cr_assert_eq(names_rescan(stage.catalog, &found, &gone, NULL), 0);
    for (int i = 0; i < STORM_THREADS; i++)
        pthread_join(threads[i], NULL);
    const char *home = look("d") == 0 ? "d" : "tmp";
    cr_assert_eq(catalog_list(stage.catalog, stage_id(&stage, home), 0, count_name, &count), 0);
    cr_assert_eq(catalog_list(stage.catalog, stage_id(&stage, "e"), 0, count_name, &count), 0);
    cr_assert_eq(names_rescan(stage.catalog, &found, &gone, NULL), 0);
    cr_assert(found == 0 && gone == 0, "found %u, gone %u", found, gone);
    again(true);
    cr_assert_eq(catalog_list(stage.catalog, stage_id(&stage, home), 0, count_name, &after), 0);
    cr_assert_eq(catalog_list(stage.catalog, stage_id(&stage, "e"), 0, count_name, &after), 0);
    cr_assert_eq(count, after);
}
