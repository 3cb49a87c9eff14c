#include "datastore_cases.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define CALL(verb, ...) (rig->datastore->ops->verb(rig->datastore, __VA_ARGS__))

static int make(struct rig *rig, const char *path, mode_t mode)
{
    struct stat st = {.st_mode = mode, .st_uid = geteuid(), .st_gid = getegid(), .st_rdev = makedev(1, 3)};
    return CALL(create, path, &st, S_ISLNK(mode) ? "some/where" : NULL);
}

static mode_t mode_of(struct rig *rig, const char *path)
{
    struct stat st;
    expect_equal(CALL(lookup, path, &st), 0);
    return st.st_mode;
}

static int look(struct rig *rig, const char *path)
{
    struct stat st;
    return CALL(lookup, path, &st);
}

void case_types(struct rig *rig)
{
    static const mode_t types[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
    struct image *image;
    char target[64];
    for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        char name[16];
        bool device = S_ISCHR(types[i]) || S_ISBLK(types[i]);
        struct stat st;
        snprintf(name, sizeof(name), "type-%u", i);
        if (device && geteuid() != 0)
            continue;
        expect_equal(make(rig, name, types[i] | 0640), 0);
        expect_equal(CALL(lookup, name, &st), 0);
        expect_equal(st.st_mode & S_IFMT, types[i]);
        if (device)
            expect_equal(st.st_rdev, makedev(1, 3));
        if (!S_ISREG(types[i]))
            expect(CALL(open_image, name, true, &image) < 0);
        if (S_ISLNK(types[i])) {
            expect_equal(CALL(readlink, name, target, sizeof(target)), 0);
            expect(strcmp(target, "some/where") == 0);
            expect_equal(CALL(readlink, name, target, 10), -ERANGE);
            expect_equal(CALL(readlink, name, target, 11), 0);
            expect_equal(st.st_size, 10);
        } else {
            expect_equal(st.st_mode & 07777, 0640);
            expect_equal(CALL(readlink, name, target, sizeof(target)), -EINVAL);
        }
    }
}

void case_exact_modes(struct rig *rig)
{
    static const mode_t modes[] = {0, 0777, 0666, 04755, 02755, 01777, 07777, 0400};
    mode_t mask = umask(077);
    for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        char name[16];
        snprintf(name, sizeof(name), "f%u", i);
        expect_equal(make(rig, name, S_IFREG | modes[i]), 0);
        expect_equal(mode_of(rig, name), S_IFREG | modes[i]);
        snprintf(name, sizeof(name), "d%u", i);
        expect_equal(make(rig, name, S_IFDIR | modes[i]), 0);
        expect_equal(mode_of(rig, name), S_IFDIR | modes[i]);
    }
    umask(mask);
    if (geteuid() == 0) {
        struct stat st = {.st_mode = S_IFREG | 06711, .st_uid = 12, .st_gid = 34};
        expect_equal(CALL(create, "owned", &st, NULL), 0);
        expect_equal(CALL(lookup, "owned", &st), 0);
        expect(st.st_uid == 12 && st.st_gid == 34 && st.st_mode == (S_IFREG | 06711));
        st = (struct stat){.st_mode = S_IFLNK, .st_uid = 56, .st_gid = 78};
        expect_equal(CALL(create, "owned-link", &st, "owned"), 0);
        expect_equal(CALL(lookup, "owned-link", &st), 0);
        expect(st.st_uid == 56 && st.st_gid == 78);
        expect_equal(CALL(lookup, "owned", &st), 0);
        expect(st.st_uid == 12 && st.st_gid == 34);
    }
}

