/* Law 9: a worker dies at every step of every change of names; the next one, or the next mount, makes it whole. */
#include <pthread.h>
#include <stdlib.h>
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

TestSuite(deaths, .init = open_two, .fini = done);

static int look(const char *path)
{
    struct node node;
    return stage_look(&stage, path, &node);
}

/* As the next worker, or after a power loss as the next mount. */
static void again(bool first)
{
    stage_unmount(&stage);
    stage_mount(&stage, first);
}

static const struct origin asked = {3, 77, false}, retried = {3, 77, true};
static struct node made;

struct act {
    const char *name;
    void (*prepare)(void); /* before the mount that dies */
    int (*run)(const struct origin *origin);
    void (*check)(void); /* after it took effect, once */
    const char *events[6];
};

static int run_create(const struct origin *origin)
{
    return stage_create(&stage, origin, "x", S_IFREG | 0640, &made);
}

static void check_create(void)
{
    struct node node;
    cr_assert_eq(stage_look(&stage, "x", &node), 0);
    cr_assert(node.id == made.id && node.st.st_mode == (S_IFREG | 0640));
}

static int run_mkdir(const struct origin *origin)
{
    return stage_create(&stage, origin, "x", S_IFDIR | 0750, &made);
}

static void check_mkdir(void)
{
    struct node node;
    cr_assert_eq(stage_look(&stage, "x", &node), 0);
    cr_assert_eq(node.st.st_mode, S_IFDIR | 0750);
}

static void put_x(void)
{
    stage_put(&stage, 0, "x", "x");
}

static int run_unlink(const struct origin *origin)
{
    return names_unlink(stage.catalog, origin, NODE_ROOT, "x", NULL, NULL, &made.id);
}

static void check_gone(void)
{
    cr_assert(look("x") == -ENOENT && !stage_has(&stage, 0, "x") && !stage_has(&stage, 1, "x"));
}

static int run_unlink_open(const struct origin *origin)
{
    return stage_unlink(&stage, origin, "x", true, &made.id);
}

static void check_orphan(void)
{
    struct node node;
    check_gone();
    cr_assert_eq(catalog_get(stage.catalog, made.id, &node), 0);
    cr_assert(node.orphan);
    cr_assert_eq(names_refresh(stage.catalog, made.id, &node), 0);
    cr_assert_eq(node.st.st_size, 1);
}

static void mkdir_x(void)
{
    stage_mkdir(&stage, 0, "x");
    stage_mkdir(&stage, 1, "x");
}

static int run_rmdir(const struct origin *origin)
{
    return stage_rmdir(&stage, origin, "x");
}

static int run_rename(const struct origin *origin)
{
    return stage_rename(&stage, origin, "x", "y", 0, false, &made.id);
}

static int run_rename_open(const struct origin *origin)
{
    return stage_rename(&stage, origin, "x", "y", 0, true, &made.id);
}

static void check_renamed(void)
{
    check_gone();
    cr_assert_eq(stage_where(&stage, "y"), 0);
    cr_assert_str_eq(stage_content(&stage, 0, "y"), "x");
    cr_assert(!stage_has(&stage, 1, "y"));
}

static void put_both(void)
{
    stage_put(&stage, 0, "x", "x");
    stage_put(&stage, 0, "y", "old");
}

static void put_across(void)
{
    stage_put(&stage, 0, "x", "x");
    stage_put(&stage, 1, "y", "old");
}

static void check_replaced_open(void)
{
    struct node node;
    check_renamed();
    cr_assert_eq(catalog_get(stage.catalog, made.id, &node), 0);
    cr_assert(node.orphan);
    cr_assert_eq(names_refresh(stage.catalog, made.id, &node), 0);
    cr_assert_eq(node.st.st_size, 3);
}

static void mkdir_full(void)
{
    mkdir_x();
    stage_put(&stage, 0, "x/one", "1");
    stage_put(&stage, 1, "x/two", "2");
}

static void mkdir_over(void)
{
    mkdir_full();
    stage_mkdir(&stage, 1, "y");
}

static void check_directory(void)
{
    check_gone();
    cr_assert_eq(stage_where(&stage, "y/one"), 0);
    cr_assert_eq(stage_where(&stage, "y/two"), 1);
    cr_assert_str_eq(stage_content(&stage, 1, "y/two"), "2");
}

