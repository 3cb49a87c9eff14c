/* Journals in a directory, and faults by rules. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "migrate/journal.h"

static char folder[64], jobs[80], rules[80];
static struct journal_files *files;
static struct journal *journal;
static struct journal_state state;
static const struct extent range = {3, 5};

static void rule(const char *text)
{
    char beside[100];
    snprintf(beside, sizeof(beside), "%s.new", rules);
    FILE *stream = fopen(beside, "w");
    cr_assert(stream && fputs(text, stream) >= 0 && fclose(stream) == 0 && rename(beside, rules) == 0);
}

static void begin(void)
{
    struct sentence why = {""};
    strcpy(folder, "/tmp/svmfs-journal.XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(jobs, sizeof(jobs), "%s/jobs", folder);
    snprintf(rules, sizeof(rules), "%s/rules", folder);
    cr_assert_eq(journal_files_open(&files, jobs, rules, &why), 0, "%s", why.text);
    state = (struct journal_state){.key = 1, .regions = 10, .partial = "p"};
    cr_assert_eq(journal_create(&journal, files, 1, &state), 0);
}

static void end(void)
{
    char command[100];
    journal_close(journal);
    journal_files_close(files);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

static bool is_marked(void)
{
    struct journal_state got;
    cr_assert_eq(journal_read(files, 1, &got), 0);
    bool marked = bits_has(&got.marked, 3) && bits_has(&got.marked, 4) && !bits_has(&got.marked, 5);
    journal_state_free(&got);
    return marked;
}

static void count(void *argument, uint64_t job)
{
    (*(uint64_t *)argument) += job;
}

Test(journal_files, a_directory, .init = begin, .fini = end)
{
    struct sentence why = {""};
    struct journal_files *again;
    struct journal *other;
    uint64_t sum = 0;
    cr_expect_eq(journal_mark(journal, &range, 1), 0);
    cr_expect(is_marked());
    cr_assert_eq(journal_files_open(&again, jobs, NULL, &why), 0, "it is there already");
    cr_assert_eq(journal_create(&other, again, 20, &state), 0);
    journal_close(other);
    cr_assert_eq(journal_list(again, count, &sum), 0);
    cr_expect_eq(sum, 21);
    cr_expect_eq(journal_remove(again, 20), 0);
    sum = 0;
    journal_list(again, count, &sum);
    cr_expect_eq(sum, 1);
    struct journal_state got;
    cr_expect_eq(journal_read(again, 20, &got), -ENOENT);
    journal_files_close(again);
}

/* An append changes no length, but for once in a step. */
Test(journal_files, room_ahead, .init = begin, .fini = end)
{
    char name[100];
    struct stat before, after;
    unsigned grown = 0;
    snprintf(name, sizeof(name), "%s/1.journal", jobs);
    for (int i = 0; i < 2000; i++) {
        stat(name, &before);
        cr_assert_eq(journal_mark(journal, &range, 1), 0);
        stat(name, &after);
        grown += after.st_size != before.st_size;
        cr_assert((uint64_t)after.st_size >= journal_length(journal));
        cr_assert((uint64_t)after.st_blocks * 512 >= journal_length(journal), "written, no hole");
    }
    cr_expect_eq(grown, journal_length(journal) / 65536);
    cr_expect(is_marked());
}

Test(journal_files, no_directory)
{
    struct sentence why = {""};
    struct journal_files *none;
    cr_expect_eq(journal_files_open(&none, "/proc/none/jobs", NULL, &why), -ENOENT);
    cr_expect(strstr(why.text, "/proc/none/jobs"), "%s", why.text);
    cr_expect_eq(journal_files_open(&none, "/dev/null", NULL, &why), -ENOTDIR);
}

Test(journal_files, error_by_rule, .init = begin, .fini = end)
{
    rule("# a comment\nno rule\nsync error EIO after 1\n");
    cr_expect_eq(journal_mark(journal, &range, 1), 0);
    cr_expect_eq(journal_mark(journal, &range, 1), -EIO);
    rule("");
    cr_expect_eq(journal_mark(journal, &range, 1), -EIO, "it is not taken back");
    struct journal *other;
    rule("write error ENOSPC count 1\n");
    cr_expect_eq(journal_create(&other, files, 2, &state), -ENOSPC);
    cr_assert_eq(journal_create(&other, files, 2, &state), 0);
    rule("write error ENOSPC count 1\nrename error EROFS\n");
    state.key++; /* it is made anew */
    cr_expect_eq(journal_epoch(other, &state.copied, &state), -EROFS, "a line that stays goes on counting");
    cr_expect_eq(journal_mark(other, &range, 1), -EIO);
    journal_close(other);
    cr_assert_eq(journal_read(files, 2, &state), 0);
    cr_expect_eq(state.key, 1, "the one before is there");
    rule("directory error EIO\n");
    cr_expect_eq(journal_remove(files, 2), -EIO);
}

static void *mark(void *argument)
{
    return (void *)(intptr_t)journal_mark(journal, &range, 1);
}

Test(journal_files, hang_by_rule, .init = begin, .fini = end)
{
    pthread_t thread;
    struct timespec until;
    void *result;
    rule("sync hang\n");
    pthread_create(&thread, NULL, mark, NULL);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 200000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    cr_expect_eq(pthread_timedjoin_np(thread, &result, &until), ETIMEDOUT);
    unlink(rules);
    pthread_join(thread, &result);
    cr_expect_eq((intptr_t)result, 0);
    cr_expect(is_marked());
}

Test(journal_files, delay_by_rule, .init = begin, .fini = end)
{
    rule("sync delay 100ms\n");
    uint64_t from = clock_now();
    cr_expect_eq(journal_mark(journal, &range, 1), 0);
    cr_expect_geq(clock_now() - from, 100 * NS_PER_MS);
    cr_expect(is_marked());
}