void case_exclusive(struct rig *rig)
{
    static const mode_t types[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK};
    enum { TYPES = sizeof(types) / sizeof(types[0]) };
    for (unsigned i = 0; i < TYPES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "taken-%u", i);
        expect_equal(make(rig, name, types[i] | 0600), 0);
        for (unsigned j = 0; j < TYPES; j++)
            expect_equal(make(rig, name, types[j] | 0644), -EEXIST);
        expect_equal(mode_of(rig, name) & S_IFMT, types[i]);
    }
    expect_equal(make(rig, "", S_IFDIR | 0755), -EEXIST);
    expect_equal(make(rig, "odd", 0644), -EINVAL);
    expect_equal(look(rig, "odd"), -ENOENT);
}

static void put(struct rig *rig, const char *name, int value)
{
    unsigned char byte = (unsigned char)value;
    struct image *image = rig_image(rig, name, 0);
    expect_equal(rig_write(rig, image, 0, &byte, 1, 0), 0);
    image_put(image);
}

static int get(struct rig *rig, const char *name)
{
    unsigned char byte = 0;
    struct image *image = NULL;
    expect_equal(CALL(open_image, name, false, &image), 0);
    expect_equal(rig_read(rig, image, 0, &byte, 1, 0), 0);
    image_put(image);
    return byte;
}

void case_renames(struct rig *rig)
{
    put(rig, "a", 1);
    put(rig, "b", 2);
    expect_equal(CALL(rename, "a", "b", false), -EEXIST);
    expect(get(rig, "a") == 1 && get(rig, "b") == 2);
    expect_equal(CALL(rename, "a", "c", false), 0);
    expect_equal(look(rig, "a"), -ENOENT);
    expect_equal(get(rig, "c"), 1);
    expect_equal(CALL(rename, "c", "b", true), 0);
    expect_equal(look(rig, "c"), -ENOENT);
    expect_equal(get(rig, "b"), 1);
    expect_equal(CALL(rename, "none", "x", false), -ENOENT);
    expect_equal(CALL(rename, "none", "b", true), -ENOENT);
    expect_equal(CALL(rename, "b", "none/x", true), -ENOENT);
    expect_equal(CALL(rename, "b", "b", true), 0);
    expect_equal(get(rig, "b"), 1);
    expect_equal(make(rig, "link", S_IFLNK), 0);
    expect_equal(CALL(rename, "link", "b", false), -EEXIST);
    expect_equal(CALL(rename, "link", "link2", false), 0);
    expect(S_ISLNK(mode_of(rig, "link2")));
    expect_equal(CALL(rename, "b", "link2", true), 0);
    expect_equal(get(rig, "link2"), 1);
}

/* POSIX lets a filesystem say either of a directory that is not empty. */
static bool is_full(int error)
{
    return error == -ENOTEMPTY || error == -EEXIST;
}

void case_directories(struct rig *rig)
{
    expect_equal(make(rig, "d", S_IFDIR | 0755), 0);
    expect_equal(make(rig, "d/e", S_IFDIR | 0755), 0);
    put(rig, "d/e/f", 3);
    put(rig, "plain", 4);
    expect_equal(CALL(rename, "d", "d/e/g", false), -EINVAL);
    expect_equal(CALL(rename, "plain", "d", true), -EISDIR);
    expect_equal(CALL(rename, "d", "plain", true), -ENOTDIR);
    expect_equal(CALL(rename, "d", "plain", false), -EEXIST);
    expect_equal(make(rig, "other", S_IFDIR | 0755), 0);
    expect(is_full(CALL(rename, "other", "d", true)));
    expect_equal(CALL(rename, "d", "other", true), 0);
    expect_equal(get(rig, "other/e/f"), 3);
    expect_equal(CALL(rename, "other/e/f", "f", false), 0);
    expect_equal(get(rig, "f"), 3);
    expect_equal(CALL(rename, "f", "other/e/f", false), 0);
    expect_equal(CALL(sync_directory, "other/e/f"), 0);
    expect_equal(CALL(sync_directory, "other"), 0);
    expect_equal(CALL(sync_directory, ""), 0);
    expect(CALL(sync_directory, "none/f") < 0);
    expect_equal(look(rig, "plain/below"), -ENOTDIR);
    expect_equal(make(rig, "plain/below", S_IFREG | 0644), -ENOTDIR);
    expect_equal(make(rig, "none/below", S_IFREG | 0644), -ENOENT);
}