static const struct act acts[] = {
    {"create", NULL, run_create, check_create, {"names-datastore", "names-store"}},
    {"mkdir", NULL, run_mkdir, check_mkdir, {"names-datastore", "names-store"}},
    {"unlink", put_x, run_unlink, check_gone, {"names-datastore", "names-store"}},
    {"unlink open", put_x, run_unlink_open, check_orphan, {"names-datastore", "names-store"}},
    {"rmdir", mkdir_x, run_rmdir, check_gone, {"rmdir-part", "names-datastore", "names-store"}},
    {"rename", put_x, run_rename, check_renamed, {"names-datastore", "names-store"}},
    {"rename over", put_both, run_rename, check_renamed, {"names-datastore", "names-store"}},
    {"rename over open", put_both, run_rename_open, check_replaced_open,
        {"intent-recorded", "intent-first", "names-datastore", "names-store"}},
    {"rename across", put_across, run_rename, check_renamed,
        {"intent-recorded", "names-datastore", "names-store", "intent-finished"}},
    {"rename across open", put_across, run_rename_open, check_replaced_open,
        {"intent-recorded", "names-datastore", "names-store", "intent-finished"}},
    {"rename directory", mkdir_full, run_rename, check_directory,
        {"intent-recorded", "intent-first", "intent-part", "names-datastore", "names-store"}},
    {"rename directory over", mkdir_over, run_rename, check_directory,
        {"intent-recorded", "intent-first", "intent-part", "names-datastore", "names-store"}},
};
#define ACTS (sizeof(acts) / sizeof(acts[0]))

static const struct act *current;

static void run_current(struct stage *unused)
{
    cr_assert_eq(current->run(&asked), 0);
}

static void empty_stage(void)
{
    char command[256];
    snprintf(command, sizeof(command), "cd %s && rm -rf state a/* b/* a/.svmfs b/.svmfs", stage.root);
    cr_assert_eq(system(command), 0);
}

/* The worker dies at each step; the next one gets the request again, and another after it too: the effect is one. */
Test(deaths, each_request_takes_effect_once, .timeout = 120)
{
    for (current = acts; current < acts + ACTS; current++)
        for (int i = 0; current->events[i]; i++) {
            empty_stage();
            if (current->prepare)
                current->prepare();
            stage_mount(&stage, true); /* the records of before */
            stage_unmount(&stage);
            cr_assert(stage_die(&stage, current->events[i], 1, false, run_current), "%s never passes %s", current->name,
                current->events[i]);
            stage_mount(&stage, false);
            int error = current->run(&retried);
            cr_assert_eq(error, 0, "%s after %s: %s", current->name, current->events[i], error_name(error));
            current->check();
            uint64_t id = made.id;
            again(false);
            cr_assert_eq(current->run(&retried), 0, "%s, third time", current->name);
            cr_assert_eq(made.id, id);
            current->check();
            stage_unmount(&stage);
        }
}

/* Without the request coming again: the host died. The next mount has it done or not done, never in between or twice.
 */
Test(deaths, a_mount_after_a_death_shows_all_or_nothing, .timeout = 120)
{
    for (current = acts; current < acts + ACTS; current++)
        for (int i = 0; current->events[i]; i++) {
            struct node node;
            empty_stage();
            if (current->prepare)
                current->prepare();
            stage_mount(&stage, true);
            stage_unmount(&stage);
            cr_assert(stage_die(&stage, current->events[i], 1, false, run_current));
            stage_mount(&stage, true);
            int x = look("x"), y = look("y");
            cr_assert((x == 0 || x == -ENOENT) && (y == 0 || y == -ENOENT), "%s after %s: %d %d", current->name,
                current->events[i], x, y);
            cr_assert_eq(stage_hidden(&stage, 0, "orphan-") + stage_hidden(&stage, 1, "orphan-"), 0);
            cr_assert_eq(stage_hidden(&stage, 0, "stray-") + stage_hidden(&stage, 1, "stray-"), 0);
            if (strncmp(current->name, "rename", 6) == 0) {
                cr_assert(x == 0 || y == 0, "%s after %s: lost", current->name, current->events[i]);
                if (x != 0 && stage_look(&stage, "y", &node) == 0 && S_ISDIR(node.st.st_mode))
                    check_directory();
                else if (x != 0)
                    cr_assert_str_eq(stage_content(&stage, 0, "y"), "x");
            }
            again(false);
            cr_assert(look("x") == x && look("y") == y);
            stage_unmount(&stage);
        }
}

