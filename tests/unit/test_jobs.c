/* The records of moves: the partial, the commit, and its end through deaths at every step. */
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "stage.h"

static struct stage stage;
static struct job_record record;

static int commit_one(struct catalog *catalog, struct job_record *one)
{
    return jobs_commit(catalog, &one, 1, NULL, NULL);
}

static void open_two(void)
{
    stage_open(&stage, 2);
    stage_mkdir(&stage, 0, "vm");
    stage_put(&stage, 0, "vm/disk", "bytes");
}

static void done(void)
{
    stage_hook = NULL;
    stage_close(&stage);
}

TestSuite(jobs, .init = open_two, .fini = done);

static void begin(void)
{
    struct sentence why = {""};
    memset(&record, 0, sizeof(record));
    record.node = stage_id(&stage, "vm/disk");
    record.source = 0;
    record.target = 1;
    strcpy(record.request, "b");
    cr_assert_eq(jobs_put(stage.catalog, &record, NULL), 0);
    cr_assert_neq(record.id, 0);
    int error = jobs_make_partial(stage.catalog, &record, &why);
    cr_assert_eq(error, 0, "%d %s", error, why.text);
    stage_put(&stage, 1, record.partial, "bytes");
}

static void commit(void)
{
    struct sentence why = {""};
    cr_assert_eq(jobs_copy_attributes(stage.catalog, &record, &why), 0, "%s", why.text);
    cr_assert_eq(commit_one(stage.catalog, &record), 0);
    cr_assert_eq(record.state, JOB_RECORD_COMMITTED);
}

static void complete(void)
{
    struct sentence why = {""};
    int error = jobs_complete(stage.catalog, &record, &why);
    cr_assert_eq(error, 0, "%d %s", error, why.text);
}

static int count_record(void *argument, const struct job_record *one)
{
    ++*(unsigned *)argument;
    return 0;
}

static unsigned records(void)
{
    unsigned count = 0;
    cr_assert_eq(jobs_list(stage.catalog, count_record, &count), 0);
    return count;
}

static struct stat physical(unsigned datastore, const char *path)
{
    char out[512];
    struct stat st;
    snprintf(out, sizeof(out), "%s/%c/%s", stage.root, 'a' + (int)datastore, path);
    cr_assert_eq(lstat(out, &st), 0, "%s", out);
    return st;
}

/* The disk is on one datastore, whole, under its name, and nothing else is left. */
static void check_only_on(unsigned datastore)
{
    cr_assert_eq(stage_where(&stage, "vm/disk"), datastore);
    cr_assert_str_eq(stage_content(&stage, datastore, "vm/disk"), "bytes");
    cr_assert(!stage_has(&stage, !datastore, "vm/disk"));
    cr_assert_eq(stage_hidden(&stage, 0, "") + stage_hidden(&stage, 1, ""), 0);
    cr_assert_eq(records(), 0);
    cr_assert_eq(catalog_files(stage.catalog, datastore), 1);
    cr_assert_eq(catalog_files(stage.catalog, !datastore), 0);
}

Test(jobs, a_move_from_beginning_to_end)
{
    char path[PATH_MAX];
    unsigned datastore;
    stage_mount(&stage, true);
    begin();
    cr_assert(stage_has(&stage, 1, record.partial));
    cr_assert_eq(catalog_file(stage.catalog, record.node, &datastore, path), 0);
    cr_assert_eq(datastore, 0);
    commit();
    jobs_flip(stage.catalog, &record);
    cr_assert_eq(catalog_file(stage.catalog, record.node, &datastore, path), 0);
    cr_assert(datastore == 1 && strcmp(path, record.partial) == 0);
    cr_assert_eq(stage_id(&stage, "vm/disk"), record.node);
    cr_assert_eq(jobs_abandon(stage.catalog, &record), -EBUSY);
    complete();
    check_only_on(1);
    cr_assert_eq(jobs_complete(stage.catalog, &record, NULL), 0); /* again: nothing to do */
    cr_assert_eq(catalog_file(stage.catalog, record.node, &datastore, path), 0);
    cr_assert_str_eq(path, "vm/disk");
    stage_unmount(&stage);
    stage_mount(&stage, true);
    check_only_on(1);
    cr_assert_eq(stage_id(&stage, "vm/disk"), record.node);
}

