#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/local.h"

#define SIZE (5u << 20)

static char folder[] = "local-remove-XXXXXX";
static int parent;
static struct cutter cutter;
static int gate[2];

static void begin(void)
{
    cr_assert_eq(cutter_open(&cutter, "test"), 0);
    cr_assert_not_null(mkdtemp(folder));
    parent = open(folder, O_PATH | O_DIRECTORY);
    cr_assert_geq(parent, 0);
}

static void end(void)
{
    cutter_close(&cutter);
    cr_assert_eq(cutter_owed(&cutter), 0);
    close(parent);
    cr_assert_eq(rmdir(folder), 0);
}

TestSuite(local_remove, .init = begin, .fini = end);

/* Opened for reading; the caller's. */
static int make(const char *name)
{
    char memory[4096];
    int fd = openat(parent, name, O_CREAT | O_RDWR, 0644);
    memset(memory, 7, sizeof(memory));
    for (unsigned at = 0; at < SIZE; at += sizeof(memory))
        cr_assert_eq(write(fd, memory, sizeof(memory)), (ssize_t)sizeof(memory));
    close(fd);
    return openat(parent, name, O_RDONLY);
}

static bool is_whole(int fd)
{
    struct stat st;
    char last = 0;
    return fstat(fd, &st) == 0 && st.st_size == SIZE && pread(fd, &last, 1, SIZE - 1) == 1 && last == 7;
}

static bool is_there(const char *name)
{
    return faccessat(parent, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

Test(local_remove, a_file_alone_goes)
{
    close(make("f"));
    cr_assert_eq(local_unlink(&cutter, parent, "f"), 0);
    cr_assert_not(is_there("f"));
    cr_assert_eq(local_unlink(&cutter, parent, "f"), -ENOENT);
}

static void block(struct work *work)
{
    (void)work;
    static char byte;
    cr_assert_eq(read(gate[0], &byte, 1), 1);
}

Test(local_remove, blocks_are_given_back_by_and_by)
{
    struct work blocker = {.run = block};
    struct stat st;
    cr_assert_eq(pipe(gate), 0);
    int fd = make("f");
    cr_assert_eq(fstat(fd, &st), 0);
    close(fd);
    close(make("g"));
    cr_assert_not(cutter_wait(&cutter));
    pool_run(cutter.pool, &blocker);
    cr_assert_eq(local_unlink(&cutter, parent, "f"), 0);
    cr_assert_eq(cutter_owed(&cutter), (uint64_t)st.st_blocks * 512);
    cr_assert_eq(local_unlink(&cutter, parent, "g"), 0);
    cr_assert_eq(cutter_owed(&cutter), (uint64_t)st.st_blocks * 512);
    cr_assert_eq(write(gate[1], "x", 1), 1);
    unsigned waits = 0;
    while (cutter_wait(&cutter))
        waits++;
    cr_assert_eq(cutter_owed(&cutter), 0);
    cr_assert_eq(fstat(cutter.fd, &st), -1);
    cr_assert_leq(waits, 8);
    close(gate[0]);
    close(gate[1]);
}

Test(local_remove, what_is_open_lives_on)
{
    int fd = make("f");
    cr_assert_eq(local_unlink(&cutter, parent, "f"), 0);
    cr_assert_not(is_there("f"));
    cr_assert(is_whole(fd));
    close(fd);
}

Test(local_remove, what_is_mapped_lives_on)
{
    int fd = make("f");
    const char *memory = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    cr_assert_eq(local_unlink(&cutter, parent, "f"), 0);
    cr_assert_eq(memory[SIZE - 1], 7);
    munmap((void *)(uintptr_t)memory, SIZE);
}

Test(local_remove, what_another_process_has_open_lives_on)
{
    int go[2];
    close(make("f"));
    cr_assert_eq(pipe(go), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = openat(parent, "f", O_RDWR);
        bool opened = fd >= 0 && write(go[1], "x", 1) == 1;
        for (int i = 0; opened && i < 2000 && is_there("f"); i++)
            usleep(10000);
        usleep(50000);
        _exit(opened && is_whole(fd) ? 0 : 1);
    }
    char byte;
    int status;
    cr_assert_eq(read(go[0], &byte, 1), 1);
    cr_assert_eq(local_unlink(&cutter, parent, "f"), 0);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    close(go[0]);
    close(go[1]);
}

Test(local_remove, another_name_of_it_lives_on)
{
    close(make("f"));
    cr_assert_eq(linkat(parent, "f", parent, "g", 0), 0);
    cr_assert_eq(local_unlink(&cutter, parent, "f"), 0);
    int fd = openat(parent, "g", O_RDONLY);
    cr_assert(is_whole(fd));
    close(fd);
    cr_assert_eq(local_unlink(&cutter, parent, "g"), 0);
}

Test(local_remove, what_is_no_file_is_only_unlinked)
{
    close(make("f"));
    cr_assert_eq(symlinkat("f", parent, "link"), 0);
    cr_assert_eq(mkfifoat(parent, "fifo", 0600), 0);
    cr_assert_eq(mkdirat(parent, "d", 0700), 0);
    cr_assert_eq(local_unlink(&cutter, parent, "link"), 0);
    cr_assert_eq(local_unlink(&cutter, parent, "fifo"), 0);
    cr_assert_eq(local_unlink(&cutter, parent, "d"), -EISDIR);
    int fd = openat(parent, "f", O_RDONLY);
    cr_assert(is_whole(fd));
    close(fd);
    cr_assert_eq(unlinkat(parent, "d", AT_REMOVEDIR), 0);
    cr_assert_eq(local_unlink(&cutter, parent, "f"), 0);
}
