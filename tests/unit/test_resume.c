/* A job that goes on from its journal, whole, on local datastores: how its disk's writes and its own first steps meet. */
#include "stage.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "migrate/job.h"
#include "migrate/journal.h"
#include "migrate/journal_files.h"

#define REGIONS 4
#define SIZE    (REGIONS * REGION_SIZE)
#define AT      (1 * REGION_SIZE + 8192) /* of the guest's write */
#define LENGTH  4096

static struct stage stage;
static struct reactor *reactor;
static struct journal_files *journals;
static struct job_record record;
static struct disk *disk;
static struct job *job;
static atomic_bool ended, hangs, written;
static struct journal_files_ops slow;
static const struct journal_files_ops *quick;

static void fill(unsigned datastore, const char *path, char byte)
{
    char name[512];
    static char bytes[REGION_SIZE];
    snprintf(name, sizeof(name), "%s/%c/%s", stage.root, 'a' + (int)datastore, path);
    memset(bytes, byte, sizeof(bytes));
    int fd = open(name, O_WRONLY | O_CREAT, 0644);
    cr_assert_geq(fd, 0, "%s", name);
    for (unsigned i = 0; i < REGIONS; i++)
        cr_assert_eq(write(fd, bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    close(fd);
}

static char byte_at(unsigned datastore, const char *path, uint64_t at)
{
    char name[512], byte = 0;
    snprintf(name, sizeof(name), "%s/%c/%s", stage.root, 'a' + (int)datastore, path);
    int fd = open(name, O_RDONLY);
    if (fd < 0 || pread(fd, &byte, 1, (off_t)at) != 1)
        byte = '?';
    close(fd);
    return byte;
}

/* Waits until the test lets it go. */
static int slow_sync(struct journal_file *file)
{
    while (atomic_load(&hangs))
        usleep(1000);
    return quick->sync(file);
}

static int open_disk(void *argument, uint64_t node, struct disk **out)
{
    *out = disk_get(disk);
    return 0;
}

static void job_has_ended(void *argument, struct job *one)
{
    atomic_store(&ended, true);
}

static void serve_disk(void)
{
    struct image *image;
    cr_assert_eq(stage.datastores[0]->ops->open_image(stage.datastores[0], "disk", true, &image), 0);
    cr_assert_eq(disk_new(&disk, record.node, image), 0);
    struct disk_log *log = job_log(job);
    cr_assert(log, "it is on before the disk is served");
    disk_set_log(disk, log);
    disk_log_put(log);
}

/* A worker has died: all was copied, as its journal says. */
static void begin(void)
{
    char path[128];
    struct sentence why = {""};
    struct journal *journal;
    struct journal_state state = {.key = 1, .epoch = 1, .regions = 1024};
    stage_open(&stage, 2);
    fill(0, "disk", 'o');
    stage_mount(&stage, true);
    cr_assert_eq(reactor_start(&reactor, 0), 0);
    snprintf(path, sizeof(path), "%s/state/jobs", stage.root);
    cr_assert_eq(journal_files_open(&journals, path, NULL, &why), 0, "%s", why.text);
    quick = journals->ops;
    slow = *quick;
    slow.sync = slow_sync;
    journals->ops = &slow;
    record = (struct job_record){.node = stage_id(&stage, "disk"), .source = 0, .target = 1, .request = "b"};
    cr_assert_eq(jobs_put(stage.catalog, &record, NULL), 0);
    cr_assert_eq(jobs_make_partial(stage.catalog, &record, &why), 0, "%s", why.text);
    fill(1, record.partial, 'o');
    strcpy(state.partial, record.partial);
    cr_assert_eq(bits_grow(&state.copied, REGIONS) | bits_grow(&state.touched, 1), 0);
    for (unsigned r = 0; r < REGIONS; r++)
        bits_set(&state.copied, r);
    bits_set(&state.touched, 0);
    cr_assert_eq(journal_create(&journal, journals, record.id, &state), 0);
    journal_close(journal);
    journal_state_free(&state);
    struct job_services services = {.catalog = stage.catalog,
        .reactors = &reactor,
        .reactor_count = 1,
        .target_timeout_ns = 100 * NS_PER_MS,
        .journals = journals,
        .epoch_ns = 3600 * NS_PER_S,
        .window = 4,
        .guest_window = 4,
        .open_disk = open_disk,
        .ended = job_has_ended};
    struct job_request request = {.target = 1, .text = "b"};
    cr_assert_eq(job_new(&job, &services, &request, &record), 0);
    serve_disk();
}

static void done(void)
{
    job_free(job);
    disk_put(disk);
    journal_files_close(journals);
    reactor_stop(reactor);
    stage_close(&stage);
}

TestSuite(resume, .init = begin, .fini = done, .timeout = 60);

/* ---- the guest's write ---- */

static char page[LENGTH];
static struct iovec iov = {page, LENGTH};
static struct disk_io guest;

static void answered(struct disk_io *io)
{
    cr_expect_eq(io->result, 0);
    atomic_store(&written, true);
}

static void released(struct disk_io *io)
{
}

static void write_here(void *argument)
{
    memset(page, 'n', sizeof(page));
    guest = (struct disk_io){.verb = VERB_WRITE,
        .extent = {AT, AT + LENGTH},
        .iov = &iov,
        .iov_count = 1,
        .answered = answered,
        .released = released};
    disk_submit(disk, &guest);
}

static void wait_for(atomic_bool *what)
{
    while (!atomic_load(what))
        usleep(1000);
}

/* ---- the lock that an attachment needs ---- */

static struct lock_request tail = {.mode = LOCK_MODE_COPY, .extent = {SIZE, UINT64_MAX}};

static void hold(void *argument)
{
    cr_assert(region_lock_acquire(disk_lock(disk), &tail));
}

static bool attachment_waits(void)
{
    unsigned count = 0;
    struct region_lock *lock = disk_lock(disk);
    pthread_mutex_lock(&lock->mutex);
    list_for_each (link, &lock->requests)
        count++;
    pthread_mutex_unlock(&lock->mutex);
    return count > 1;
}

/* It is marked, and has reached the source alone. */
Test(resume, law_3_what_is_written_just_before_the_target_is_attached_is_copied_again)
{
    reactor_call(reactor, hold, NULL);
    cr_assert_eq(job_start(job), 0);
    while (!attachment_waits())
        usleep(1000);
    reactor_call(reactor, write_here, NULL);
    wait_for(&written);
    cr_expect_eq(byte_at(1, record.partial, AT), 'o', "the target is not attached yet");
    region_lock_release(disk_lock(disk), &tail);
    wait_for(&ended);
    cr_assert_eq(job_state(job), JOB_DONE);
    cr_expect_eq(byte_at(1, "disk", AT), 'n', "the move lost what was acknowledged");
    cr_expect_eq(byte_at(1, "disk", AT + LENGTH), 'o');
}

/* Its journal hangs while it waits for its turn: the guest goes on as soon as the copy is durably given up. */
Test(resume, who_waits_for_its_turn_holds_nobody)
{
    cr_assert_eq(job_watch(job), 0);
    atomic_store(&hangs, true);
    reactor_call(reactor, write_here, NULL);
    wait_for(&written);
    cr_expect_eq(job_state(job), JOB_QUEUED);
    cr_expect(!stage_has(&stage, 1, record.partial), "the journal speaks of it");
    cr_expect_null(job_log(job));
    atomic_store(&hangs, false);
    cr_assert_eq(job_start(job), 0);
    wait_for(&ended);
    cr_assert_eq(job_state(job), JOB_DONE);
    cr_expect_eq(byte_at(1, "disk", AT), 'n');
    cr_expect_eq(byte_at(1, "disk", 0), 'o');
}

Test(resume, who_waits_for_its_turn_goes_on_from_its_journal)
{
    struct job_result told;
    cr_assert_eq(job_watch(job), 0);
    reactor_call(reactor, write_here, NULL);
    wait_for(&written);
    cr_assert_eq(job_start(job), 0);
    wait_for(&ended);
    cr_assert_eq(job_state(job), JOB_DONE);
    job_describe(job, &told);
    cr_expect(strstr(told.line, " kept=3145728"), "%s", told.line);
    cr_expect_eq(byte_at(1, "disk", AT), 'n');
}

Test(resume, the_mount_ends_before_its_turn)
{
    cr_assert_eq(job_watch(job), 0);
    job_suspend(job);
    wait_for(&ended);
    cr_expect_eq(job_state(job), JOB_QUEUED);
    cr_expect(stage_has(&stage, 1, record.partial));
    cr_expect(stage_has(&stage, 0, "disk"));
}

/* ---- after the commit ---- */

static atomic_int refusals;

/* The source's file cannot be removed, the first times. */
static int refuse_remove(const char *call, const struct datastore *datastore, const char *path)
{
    bool source = datastore == stage.datastores[0] && strcmp(path, "disk") == 0;
    if (strcmp(call, "remove") != 0 || !source || atomic_fetch_sub(&refusals, 1) <= 0)
        return 0;
    return -EIO;
}

/* A datastore that comes just then is not away any more when one looks why it refused. */
Test(resume, what_refuses_once_after_the_commit_is_asked_again)
{
    atomic_store(&refusals, 2);
    stage_hook = refuse_remove;
    cr_assert_eq(job_start(job), 0);
    wait_for(&ended);
    stage_hook = NULL;
    cr_assert_eq(job_state(job), JOB_DONE);
    cr_expect(atomic_load(&refusals) <= 0, "it was not asked");
    cr_expect(!stage_has(&stage, 0, "disk"), "the old file stays");
    cr_expect(stage_has(&stage, 1, "disk"));
}