Test(jobs, the_target_gets_every_attribute)
{
    char value[8];
    struct stat st = {.st_mode = S_IFREG | 04640, .st_atim = {1000, 0}, .st_mtim = {2000, 7}};
    struct node node;
    stage_mount(&stage, true);
    uint64_t id = stage_id(&stage, "vm/disk");
    bool xattrs = names_set_xattr(stage.catalog, id, "user.a", "1", 1, 0) == 0;
    names_set_xattr(stage.catalog, id, "user.b", "2", 1, 0);
    cr_assert_eq(
        names_set_attributes(stage.catalog, id, &st, ATTRIBUTE_MODE | ATTRIBUTE_ATIME | ATTRIBUTE_MTIME, false, &node),
        0);
    begin();
    struct stat is = physical(1, record.partial);
    cr_assert_eq(is.st_mode, S_IFREG | 04640);
    /* What changes later reaches it by the commit's copy. */
    st.st_mode = S_IFREG | 0600;
    cr_assert_eq(names_set_attributes(stage.catalog, id, &st, ATTRIBUTE_MODE | ATTRIBUTE_MTIME, false, &node), 0);
    names_remove_xattr(stage.catalog, id, "user.b");
    cr_assert_eq(commit_one(stage.catalog, &record), 0);
    is = physical(1, record.partial);
    cr_assert(is.st_mode == (S_IFREG | 0600) && is.st_mtim.tv_sec == 2000 && is.st_mtim.tv_nsec == 7);
    /* And what changes while the commit's outcome is not known goes to both. */
    st.st_mode = S_IFREG | 0644;
    cr_assert_eq(names_set_attributes(stage.catalog, id, &st, ATTRIBUTE_MODE, false, &node), 0);
    names_set_xattr(stage.catalog, id, "user.c", "3", 1, 0);
    cr_assert_eq(physical(0, "vm/disk").st_mode, S_IFREG | 0644);
    cr_assert_eq(physical(1, record.partial).st_mode, S_IFREG | 0644);
    jobs_flip(stage.catalog, &record);
    complete();
    if (!xattrs)
        cr_skip_test("no user xattrs in /tmp");
    cr_assert_eq(names_get_xattr(stage.catalog, id, "user.a", value, sizeof(value)), 1);
    cr_assert_eq(names_get_xattr(stage.catalog, id, "user.b", value, sizeof(value)), -ENODATA);
    cr_assert_eq(names_get_xattr(stage.catalog, id, "user.c", value, sizeof(value)), 1);
}

static int refused(uint64_t node, unsigned target, const char *word)
{
    struct job_record one = {.node = node, .source = 0, .target = target};
    struct sentence why = {""};
    int error = jobs_make_partial(stage.catalog, &one, &why);
    cr_assert(strstr(why.text, word), "\"%s\" lacks %s", why.text, word);
    cr_assert_eq(stage_hidden(&stage, 1, "partial-"), 0);
    return error;
}

Test(jobs, refusals_say_why)
{
    stage_mkdir(&stage, 0, "d");
    stage_put(&stage, 0, "d/x", "1");
    stage_mount(&stage, true);
    uint64_t id = stage_id(&stage, "vm/disk");
    cr_assert_eq(refused(stage_id(&stage, "vm"), 1, "not a disk"), -EISDIR);
    cr_assert_eq(refused(stage_make(&stage, "pipe", S_IFIFO | 0600), 1, "pipe"), -EINVAL);
    cr_assert_eq(refused(id, 0, "already"), -EEXIST);
    cr_assert_eq(refused(id, 7, "no such target"), -ENODEV);
    stage_mkdir(&stage, 1, "vm");
    stage_put(&stage, 1, "vm/disk", "foreign");
    cr_assert_eq(refused(id, 1, "datastore b"), -EEXIST);
    stage_drop(&stage, 1, "vm/disk");
    stage_mkdir(&stage, 1, "vm/disk");
    cr_assert_eq(refused(id, 1, "directory"), -EISDIR);
    stage_put(&stage, 1, "d", "a file where a directory should be");
    cr_assert_lt(refused(stage_id(&stage, "d/x"), 1, "datastore b"), 0);
    stage.datastores[1]->away = true;
    cr_assert_eq(refused(id, 1, "away"), -EIO);
    stage.datastores[1]->away = false;
    cr_assert_eq(stage_unlink(&stage, NULL, "vm/disk", true, NULL), 0);
    cr_assert_eq(refused(id, 1, "unlinked"), -ENOENT);
}