void case_removes(struct rig *rig)
{
    expect_equal(make(rig, "f", S_IFREG | 0644), 0);
    expect_equal(make(rig, "d", S_IFDIR | 0755), 0);
    expect_equal(make(rig, "d/f", S_IFREG | 0644), 0);
    expect_equal(make(rig, "l", S_IFLNK), 0);
    expect_equal(CALL(remove, "f", true), -ENOTDIR);
    expect_equal(CALL(remove, "d", false), -EISDIR);
    expect(is_full(CALL(remove, "d", true)));
    expect_equal(CALL(remove, "none", false), -ENOENT);
    expect_equal(CALL(remove, "none", true), -ENOENT);
    expect(CALL(remove, "", true) < 0);
    expect_equal(CALL(remove, "d/f", false), 0);
    expect_equal(CALL(remove, "d", true), 0);
    expect_equal(CALL(remove, "f", false), 0);
    expect_equal(CALL(remove, "l", false), 0);
    expect_equal(look(rig, "f"), -ENOENT);
    expect_equal(look(rig, "d"), -ENOENT);
    expect_equal(look(rig, "l"), -ENOENT);
}

struct seen {
    unsigned count, stop_at;
    char names[8][32];
    mode_t modes[8];
};

static int see(void *argument, const char *name, const struct stat *st)
{
    struct seen *seen = argument;
    snprintf(seen->names[seen->count], sizeof(seen->names[0]), "%s", name);
    seen->modes[seen->count++] = st->st_mode;
    return seen->count == seen->stop_at ? -EINTR : 0;
}

static mode_t seen_mode(const struct seen *seen, const char *name)
{
    for (unsigned i = 0; i < seen->count; i++)
        if (strcmp(seen->names[i], name) == 0)
            return seen->modes[i];
    return 0;
}

void case_lists(struct rig *rig)
{
    struct seen root = {0}, below = {0}, stopped = {.stop_at = 2}, none = {0};
    expect_equal(make(rig, "f", S_IFREG | 0644), 0);
    expect_equal(make(rig, "d", S_IFDIR | 0755), 0);
    expect_equal(make(rig, "d/g", S_IFIFO | 0600), 0);
    expect_equal(make(rig, "l", S_IFLNK), 0);
    int made = make(rig, DATASTORE_PRIVATE, S_IFDIR | 0700); /* some make it themselves */
    expect(made == 0 || made == -EEXIST);
    expect_equal(make(rig, DATASTORE_PRIVATE "/own", S_IFREG | 0600), 0);
    expect_equal(CALL(list, "", see, &root), 0);
    unsigned others = seen_mode(&root, "lost+found") != 0;
    expect_equal(root.count - others, 3);
    expect_equal(seen_mode(&root, "f"), S_IFREG | 0644);
    expect_equal(seen_mode(&root, "d"), S_IFDIR | 0755);
    expect(S_ISLNK(seen_mode(&root, "l")));
    expect_equal(CALL(list, "d", see, &below), 0);
    expect_equal(below.count, 1);
    expect_equal(seen_mode(&below, "g"), S_IFIFO | 0600);
    expect_equal(CALL(list, "", see, &stopped), -EINTR);
    expect_equal(stopped.count, 2);
    expect_equal(CALL(list, DATASTORE_PRIVATE, see, &none), 0);
    expect_equal(none.count, 1);
    expect_equal(CALL(list, "none", see, &none), -ENOENT);
    expect_equal(CALL(list, "f", see, &none), -ENOTDIR);
}

