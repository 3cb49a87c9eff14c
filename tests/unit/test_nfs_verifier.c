/* What one worker leaves for the next to know, over lives of the server and of the workers. */
#include <criterion/criterion.h>

#include "backends/nfs_verifier.h"

static struct datastore datastore;
static struct nfsds_verifier verifier;
static bool rest;

static void next_worker(void)
{
    nfsds_verifier_init(&verifier, &datastore);
}

static struct nfsds_uncommitted open_file(uint64_t fileid)
{
    struct nfsds_uncommitted file;
    nfsds_uncommitted_init(&verifier, &file, fileid);
    return file;
}

static void write_to(struct nfsds_uncommitted *file, uint64_t stamp)
{
    nfsds_verifier_seen(&verifier, stamp);
    cr_assert(nfsds_uncommitted_add(&verifier, file));
}

static bool is_empty(void *argument)
{
    (void)argument;
    return !rest;
}

/* A COMMIT was answered; is there a loss to tell? */
static bool commit(struct nfsds_uncommitted *file, uint64_t stamp)
{
    nfsds_verifier_seen(&verifier, stamp);
    bool lost = nfsds_uncommitted_lost(&verifier, file, stamp);
    nfsds_uncommitted_settle(&verifier, file, stamp, is_empty, NULL);
    return lost;
}

static void start(void)
{
    rest = false;
    next_worker();
}

Test(nfs_verifier, a_server_that_lives_has_lost_nothing, .init = start)
{
    struct nfsds_uncommitted file = open_file(7);
    write_to(&file, 1);
    next_worker();
    file = open_file(7);
    cr_assert(atomic_load(&file.inherited));
    cr_assert_not(commit(&file, 1));
    next_worker();
    file = open_file(7);
    cr_assert_not(atomic_load(&file.inherited));
}

Test(nfs_verifier, a_server_that_died_has_until_it_is_told, .init = start)
{
    struct nfsds_uncommitted file = open_file(7);
    write_to(&file, 1);
    for (int worker = 0; worker < 3; worker++) {
        next_worker();
        file = open_file(7);
        cr_assert(commit(&file, 2));
        cr_assert(commit(&file, 2));
    }
    nfsds_uncommitted_told(&verifier, &file);
    cr_assert_not(commit(&file, 2));
    next_worker();
    file = open_file(7);
    cr_assert_not(commit(&file, 2));
}

/* A server dies: its workers' own copies are what is written again, and while they are not, the next has none. */
Test(nfs_verifier, between_a_servers_death_and_the_writing_again, .init = start)
{
    struct nfsds_uncommitted file = open_file(7);
    write_to(&file, 1);
    cr_assert(nfsds_verifier_seen(&verifier, 2));
    next_worker();
    file = open_file(7);
    cr_assert(commit(&file, 2));
}

Test(nfs_verifier, what_was_written_again_is_no_loss, .init = start)
{
    struct nfsds_uncommitted file = open_file(7);
    write_to(&file, 1);
    write_to(&file, 2);
    rest = true;
    cr_assert_not(commit(&file, 2));
    next_worker();
    file = open_file(7);
    cr_assert_not(commit(&file, 2));
}

/* One file that nobody opens again is no reason to distrust the others for ever. */
Test(nfs_verifier, a_file_speaks_for_itself_alone, .init = start)
{
    struct nfsds_uncommitted stale = open_file(7), file = open_file(8);
    write_to(&stale, 1);
    next_worker();
    for (int worker = 0; worker < 3; worker++) {
        file = open_file(8);
        write_to(&file, 2);
        next_worker();
        file = open_file(8);
        cr_assert_not(commit(&file, 2));
    }
    stale = open_file(7);
    cr_assert(commit(&stale, 2));
}

Test(nfs_verifier, a_new_file_owes_nothing_for_its_number, .init = start)
{
    struct nfsds_uncommitted file = open_file(7);
    write_to(&file, 1);
    next_worker();
    nfsds_verifier_forget(&verifier, 7);
    file = open_file(7);
    cr_assert_not(commit(&file, 2));
}

/* The second image of a file keeps its place when the first is done. */
Test(nfs_verifier, two_images_of_a_file, .init = start)
{
    struct nfsds_uncommitted one = open_file(7), two = open_file(7);
    write_to(&one, 1);
    write_to(&two, 1);
    nfsds_verifier_seen(&verifier, 2);
    cr_assert_not(commit(&one, 2));
    next_worker();
    one = open_file(7);
    cr_assert(commit(&one, 2));
}

Test(nfs_verifier, a_closed_image_leaves_what_was_not_made_durable, .init = start)
{
    struct nfsds_uncommitted file = open_file(7);
    write_to(&file, 1);
    nfsds_uncommitted_end(&verifier, &file, false);
    file = open_file(7);
    cr_assert(commit(&file, 2));
    nfsds_uncommitted_told(&verifier, &file);
    write_to(&file, 2);
    nfsds_uncommitted_end(&verifier, &file, true);
    file = open_file(7);
    cr_assert_not(atomic_load(&file.inherited));
}

Test(nfs_verifier, a_full_table_refuses_and_is_emptied, .init = start)
{
    struct nfsds_uncommitted files[NFS_PLACES + 1];
    for (unsigned n = 0; n <= NFS_PLACES; n++) {
        files[n] = open_file(n + 1);
        nfsds_verifier_seen(&verifier, 1);
        cr_assert_eq(nfsds_uncommitted_add(&verifier, &files[n]), n < NFS_PLACES);
    }
    cr_assert_not(commit(&files[3], 1));
    cr_assert(nfsds_uncommitted_add(&verifier, &files[NFS_PLACES]));
    next_worker();
    files[3] = open_file(4);
    files[4] = open_file(5);
    cr_assert_not(atomic_load(&files[3].inherited));
    cr_assert(commit(&files[4], 2));
}
