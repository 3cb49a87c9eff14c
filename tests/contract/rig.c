#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/volume/volume.h"

#define CHECK_BYTES (1u << 20)

static const struct datastore_ops *const backends[] = {
    &backend_local, &backend_memory, &backend_nfs, &backend_volume, &backend_fault, NULL};

const char *rig_kind_name(enum rig_kind kind)
{
    static const char *const names[] = {"memory", "local", "nfs", "volume", "fault:memory", "fault:local"};
    return names[kind];
}

bool rig_is_local(const struct rig *rig)
{
    return rig->kind == RIG_LOCAL || rig->kind == RIG_FAULT_LOCAL;
}

void rig_equal(const char *file, int line, const char *what, long long got, long long want)
{
    char text[512];
    if (got == want)
        return;
    snprintf(text, sizeof(text), "%s is %lld (%s), not %lld (%s)", what, got, error_name((int)got), want,
        error_name((int)want));
    rig_fail(file, line, text);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void make_scratch(struct rig *rig)
{
    const char *base = getenv("SVMFS_CONTRACT_DIR");
    if (!base)
        base = getenv("TMPDIR");
    snprintf(rig->scratch, sizeof(rig->scratch), "%s/svmfs-contract-XXXXXX", base ? base : "/tmp");
    expect(mkdtemp(rig->scratch));
    snprintf(rig->faults, sizeof(rig->faults), "%s/faults", rig->scratch);
}

/* ---- NFS: a directory of this test's own on the export that the environment names ---- */

static const char *nfs_directory(const struct rig *rig)
{
    return strrchr(rig->scratch, '/') + 1;
}

static struct datastore *nfs_open(struct rig *rig, const char *url)
{
    struct sentence why = {""};
    struct datastore *datastore;
    struct datastore_options options = {.name = "nfs", .url = url, .timeout_ns = 20000000000, .threads = 4};
    expect_equal(datastore_new(&datastore, &options, backends, &why), 0);
    if (datastore_open(datastore, &why) != 0)
        rig_fail(__FILE__, __LINE__, why.text);
    return datastore;
}

static void nfs_prepare(struct rig *rig, const char *variable)
{
    const char *url = getenv(variable);
    struct stat st = {.st_mode = S_IFDIR | 0755, .st_uid = geteuid(), .st_gid = getegid()};
    char text[100];
    if (!url) {
        snprintf(text, sizeof(text), "%s names no NFS export", variable);
        nftw(rig->scratch, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
        rig_skip(text);
    }
    snprintf(rig->nfs, sizeof(rig->nfs), "%s", url);
    struct datastore *datastore = nfs_open(rig, url);
    expect_equal(datastore->ops->create(datastore, nfs_directory(rig), &st, NULL), 0);
    datastore_free(datastore);
}

static void nfs_url(const struct rig *rig, char *out, size_t size)
{
    const char *question = strchr(rig->nfs, '?');
    int length = question ? (int)(question - rig->nfs) : (int)strlen(rig->nfs);
    snprintf(out, size, "%.*s/%s%s", length, rig->nfs, nfs_directory(rig), question ? question : "");
}

struct removal {
    struct datastore *datastore;
    const char *path;
};

static int nfs_remove(void *argument, const char *name, const struct stat *st)
{
    struct removal *outer = argument;
    char path[PATH_MAX];
    snprintf(path, sizeof(path), "%s/%s", outer->path, name);
    struct removal inner = {outer->datastore, path};
    if (S_ISDIR(st->st_mode))
        outer->datastore->ops->list(outer->datastore, path, nfs_remove, &inner);
    outer->datastore->ops->remove(outer->datastore, path, S_ISDIR(st->st_mode));
    return 0;
}

static void nfs_clean(struct rig *rig)
{
    struct removal all = {nfs_open(rig, rig->nfs), nfs_directory(rig)};
    all.datastore->ops->list(all.datastore, all.path, nfs_remove, &all);
    all.datastore->ops->remove(all.datastore, all.path, true);
    datastore_free(all.datastore);
}

/* ---- a volume on a sparse file ---- */

static void volume_url(const struct rig *rig, char *out, size_t size)
{
    snprintf(out, size, "volume:local:%s/lun", rig->scratch);
}

static void volume_prepare(struct rig *rig, off_t size)
{
    char url[400];
    struct sentence why = {""};
    struct datastore *datastore;
    struct image *raw;
    const struct raw_ops *ops;
    volume_url(rig, url, sizeof(url));
    int fd = open(strchr(strchr(url, ':') + 1, ':') + 1, O_CREAT | O_WRONLY, 0600);
    expect(fd >= 0 && ftruncate(fd, size) == 0 && close(fd) == 0);
    struct datastore_options options = {.name = "one", .url = url, .timeout_ns = 1000000000, .threads = 4};
    expect_equal(datastore_new(&datastore, &options, backends, &why), 0);
    int error = raw_open(datastore, backend_raws, strchr(url, ':') + 1, true, &raw, &ops, &why);
    if (!error)
        error = volume_format(raw, &(struct volume_format_options){.uid = geteuid(), .gid = getegid()}, &why);
    if (error)
        rig_fail(__FILE__, __LINE__, why.text);
    image_close(raw);
    datastore_free(datastore);
}

static void open_at(struct rig *rig, const char *rest)
{
    char url[1000], root[300];
    struct sentence why = {""};
    snprintf(root, sizeof(root), "%s/root", rig->scratch);
    if (rig->kind == RIG_NFS)
        nfs_url(rig, url, sizeof(url));
    else if (rig->kind == RIG_VOLUME)
        volume_url(rig, url, sizeof(url));
    else if (rig_is_local(rig))
        snprintf(url, sizeof(url), "%slocal:%s", rig->kind == RIG_LOCAL ? "" : "fault:", root);
    else
        snprintf(url, sizeof(url), "%smemory:%s", rig->kind == RIG_MEMORY ? "" : "fault:", rest);
    struct datastore_options options = {.name = "one",
        .url = url,
        .timeout_ns = rig->kind == RIG_NFS ? 20000000000 : 1000000000,
        .threads = 4,
        .faults = rig->faults};
    expect_equal(datastore_new(&rig->datastore, &options, backends, &why), 0);
    int error = datastore_open(rig->datastore, &why);
    if (error)
        rig_fail(__FILE__, __LINE__, why.text);
    for (unsigned i = 0; i < RIG_REACTORS; i++)
        expect_equal(reactor_start(&rig->reactors[i], i), 0);
}

void rig_open(struct rig *rig, enum rig_kind kind)
{
    char root[300];
    memset(rig, 0, sizeof(*rig));
    rig->kind = kind;
    make_scratch(rig);
    snprintf(root, sizeof(root), "%s/root", rig->scratch);
    expect_equal(mkdir(root, 0755), 0);
    if (kind == RIG_NFS)
        nfs_prepare(rig, "SVMFS_TEST_NFS");
    if (kind == RIG_VOLUME)
        volume_prepare(rig, 1ll << 30);
    open_at(rig, "");
}

/* The filesystem is detached as soon as the datastore holds its root: no mount is left behind, whatever happens. */
void rig_open_small(struct rig *rig, enum rig_kind kind)
{
    char root[300], command[2000];
    memset(rig, 0, sizeof(*rig));
    rig->kind = kind;
    make_scratch(rig);
    snprintf(root, sizeof(root), "%s/root", rig->scratch);
    expect_equal(mkdir(root, 0755), 0);
    if (kind == RIG_NFS)
        nfs_prepare(rig, "SVMFS_TEST_NFS_SMALL");
    if (kind == RIG_VOLUME)
        volume_prepare(rig, 24ll << 20);
    if (rig_is_local(rig)) {
        snprintf(command, sizeof(command),
            "PATH=$PATH:/sbin:/usr/sbin; truncate -s 20M %s/disk && mkfs.ext4 -q -F -O ^has_journal -m 0 %s/disk "
            "2>/dev/null && "
            "mount -o loop %s/disk %s",
            rig->scratch, rig->scratch, rig->scratch, root);
        if (geteuid() != 0 || system(command) != 0) {
            rig_close(rig);
            rig_skip("a small filesystem needs root, mkfs.ext4 and a free loop device");
        }
    }
    open_at(rig, "16M");
    if (rig_is_local(rig)) {
        snprintf(command, sizeof(command), "umount -l %s", root);
        expect_equal(system(command), 0);
    }
}

void rig_close(struct rig *rig)
{
    datastore_free(rig->datastore);
    for (unsigned i = 0; i < RIG_REACTORS; i++)
        reactor_stop(rig->reactors[i]);
    if (rig->nfs[0])
        nfs_clean(rig);
    nftw(rig->scratch, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void rig_faults(struct rig *rig, const char *rules)
{
    char fresh[320];
    snprintf(fresh, sizeof(fresh), "%s.new", rig->faults);
    FILE *file = fopen(fresh, "w");
    expect(file && fputs(rules, file) >= 0 && fclose(file) == 0);
    expect_equal(rename(fresh, rig->faults), 0);
}

struct image *rig_image(struct rig *rig, const char *name, uint64_t size)
{
    struct stat st = {.st_mode = S_IFREG | 0644, .st_uid = geteuid(), .st_gid = getegid()};
    struct image *image = NULL;
    expect_equal(rig->datastore->ops->create(rig->datastore, name, &st, NULL), 0);
    expect_equal(rig->datastore->ops->open_image(rig->datastore, name, true, &image), 0);
    if (size)
        expect_equal(rig_verb(rig, image, VERB_RESIZE, 0, size, 0), 0);
    return image;
}

static void io_done(struct io *base)
{
    struct rig_io *io = container_of(base, struct rig_io, io);
    pthread_mutex_lock(&io->mutex);
    io->done++;
    pthread_cond_broadcast(&io->ended);
    pthread_mutex_unlock(&io->mutex);
}

struct start {
    struct image *image;
    struct rig_io *io;
};

static void start(void *argument)
{
    struct start *start = argument;
    image_submit(start->image, &start->io->io);
}

void rig_start(struct rig *rig, unsigned reactor, struct image *image, struct rig_io *io)
{
    struct start argument = {image, io};
    pthread_mutex_init(&io->mutex, NULL);
    pthread_cond_init(&io->ended, NULL);
    io->done = 0;
    io->io.done = io_done;
    reactor_call(rig->reactors[reactor % RIG_REACTORS], start, &argument);
}

int rig_wait(struct rig_io *io)
{
    pthread_mutex_lock(&io->mutex);
    while (!io->done)
        pthread_cond_wait(&io->ended, &io->mutex);
    pthread_mutex_unlock(&io->mutex);
    return io->io.result;
}

bool rig_ended(struct rig_io *io)
{
    pthread_mutex_lock(&io->mutex);
    bool ended = io->done > 0;
    pthread_mutex_unlock(&io->mutex);
    return ended;
}

int rig_verb(struct rig *rig, struct image *image, enum verb verb, uint64_t from, uint64_t to, unsigned flags)
{
    struct rig_io io = {.io = {.verb = verb, .extent = {from, to}, .flags = flags}};
    rig_start(rig, 0, image, &io);
    return rig_wait(&io);
}

static int move(
    struct rig *rig, struct image *image, enum verb verb, uint64_t from, void *memory, size_t size, unsigned flags)
{
    struct iovec iov = {memory, size};
    struct rig_io io = {
        .io = {.verb = verb, .extent = {from, from + size}, .flags = flags, .iov = &iov, .iov_count = 1}};
    rig_start(rig, 0, image, &io);
    return rig_wait(&io);
}

int rig_write(struct rig *rig, struct image *image, uint64_t from, const void *memory, size_t size, unsigned flags)
{
    return move(rig, image, VERB_WRITE, from, (void *)(uintptr_t)memory, size, flags);
}

int rig_read(struct rig *rig, struct image *image, uint64_t from, void *memory, size_t size, unsigned flags)
{
    return move(rig, image, VERB_READ, from, memory, size, flags);
}

bool rig_all(struct rig *rig, struct image *image, uint64_t from, uint64_t to, int value, unsigned flags)
{
    unsigned char *memory = rig_memory(CHECK_BYTES);
    bool all = true;
    while (all && from < to) {
        size_t size = to - from < CHECK_BYTES ? (size_t)(to - from) : CHECK_BYTES;
        memset(memory, value ^ 0xff, size);
        expect_equal(rig_read(rig, image, from, memory, size, flags), 0);
        for (size_t i = 0; i < size; i++)
            all &= memory[i] == (unsigned char)value;
        from += size;
    }
    free(memory);
    return all;
}

uint64_t rig_size(struct rig *rig, const char *name)
{
    struct stat st;
    expect_equal(rig->datastore->ops->lookup(rig->datastore, name, &st), 0);
    return (uint64_t)st.st_size;
}

uint64_t rig_blocks(struct rig *rig, const char *name)
{
    struct stat st;
    expect_equal(rig->datastore->ops->lookup(rig->datastore, name, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

void *rig_memory(size_t size)
{
    void *memory = NULL;
    expect_equal(posix_memalign(&memory, 4096, size), 0);
    return memory;
}

void rig_fill(void *memory, size_t size, unsigned seed)
{
    unsigned char *bytes = memory;
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < size; i++) {
        state = state * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(state >> 24);
    }
}
