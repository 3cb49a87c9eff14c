/* What moves with a directory: the commit is for all or for none. */
#include <stdlib.h>

#include "stage.h"

static struct stage stage;
static struct job_record family, members[2];

static void make_member(struct job_record *record, const char *path)
{
    struct sentence why = {""};
    *record = (struct job_record){.node = stage_id(&stage, path), .target = 1, .state = JOB_RECORD_MEMBER};
    strcpy(record->request, "b");
    cr_assert_eq(jobs_put(stage.catalog, record, NULL), 0);
    cr_assert_eq(jobs_make_partial(stage.catalog, record, &why), 0, "%s", why.text);
    cr_assert_eq(jobs_copy_attributes(stage.catalog, record, &why), 0, "%s", why.text);
}

static void copy_directories(void)
{
    struct sentence why = {""};
    uint64_t *ids;
    size_t count;
    cr_assert_eq(jobs_find_directories(stage.catalog, family.node, &ids, &count), 0);
    for (size_t i = 0; i < count; i++)
        cr_assert_eq(jobs_copy_directory(stage.catalog, &family, ids[i], &why), 0, "%s", why.text);
    free(ids);
}

static void begin(void)
{
    stage_open(&stage, 2);
    stage_mkdir(&stage, 0, "vm");
    stage_mkdir(&stage, 0, "vm/sub");
    stage_put(&stage, 0, "vm/one", "1");
    stage_put(&stage, 0, "vm/sub/two", "2");
    stage_mount(&stage, true);
    family = (struct job_record){.node = stage_id(&stage, "vm"), .target = 1};
    strcpy(family.request, "b");
    cr_assert_eq(jobs_put(stage.catalog, &family, NULL), 0);
    make_member(&members[0], "vm/one");
    make_member(&members[1], "vm/sub/two");
    copy_directories();
}

static int commit(size_t count)
{
    struct job_record *records[] = {&members[0], &members[1]};
    return jobs_commit(stage.catalog, records, count, &family, NULL);
}

static void end(void)
{
    stage_close(&stage);
}

TestSuite(family, .init = begin, .fini = end);

static bool home_is(const char *path, unsigned datastore)
{
    struct node node;
    cr_assert_eq(stage_look(&stage, path, &node), 0);
    return node.datastore == datastore;
}

Test(family, all_switch_in_one_transaction)
{
    cr_assert_eq(commit(2), 0);
    jobs_flip(stage.catalog, &members[0]);
    jobs_flip(stage.catalog, &members[1]);
    jobs_flip(stage.catalog, &family);
    cr_assert(home_is("vm/one", 1) && home_is("vm/sub/two", 1) && home_is("vm", 1) && home_is("vm/sub", 1));
    cr_assert_eq(jobs_complete_family(stage.catalog, &family), 0); /* the members first */
    cr_assert(stage_has(&stage, 1, "vm/one") && stage_has(&stage, 1, "vm/sub/two"));
    cr_assert(!stage_has(&stage, 0, "vm"));
    cr_assert_eq(jobs_moving(stage.catalog, family.node), 0);
}

Test(family, nothing_below_may_be_left_out)
{
    cr_assert_eq(commit(1), -EAGAIN); /* vm/sub/two would stay behind */
    cr_assert(home_is("vm", 0) && home_is("vm/one", 0));
    stage_make(&stage, "vm/sub/new", S_IFREG | 0644);
    cr_assert_eq(commit(2), -EAGAIN);
    cr_assert_eq(stage_unlink(&stage, NULL, "vm/sub/new", false, NULL), 0);
    cr_assert_eq(commit(2), 0);
}

Test(family, a_directory_made_or_changed_since_is_copied_first)
{
    uint64_t sub = stage_id(&stage, "vm/sub");
    stage_make(&stage, "vm/later", S_IFDIR | 0755);
    cr_assert_eq(commit(2), -EAGAIN);
    copy_directories();
    cr_assert_eq(names_set_xattr(stage.catalog, sub, "user.note", "x", 1, 0), 0);
    cr_assert_eq(commit(2), -EAGAIN);
    copy_directories();
    cr_assert_eq(commit(2), 0);
}

Test(family, an_unlinked_member_stops_the_commit_for_all)
{
    cr_assert_eq(stage_unlink(&stage, NULL, "vm/sub/two", false, NULL), 0);
    cr_assert_eq(commit(2), -ECANCELED);
    cr_assert(home_is("vm/one", 0));
    cr_assert_eq(commit(1), 0);
}

Test(family, what_overlaps_is_told)
{
    uint64_t sub = stage_id(&stage, "vm/sub"), vm = family.node;
    cr_assert_neq(jobs_overlap(stage.catalog, sub), 0);
    cr_assert_neq(jobs_overlap(stage.catalog, vm), 0);
    stage_make(&stage, "apart", S_IFDIR | 0755);
    cr_assert_eq(jobs_overlap(stage.catalog, stage_id(&stage, "apart")), 0);
    cr_assert_neq(jobs_overlap(stage.catalog, stage_id(&stage, "vm/one")), 0);
}