Test(jobs, an_abandoned_move_leaves_nothing)
{
    stage_mount(&stage, true);
    begin();
    cr_assert_eq(jobs_abandon(stage.catalog, &record), 0);
    check_only_on(0);
    begin();
    char before[PATH_MAX];
    strcpy(before, record.partial);
    struct sentence why = {""};
    cr_assert_eq(jobs_make_partial(stage.catalog, &record, &why), 0); /* starts over: a new one (law 4) */
    cr_assert_str_neq(before, record.partial);
    cr_assert_eq(stage_hidden(&stage, 1, "partial-"), 1);
    cr_assert_eq(jobs_abandon(stage.catalog, &record), 0);
    check_only_on(0);
}

static int fail_remove(const char *call, const struct datastore *datastore, const char *path)
{
    return strcmp(call, "remove") == 0 && datastore->name[0] == 'b' ? -EIO : 0;
}

static int take_record(void *argument, const struct job_record *one)
{
    *(struct job_record *)argument = *one;
    return 0;
}

Test(jobs, a_partial_that_cannot_go_now_stays_on_record)
{
    stage_mount(&stage, true);
    begin();
    stage_hook = fail_remove;
    cr_assert_eq(jobs_abandon(stage.catalog, &record), -EIO);
    stage_hook = NULL;
    stage_unmount(&stage);
    stage_mount(&stage, true);
    cr_assert_eq(jobs_list(stage.catalog, take_record, &record), 0);
    cr_assert_eq(record.state, JOB_RECORD_ABANDONED);
    cr_assert_eq(jobs_set_aside_strays(stage.catalog), 0);
    cr_assert_eq(stage_hidden(&stage, 1, "stray-"), 0);
    cr_assert_eq(jobs_abandon(stage.catalog, &record), 0);
    check_only_on(0);
}

/* ---- a source that is kept ---- */

static void commit_kept(struct stage *on)
{
    begin();
    strcpy(record.kept, DATASTORE_PRIVATE "/rescued-7");
    commit();
    jobs_flip(on->catalog, &record);
}

static void complete_kept(struct stage *on)
{
    cr_assert_eq(jobs_list(on->catalog, take_record, &record), 0);
    jobs_complete(on->catalog, &record, NULL);
}

/* Law 16: what could not be read all of is not removed, wherever its completion is cut off. */
Test(jobs, a_source_that_is_to_be_kept_gets_a_hidden_name)
{
    static const char *const events[] = {"job-renamed", "job-named", "job-source-removed", "none"};
    stage_mount(&stage, true);
    commit_kept(&stage);
    stage_unmount(&stage);
    for (unsigned i = 0; i < sizeof(events) / sizeof(*events); i++)
        cr_assert_eq(stage_die(&stage, events[i], 1, false, complete_kept), i < 3, "%s", events[i]);
    cr_expect_str_eq(stage_content(&stage, 0, DATASTORE_PRIVATE "/rescued-7"), "bytes");
    cr_expect(!stage_has(&stage, 0, "vm/disk"));
    stage_mount(&stage, true);
    cr_expect_eq(stage_where(&stage, "vm/disk"), 1);
    cr_expect_eq(jobs_set_aside_strays(stage.catalog), 0);
    cr_expect_eq(stage_hidden(&stage, 0, "rescued-"), 1);
}

/* ---- names and moves ---- */

Test(jobs, a_running_move_follows_the_name)
{
    stage_mount(&stage, true);
    begin();
    stage_make(&stage, "home", S_IFDIR | 0700);
    cr_assert_eq(stage_rename(&stage, NULL, "vm/disk", "home/renamed", 0, false, NULL), 0);
    commit();
    cr_assert_str_eq(record.source_file, "home/renamed");
    jobs_flip(stage.catalog, &record);
    cr_assert_eq(stage_rename(&stage, NULL, "home", "house", 0, false, NULL), 0); /* committed, not completed */
    complete();
    cr_assert_eq(stage_where(&stage, "house/renamed"), 1);
    cr_assert_str_eq(stage_content(&stage, 1, "house/renamed"), "bytes");
    cr_assert(!stage_has(&stage, 0, "house/renamed") && !stage_has(&stage, 0, "home/renamed"));
}

Test(jobs, a_committed_move_is_completed_before_its_name_changes)
{
    stage_mount(&stage, true);
    begin();
    commit();
    jobs_flip(stage.catalog, &record);
    cr_assert_eq(stage_rename(&stage, NULL, "vm/disk", "vm/other", 0, false, NULL), 0);
    cr_assert_eq(records(), 0);
    cr_assert(
        stage_where(&stage, "vm/other") == 1 && !stage_has(&stage, 0, "vm/disk") && !stage_has(&stage, 0, "vm/other"));
    complete();
    cr_assert_eq(stage_rename(&stage, NULL, "vm/other", "vm/disk", 0, false, NULL), 0);
    check_only_on(1);
}