Test(deaths, a_recorded_result_is_given_again_whatever_happened_since)
{
    uint64_t removed = 0;
    stage_mount(&stage, true);
    struct node first, second;
    struct origin other = {4, 78, false};
    cr_assert_eq(stage_create(&stage, &asked, "x", S_IFREG | 0600, &first), 0);
    cr_assert_eq(stage_rename(&stage, &other, "x", "y", 0, false, NULL), 0);
    cr_assert_eq(stage_create(&stage, &retried, "x", S_IFREG | 0600, &second), 0);
    cr_assert_eq(second.id, first.id);
    cr_assert(look("x") == -ENOENT && !stage_has(&stage, 0, "x"));
    /* The slot's next request is another one. */
    struct origin next = {3, 79, true};
    cr_assert_eq(stage_unlink(&stage, &next, "y", false, &removed), 0);
    cr_assert_eq(removed, first.id);
    cr_assert_eq(stage_create(&stage, &retried, "x", S_IFREG | 0600, &second), 0);
    cr_assert_neq(second.id, first.id);
    again(true); /* a mount's uniques begin anew */
    cr_assert_eq(stage_create(&stage, &(struct origin){3, 77, true}, "z", S_IFREG | 0600, &second), 0);
    cr_assert_eq(look("z"), 0);
}

static void *late_retry(void *argument)
{
    usleep(50000);
    current->run(&retried);
    return NULL;
}

/* A read of the disk may come to the next worker before the rename that the dead one had half done. */
Test(deaths, a_disk_can_be_reached_before_its_rename_comes_again)
{
    for (current = acts; current < acts + ACTS; current++) {
        pthread_t thread;
        struct node node;
        if (strcmp(current->name, "rename") != 0 && strcmp(current->name, "unlink open") != 0)
            continue;
        empty_stage();
        current->prepare();
        stage_mount(&stage, true);
        uint64_t id = stage_id(&stage, "x");
        stage_unmount(&stage);
        cr_assert(stage_die(&stage, "names-datastore", 1, false, run_current));
        stage_mount(&stage, false);
        pthread_create(&thread, NULL, late_retry, NULL);
        cr_assert_eq(names_refresh(stage.catalog, id, &node), 0, "%s", current->name);
        pthread_join(thread, NULL);
        current->check();
        stage_unmount(&stage);
    }
}

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool hangs;

static int hang_b(const char *call, const struct datastore *datastore, const char *path)
{
    pthread_mutex_lock(&gate);
    while (hangs && datastore->name[0] == 'b')
        pthread_cond_wait(&gate_changed, &gate);
    pthread_mutex_unlock(&gate);
    return 0;
}

static void *retry_thread(void *argument)
{
    cr_assert_eq(current->run(&retried), 0);
    return NULL;
}

/* What a dead worker left half done on a datastore that hangs keeps neither the next worker nor other names waiting. */
Test(deaths, a_worker_follows_while_a_datastore_hangs)
{
    for (current = acts; current < acts + ACTS; current++) {
        pthread_t thread;
        if (strcmp(current->name, "rename directory") != 0 && strcmp(current->name, "rename across open") != 0)
            continue;
        empty_stage();
        current->prepare();
        stage_put(&stage, 0, "other", "1");
        stage_mount(&stage, true);
        stage_unmount(&stage);
        cr_assert(stage_die(&stage, "names-datastore", 1, false, run_current));
        stage_hook = hang_b;
        hangs = true;
        stage_mount(&stage, false);
        pthread_create(&thread, NULL, retry_thread, NULL);
        cr_assert_eq(stage_rename(&stage, NULL, "other", "moved", 0, false, NULL), 0);
        cr_assert_eq(stage_create(&stage, NULL, "new", S_IFREG | 0600, NULL), 0);
        pthread_mutex_lock(&gate);
        hangs = false;
        pthread_cond_broadcast(&gate_changed);
        pthread_mutex_unlock(&gate);
        pthread_join(thread, NULL);
        stage_hook = NULL;
        current->check();
        stage_unmount(&stage);
    }
}

Test(deaths, what_cannot_be_completed_yet_waits_for_its_datastore)
{
    unsigned found, gone;
    current = acts;
    while (strcmp(current->name, "rename across") != 0)
        current++;
    current->prepare();
    stage_mount(&stage, true);
    stage_unmount(&stage);
    cr_assert(stage_die(&stage, "names-store", 1, false, run_current));
    stage.datastores[1]->away = true;
    stage_mount(&stage, true);
    cr_assert(stage_where(&stage, "y") == 0 && stage_has(&stage, 1, "y"));
    stage.datastores[1]->away = false;
    cr_assert_eq(names_rescan(stage.catalog, &found, &gone, NULL), 0);
    check_renamed();
}