void case_absent(struct rig *rig)
{
    struct stat st = {0};
    struct image *image;
    char text[64], longer[NAME_MAX + 2];
    memset(longer, 'n', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    expect_equal(look(rig, "none"), -ENOENT);
    expect_equal(look(rig, "none/below"), -ENOENT);
    expect_equal(look(rig, longer), -ENAMETOOLONG);
    expect_equal(make(rig, longer, S_IFREG | 0644), -ENAMETOOLONG);
    longer[NAME_MAX] = '\0';
    expect_equal(make(rig, longer, S_IFREG | 0644), 0);
    expect_equal(look(rig, longer), 0);
    expect_equal(look(rig, ""), 0);
    expect(S_ISDIR(mode_of(rig, "")));
    expect_equal(CALL(open_image, "none", true, &image), -ENOENT);
    expect_equal(CALL(open_image, "", true, &image), -EISDIR);
    expect_equal(CALL(readlink, "none", text, sizeof(text)), -ENOENT);
    expect_equal(CALL(set_attributes, "none", &st, ATTRIBUTE_MODE), -ENOENT);
    expect_equal(CALL(get_xattr, "none", "user.x", text, sizeof(text)), -ENOENT);
    expect_equal(CALL(set_xattr, "none", "user.x", "v", 1, 0), -ENOENT);
    expect_equal(CALL(list_xattr, "none", text, sizeof(text)), -ENOENT);
    expect_equal(CALL(remove_xattr, "none", "user.x"), -ENOENT);
}

void case_attributes(struct rig *rig)
{
    struct stat want = {.st_mode = 04751, .st_uid = 77, .st_gid = 88}, got;
    want.st_atim = (struct timespec){1000000001, 5};
    want.st_mtim = (struct timespec){2000000002, 999999999};
    bool root = geteuid() == 0;
    if (!root) {
        want.st_uid = geteuid();
        want.st_gid = getegid();
    }
    expect_equal(make(rig, "f", S_IFREG | 0600), 0);
    expect_equal(make(rig, "p", S_IFIFO | 0600), 0);
    expect_equal(make(rig, "l", S_IFLNK), 0);
    unsigned all = ATTRIBUTE_MODE | ATTRIBUTE_OWNER | ATTRIBUTE_ATIME | ATTRIBUTE_MTIME;
    static const char *const names[] = {"f", "p", ""};
    for (unsigned i = 0; i < 3; i++) {
        expect_equal(CALL(set_attributes, names[i], &want, all), 0);
        expect_equal(CALL(lookup, names[i], &got), 0);
        expect_equal(got.st_mode & 07777, 04751);
        expect(got.st_uid == want.st_uid && got.st_gid == want.st_gid);
        expect(got.st_atim.tv_sec == 1000000001 && got.st_atim.tv_nsec == 5);
        expect(got.st_mtim.tv_sec == 2000000002 && got.st_mtim.tv_nsec == 999999999);
    }
    struct stat part = {.st_uid = (uid_t)-1, .st_gid = (gid_t)-1, .st_mtim.tv_nsec = UTIME_NOW};
    expect_equal(CALL(set_attributes, "f", &part, ATTRIBUTE_MTIME), 0);
    expect_equal(CALL(lookup, "f", &got), 0);
    expect(got.st_mtim.tv_sec != 2000000002 && got.st_atim.tv_sec == 1000000001 && (got.st_mode & 07777) == 04751);
    expect_equal(CALL(set_attributes, "f", &part, ATTRIBUTE_OWNER), 0);
    expect_equal(CALL(lookup, "f", &got), 0);
    expect(got.st_uid == want.st_uid && got.st_gid == want.st_gid);
    expect(CALL(set_attributes, "l", &want, ATTRIBUTE_MODE) < 0);
    expect_equal(CALL(set_attributes, "l", &want, ATTRIBUTE_OWNER | ATTRIBUTE_MTIME), 0);
    expect_equal(CALL(lookup, "l", &got), 0);
    expect(S_ISLNK(got.st_mode) && got.st_uid == want.st_uid);
    if (rig->kind != RIG_NFS) /* there are servers that set no times of symlinks, and say that they have */
        expect(got.st_mtim.tv_sec == 2000000002);
}

void case_xattrs(struct rig *rig)
{
    char value[64], names[64];
    static const char *const paths[] = {"f", "d"};
    expect_equal(make(rig, "f", S_IFREG | 0600), 0);
    expect_equal(make(rig, "d", S_IFDIR | 0700), 0);
    for (unsigned i = 0; i < 2; i++) {
        const char *p = paths[i];
        expect_equal(CALL(list_xattr, p, names, sizeof(names)), 0);
        expect_equal(CALL(get_xattr, p, "user.a", value, sizeof(value)), -ENODATA);
        expect_equal(CALL(set_xattr, p, "user.a", "one", 3, XATTR_REPLACE), -ENODATA);
        expect_equal(CALL(set_xattr, p, "user.a", "one", 3, XATTR_CREATE), 0);
        expect_equal(CALL(set_xattr, p, "user.a", "two", 3, XATTR_CREATE), -EEXIST);
        expect_equal(CALL(get_xattr, p, "user.a", value, sizeof(value)), 3);
        expect(memcmp(value, "one", 3) == 0);
        expect_equal(CALL(set_xattr, p, "user.a", "three\0x", 7, XATTR_REPLACE), 0);
        expect_equal(CALL(get_xattr, p, "user.a", NULL, 0), 7);
        expect_equal(CALL(get_xattr, p, "user.a", value, 6), -ERANGE);
        expect_equal(CALL(get_xattr, p, "user.a", value, 7), 7);
        expect(memcmp(value, "three\0x", 7) == 0);
        expect_equal(CALL(set_xattr, p, "user.bb", "", 0, 0), 0);
        expect_equal(CALL(get_xattr, p, "user.bb", value, sizeof(value)), 0);
        expect_equal(CALL(list_xattr, p, NULL, 0), 7 + 8);
        expect_equal(CALL(list_xattr, p, names, 14), -ERANGE);
        expect_equal(CALL(list_xattr, p, names, sizeof(names)), 15);
        expect_equal(CALL(remove_xattr, p, "user.a"), 0);
        expect_equal(CALL(remove_xattr, p, "user.a"), -ENODATA);
        expect_equal(CALL(list_xattr, p, names, sizeof(names)), 8);
        expect(strcmp(names, "user.bb") == 0);
        expect_equal(CALL(set_xattr, p, "trusted.a", "x", 1, 0), -EOPNOTSUPP);
        expect_equal(CALL(get_xattr, p, "security.selinux", value, sizeof(value)), -EOPNOTSUPP);
    }
    expect_equal(make(rig, "l", S_IFLNK), 0);
    expect_equal(make(rig, "p", S_IFIFO | 0600), 0);
    expect_equal(CALL(set_xattr, "l", "user.a", "x", 1, 0), -EPERM);
    expect_equal(CALL(set_xattr, "p", "user.a", "x", 1, 0), -EPERM);
    expect_equal(CALL(get_xattr, "l", "user.a", value, sizeof(value)), -ENODATA);
    expect_equal(CALL(list_xattr, "p", names, sizeof(names)), 0);
}

/* A symlink in a path is not followed: it is one too many, or no directory. */
static bool stopped(int error)
{
    return error == -ELOOP || error == -ENOTDIR;
}

/* No path leads out of the root, and no symlink is followed, on the way or at its end. */
void case_escapes(struct rig *rig)
{
    char outside[300], victim[400];
    struct stat st = {.st_mode = S_IFLNK, .st_uid = geteuid(), .st_gid = getegid()}, got;
    struct image *image;
    struct seen seen = {0};
    snprintf(outside, sizeof(outside), "%s/outside", rig->scratch);
    snprintf(victim, sizeof(victim), "%s/victim", outside);
    expect_equal(mkdir(outside, 0755), 0);
    int fd = open(victim, O_CREAT | O_WRONLY, 0604);
    expect(fd >= 0 && close(fd) == 0);
    const char *const targets[] = {outside, "../outside", "/proc/self/root"};
    expect_equal(make(rig, "inside", S_IFREG | 0600), 0);
    for (unsigned i = 0; i < 3; i++) {
        char link[16], file[32], made[32];
        snprintf(link, sizeof(link), "link-%u", i);
        snprintf(file, sizeof(file), "link-%u/victim", i);
        snprintf(made, sizeof(made), "link-%u/made", i);
        expect_equal(CALL(create, link, &st, targets[i]), 0);
        expect(stopped(look(rig, file)));
        expect(stopped(make(rig, made, S_IFREG | 0644)));
        expect(stopped(CALL(open_image, file, true, &image)));
        expect(stopped(CALL(remove, file, false)));
        expect(stopped(CALL(rename, "inside", made, true)));
        expect(stopped(CALL(rename, file, "stolen", true)));
        expect(stopped(CALL(list, link, see, &seen)) && seen.count == 0);
        expect(stopped(CALL(set_xattr, file, "user.x", "y", 1, 0)));
        expect(stopped(CALL(set_attributes, file, &st, ATTRIBUTE_MODE)));
        expect(stopped(CALL(sync_directory, file)));
    }
    char at_end[400];
    snprintf(at_end, sizeof(at_end), "%s", victim);
    expect_equal(CALL(create, "end", &st, at_end), 0);
    expect(CALL(open_image, "end", true, &image) < 0);
    expect(S_ISLNK(mode_of(rig, "end")));
    struct stat owner = {.st_uid = 1, .st_gid = 1, .st_mode = 0777};
    CALL(set_attributes, "end", &owner, ATTRIBUTE_OWNER);
    expect(look(rig, "../outside/victim") < 0);
    expect(look(rig, "..") < 0);
    expect(make(rig, "../outside/made", S_IFREG | 0644) < 0);
    expect(make(rig, "..", S_IFDIR | 0755) < 0);
    expect(CALL(rename, "inside", "../outside/made", true) < 0);
    expect(CALL(remove, "../outside/victim", false) < 0);
    expect_equal(stat(victim, &got), 0);
    expect(got.st_size == 0 && (got.st_mode & 07777) == 0604 && got.st_uid == geteuid());
    snprintf(at_end, sizeof(at_end), "%s/made", outside);
    expect(access(at_end, F_OK) < 0);
    expect_equal(look(rig, "inside"), 0);
}

void case_unlinked_while_open(struct rig *rig)
{
    struct image *image = rig_image(rig, "gone", 0);
    expect_equal(rig_write(rig, image, 0, "abc", 3, 0), 0);
    expect_equal(CALL(remove, "gone", false), 0);
    expect_equal(look(rig, "gone"), -ENOENT);
    put(rig, "gone", 9);
    expect_equal(rig_write(rig, image, 3, "def", 3, 0), 0);
    char text[6];
    expect_equal(rig_read(rig, image, 0, text, 6, 0), 0);
    expect(memcmp(text, "abcdef", 6) == 0);
    expect_equal(get(rig, "gone"), 9);
    expect_equal(rig_size(rig, "gone"), 1);
    image_put(image);
}

void case_space(struct rig *rig)
{
    struct statvfs before, after;
    enum { SIZE = 1 << 20 };
    unsigned char *memory = rig_memory(SIZE);
    memset(memory, 1, SIZE);
    expect_equal(CALL(statfs, &before), 0);
    expect(before.f_frsize > 0 && before.f_blocks > 0 && before.f_bavail <= before.f_blocks);
    expect_equal(before.f_namemax, NAME_MAX);
    struct image *image = rig_image(rig, "f", 0);
    expect_equal(rig_write(rig, image, 0, memory, SIZE, IO_DIRECT), 0);
    expect_equal(CALL(statfs, &after), 0);
    expect_equal(after.f_blocks, before.f_blocks);
    expect(rig_blocks(rig, "f") >= SIZE);
    image_put(image);
    free(memory);
}