Test(jobs, unlink_after_the_commit_takes_both_files)
{
    stage_mount(&stage, true);
    begin();
    commit();
    jobs_flip(stage.catalog, &record);
    cr_assert_eq(stage_unlink(&stage, NULL, "vm/disk", false, NULL), 0);
    cr_assert(!stage_has(&stage, 0, "vm/disk") && !stage_has(&stage, 1, "vm/disk"));
    cr_assert_eq(stage_hidden(&stage, 1, "partial-"), 0);
    complete();
}

Test(jobs, a_disk_that_was_unlinked_is_not_committed)
{
    stage_mount(&stage, true);
    begin();
    cr_assert_eq(stage_unlink(&stage, NULL, "vm/disk", true, NULL), 0);
    cr_assert_eq(commit_one(stage.catalog, &record), -ECANCELED);
    cr_assert_eq(jobs_abandon(stage.catalog, &record), 0);
    cr_assert_eq(stage_hidden(&stage, 1, "partial-"), 0);
}

static int fail_source(const char *call, const struct datastore *datastore, const char *path)
{
    return strcmp(call, "remove") == 0 && datastore->name[0] == 'a' ? -EIO : 0;
}

Test(jobs, a_source_that_cannot_be_removed_is_no_conflict)
{
    struct sentence why = {""};
    unsigned found, gone;
    stage_mount(&stage, true);
    begin();
    commit();
    jobs_flip(stage.catalog, &record);
    stage_hook = fail_source;
    cr_assert_eq(jobs_complete(stage.catalog, &record, &why), -EIO);
    cr_assert(strstr(why.text, "datastore a"), "%s", why.text);
    for (int first = 1; first >= 0; first--) {
        cr_assert(stage_has(&stage, 0, "vm/disk") && stage_has(&stage, 1, "vm/disk"));
        cr_assert_eq(names_rescan(stage.catalog, &found, &gone, NULL), 0);
        cr_assert_eq(stage_where(&stage, "vm/disk"), 1);
        stage_unmount(&stage);
        stage_mount(&stage, first);
    }
    cr_assert_eq(stage_unlink(&stage, NULL, "vm/disk", false, NULL), -EIO); /* it would come back */
    stage_hook = NULL;
    complete();
    check_only_on(1);
}

Test(jobs, a_target_that_was_lost_removes_nothing)
{
    struct sentence why = {""};
    struct node node;
    stage_mount(&stage, true);
    begin();
    commit();
    jobs_flip(stage.catalog, &record);
    stage_unmount(&stage);
    stage_drop(&stage, 1, record.partial);
    stage_mount(&stage, true);
    cr_assert_eq(stage_look(&stage, "vm/disk", &node), -EIO);
    cr_assert_lt(jobs_complete(stage.catalog, &record, &why), 0);
    cr_assert_str_eq(stage_content(&stage, 0, "vm/disk"), "bytes");
}

/* ---- deaths ---- */

static void act_move(struct stage *unused)
{
    begin();
    commit();
    jobs_flip(stage.catalog, &record);
    complete();
}

static void recover(void)
{
    struct job_record found = {0};
    jobs_list(stage.catalog, take_record, &found);
    record = found;
    if (found.id && found.state == JOB_RECORD_COMMITTED)
        complete();
    else if (found.id)
        cr_assert_eq(jobs_abandon(stage.catalog, &found), 0);
    cr_assert_eq(jobs_set_aside_strays(stage.catalog), 0);
}

Test(jobs, a_death_at_any_step_leaves_one_disk, .timeout = 120)
{
    static const struct {
        const char *event;
        unsigned on;
    } steps[] = {
        {"job-partial-recorded", 0},
        {"job-partial-made", 0},
        {"job-commit", 0},
        {"job-committed", 1},
        {"job-renamed", 1},
        {"job-named", 1},
        {"job-source-removed", 1},
        {"job-dropped", 1},
    };
    for (unsigned i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        for (int first = 0; first < 2; first++) {
            char command[256];
            snprintf(command, sizeof(command), "cd %s && rm -rf state a/* b/* a/.svmfs b/.svmfs", stage.root);
            cr_assert_eq(system(command), 0);
            stage_mkdir(&stage, 0, "vm");
            stage_put(&stage, 0, "vm/disk", "bytes");
            stage_mount(&stage, true);
            stage_unmount(&stage);
            cr_assert(stage_die(&stage, steps[i].event, 1, false, act_move), "%s is never passed", steps[i].event);
            stage_mount(&stage, first);
            cr_assert_eq(stage_where(&stage, "vm/disk"), steps[i].on, "after %s", steps[i].event);
            struct node node;
            uint64_t id = stage_id(&stage, "vm/disk");
            cr_assert_eq(names_refresh(stage.catalog, id, &node), 0, "after %s", steps[i].event);
            recover();
            cr_assert_eq(names_refresh(stage.catalog, id, &node), 0);
            check_only_on(steps[i].on);
            stage_unmount(&stage);
            stage_mount(&stage, true);
            cr_assert_eq(stage_id(&stage, "vm/disk"), id);
            check_only_on(steps[i].on);
            stage_unmount(&stage);
        }
}

static int fail_target(const char *call, const struct datastore *datastore, const char *path)
{
    return strcmp(call, "set_attributes") == 0 && datastore->name[0] == 'b' ? -EIO : 0;
}

Test(jobs, a_target_that_fails_before_the_commit_is_told_apart)
{
    stage_mount(&stage, true);
    begin();
    stage_hook = fail_target;
    cr_assert_eq(commit_one(stage.catalog, &record), -EAGAIN);
    stage_hook = NULL;
    cr_assert_eq(jobs_abandon(stage.catalog, &record), 0);
    check_only_on(0);
}

/* Law 1: the outcome of a failed commit is unknown to the caller; a later one counts. */
Test(jobs, a_commit_that_cannot_be_written_can_be_repeated)
{
    struct rlimit limit;
    char path[PATH_MAX];
    unsigned datastore;
    signal(SIGXFSZ, SIG_IGN);
    stage_mount(&stage, true);
    begin();
    cr_assert_eq(jobs_copy_attributes(stage.catalog, &record, NULL), 0);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = 1;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_lt(commit_one(stage.catalog, &record), 0);
    cr_assert_eq(record.state, JOB_RECORD_RUNNING);
    cr_assert_eq(catalog_file(stage.catalog, record.node, &datastore, path), 0);
    cr_assert_eq(datastore, 0);
    cr_assert_eq(jobs_abandon(stage.catalog, &record), -EBUSY); /* it may be committed */
    limit.rlim_cur = limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(commit_one(stage.catalog, &record), 0);
    jobs_flip(stage.catalog, &record);
    complete();
    check_only_on(1);
}

Test(jobs, records_and_results_survive)
{
    struct job_result result = {"state=done", "a sentence"}, loaded;
    struct job_record found;
    stage_mount(&stage, true);
    begin();
    uint64_t id = record.node;
    cr_assert_eq(jobs_load_result(stage.catalog, id, &loaded), -ENODATA);
    cr_assert_eq(jobs_store_result(stage.catalog, id, &result), 0);
    stage_unmount(&stage);
    stage_mount(&stage, false);
    cr_assert_eq(jobs_list(stage.catalog, take_record, &found), 0);
    cr_assert(found.id == record.id && found.node == id && found.source == 0 && found.target == 1 &&
              found.state == JOB_RECORD_RUNNING);
    cr_assert(strcmp(found.request, "b") == 0 && strcmp(found.partial, record.partial) == 0);
    cr_assert_eq(jobs_load_result(stage.catalog, id, &loaded), 0);
    cr_assert(strcmp(loaded.line, result.line) == 0 && strcmp(loaded.error, result.error) == 0);
    cr_assert_eq(jobs_set_aside_strays(stage.catalog), 0);
    cr_assert(stage_has(&stage, 1, record.partial)); /* it has an owner */
    cr_assert_eq(jobs_abandon(stage.catalog, &found), 0);
}

Test(jobs, strays_are_set_aside_and_never_shown)
{
    struct node node;
    stage_mkdir(&stage, 1, ".svmfs");
    stage_put(&stage, 1, ".svmfs/partial-9-00", "unknown");
    stage_put(&stage, 1, ".svmfs/stray-9-00", "another");
    stage_mount(&stage, true);
    cr_assert_eq(jobs_set_aside_strays(stage.catalog), 0);
    cr_assert_eq(stage_hidden(&stage, 1, "partial-"), 0);
    cr_assert_eq(stage_hidden(&stage, 1, "stray-"), 2);
    cr_assert_str_eq(stage_content(&stage, 1, ".svmfs/stray-9-00"), "another");
    cr_assert_eq(stage_look(&stage, ".svmfs", &node), -ENOENT);
}
