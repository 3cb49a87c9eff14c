/* recorder: raw devices that write down all that is done to them.
 *
 * `serve` is a FUSE filesystem of a few plain files of fixed size, held in memory. Loop devices are set up on them; whatever
 * stands on those devices is written through. Requests are carried out one at a time, and each that changes anything is
 * appended to ONE log for all files before it is answered: writes with their data, ranges that become zeroes, flushes. So
 * the log is the order in which the devices took what they were sent. How many records it has is at any moment in the first 8
 * bytes of LOG.count, to be mapped or read by whoever wants to know what was in the log when something was answered to him.
 *
 * `make` writes the files as they were after the first COUNT records. As `answered` they hold all that the devices had
 * answered: a power loss with no cache behind the devices, or one that lost nothing. As `flushed` each holds what came before
 * its last flush alone: a cache that lost all of it. Between these lie the subsets; any of them, and torn sectors, are what
 * volume-power, journal-power and legs-power forget. A record is there or not there as a whole; records do not change places.
 *
 * `list` prints the records, a line each: number, kind, file, offset, length. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FILES = 4, NAME = 24, MOST = 1 << 20, FIRST_NODE = 2 };
enum kind { KIND_WRITE, KIND_ZERO, KIND_FLUSH };

static const char *const kinds[] = {"write", "zero", "flush"};
static const char magic[8] = "recorded";

struct head {
    char magic[8];
    uint64_t count;
    struct {
        char name[NAME];
        uint64_t size;
    } files[FILES];
};

/* The bytes of a write follow it. */
struct record {
    uint32_t kind, file;
    uint64_t offset, length;
};

static struct head head;
static uint8_t *contents[FILES];
static FILE *out;
static volatile uint64_t *count;
static int device;

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "recorder: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    exit(1);
}

static void *map(size_t length, int flags, int fd)
{
    void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED)
        fail("no memory for %zu bytes: %s", length, strerror(errno));
    return memory;
}

/* ---- serve ---- */

static void note(enum kind kind, uint32_t file, uint64_t offset, uint64_t length, const void *data)
{
    struct record record = {kind, file, offset, length};
    if (fwrite(&record, sizeof record, 1, out) != 1 || (data && length && fwrite(data, length, 1, out) != 1))
        fail("the log cannot be written: %s", strerror(errno));
    __atomic_store_n(count, *count + 1, __ATOMIC_SEQ_CST);
}

static void reply(const struct fuse_in_header *in, int error, const void *data, size_t length)
{
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof header + (error ? 0 : length)), .error = error, .unique = in->unique};
    struct iovec parts[] = {{&header, sizeof header}, {(void *)(uintptr_t)data, error ? 0 : length}};
    if (writev(device, parts, 2) < 0 && errno != ENOENT)
        fail("a reply: %s", strerror(errno));
}

static struct fuse_attr attr_of(uint64_t node)
{
    if (node == FUSE_ROOT_ID)
        return (struct fuse_attr){.ino = node, .mode = S_IFDIR | 0755, .nlink = 2, .blksize = 4096};
    uint64_t size = head.files[node - FIRST_NODE].size;
    return (struct fuse_attr){
        .ino = node, .size = size, .blocks = size / 512, .mode = S_IFREG | 0600, .nlink = 1, .blksize = 4096};
}

static void look_up(const struct fuse_in_header *in, const char *name)
{
    for (uint64_t i = 0; i < head.count; i++)
        if (strcmp(head.files[i].name, name) == 0) {
            struct fuse_entry_out entry = {
                .nodeid = FIRST_NODE + i, .entry_valid = 3600, .attr_valid = 3600, .attr = attr_of(FIRST_NODE + i)};
            reply(in, 0, &entry, sizeof entry);
            return;
        }
    reply(in, -ENOENT, NULL, 0);
}

static void init(const struct fuse_in_header *in, const struct fuse_init_in *offered)
{
    struct fuse_init_out answer = {
        .major = FUSE_KERNEL_VERSION,
        .minor = offered->minor < FUSE_KERNEL_MINOR_VERSION ? offered->minor : FUSE_KERNEL_MINOR_VERSION,
        .max_readahead = offered->max_readahead,
        .flags = offered->flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES),
        .max_background = 64,
        .congestion_threshold = 48,
        .max_write = MOST,
        .time_gran = 1,
        .max_pages = MOST / 4096,
    };
    reply(in, 0, &answer, sizeof answer);
}

/* A request on a file. */
static void carry_out(const struct fuse_in_header *in, const void *body)
{
    uint32_t file = (uint32_t)(in->nodeid - FIRST_NODE);
    uint64_t size = head.files[file].size;
    switch (in->opcode) {
    case FUSE_READ: {
        const struct fuse_read_in *read = body;
        uint64_t offset = read->offset < size ? read->offset : size, rest = size - offset;
        reply(in, 0, contents[file] + offset, read->size < rest ? read->size : rest);
        break;
    }
    case FUSE_WRITE: {
        const struct fuse_write_in *write = body;
        if (write->offset > size || write->size > size - write->offset) {
            reply(in, -ENOSPC, NULL, 0);
            break;
        }
        memcpy(contents[file] + write->offset, write + 1, write->size);
        note(KIND_WRITE, file, write->offset, write->size, write + 1);
        reply(in, 0, &(struct fuse_write_out){.size = write->size}, sizeof(struct fuse_write_out));
        break;
    }
    case FUSE_FALLOCATE: {
        const struct fuse_fallocate_in *range = body;
        if (!(range->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))) {
            reply(in, -EOPNOTSUPP, NULL, 0);
            break;
        }
        if (range->offset > size || range->length > size - range->offset) {
            reply(in, -ENOSPC, NULL, 0);
            break;
        }
        memset(contents[file] + range->offset, 0, range->length);
        note(KIND_ZERO, file, range->offset, range->length, NULL);
        reply(in, 0, NULL, 0);
        break;
    }
    case FUSE_FSYNC:
        note(KIND_FLUSH, file, 0, 0, NULL);
        reply(in, 0, NULL, 0);
        break;
    default:
        reply(in, -EOPNOTSUPP, NULL, 0);
    }
}

static void answer(const struct fuse_in_header *in)
{
    const void *body = in + 1;
    switch (in->opcode) {
    case FUSE_INIT:
        init(in, body);
        break;
    case FUSE_LOOKUP:
        look_up(in, body);
        break;
    case FUSE_GETATTR:
    case FUSE_SETATTR: /* times */
        reply(in, 0, &(struct fuse_attr_out){.attr_valid = 3600, .attr = attr_of(in->nodeid)},
            sizeof(struct fuse_attr_out));
        break;
    case FUSE_OPEN:
        reply(in, 0, &(struct fuse_open_out){.open_flags = FOPEN_DIRECT_IO}, sizeof(struct fuse_open_out));
        break;
    case FUSE_OPENDIR:
        reply(in, 0, &(struct fuse_open_out){0}, sizeof(struct fuse_open_out));
        break;
    case FUSE_STATFS:
        reply(in, 0, &(struct fuse_statfs_out){.st = {.bsize = 4096, .frsize = 4096, .namelen = NAME}},
            sizeof(struct fuse_statfs_out));
        break;
    case FUSE_FLUSH:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_READDIR: /* empty */
    case FUSE_DESTROY:
        reply(in, 0, NULL, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        if (in->nodeid >= FIRST_NODE && in->nodeid < FIRST_NODE + head.count)
            carry_out(in, body);
        else
            reply(in, -EOPNOTSUPP, NULL, 0);
    }
}

static void add_file(const char *word)
{
    const char *equals = strchr(word, '=');
    if (!equals || equals - word >= NAME || head.count == FILES)
        fail("NAME=BYTES, at most %d of them, not '%s'", FILES, word);
    memcpy(head.files[head.count].name, word, (size_t)(equals - word));
    head.files[head.count].size = strtoull(equals + 1, NULL, 10);
    contents[head.count] = map(head.files[head.count].size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    head.count++;
}

/* Until it is unmounted. */
static int serve(const char *mountpoint, const char *log, char **words)
{
    static char path[4096], options[128];
    memcpy(head.magic, magic, sizeof magic);
    for (; *words; words++)
        add_file(*words);
    snprintf(path, sizeof path, "%s.count", log);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) || !(out = fopen(log, "we")) || fwrite(&head, sizeof head, 1, out) != 1)
        fail("%s: %s", log, strerror(errno));
    count = map(4096, MAP_SHARED, fd);
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,max_read=%d", device, MOST);
    if (device < 0 || mount("recorder", mountpoint, "fuse.recorder", MS_NODEV | MS_NOSUID, options))
        fail("mount at %s: %s", mountpoint, strerror(errno));
    void *memory = aligned_alloc(4096, MOST + 8192);
    for (ssize_t got; memory;) {
        got = read(device, memory, MOST + 8192);
        if (got < 0 && errno == ENODEV)
            break;
        if (got < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT)
            fail("/dev/fuse: %s", strerror(errno));
        if (got >= (ssize_t)sizeof(struct fuse_in_header))
            answer(memory);
    }
    if (fclose(out))
        fail("%s: %s", log, strerror(errno));
    return 0;
}

/* ---- make, list ---- */

static const uint8_t *log_begin, *log_end;

static void load(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) || (size_t)status.st_size < sizeof head)
        fail("%s: %s", path, strerror(errno));
    log_begin = map((size_t)status.st_size, MAP_PRIVATE, fd);
    log_end = log_begin + status.st_size;
    memcpy(&head, log_begin, sizeof head);
    if (memcmp(head.magic, magic, sizeof magic) != 0 || head.count > FILES)
        fail("%s is no log", path);
    log_begin += sizeof head;
}

/* The record at `at`, which then is the next one's place; *data: what it writes. */
static bool next(const uint8_t **at, struct record *record, const uint8_t **data)
{
    if (*at == log_end)
        return false;
    if ((size_t)(log_end - *at) < sizeof *record)
        fail("the log ends in a record");
    memcpy(record, *at, sizeof *record);
    *data = *at + sizeof *record;
    uint64_t length = record->kind == KIND_WRITE ? record->length : 0;
    if (record->kind > KIND_FLUSH || record->file >= head.count || (size_t)(log_end - *data) < length)
        fail("the log is damaged");
    *at = *data + length;
    return true;
}

/* Of each file the number of records that count. */
static void last_flushes(uint64_t records, uint64_t *counted)
{
    const uint8_t *at = log_begin, *data;
    struct record record;
    for (uint64_t i = 0; i < records && next(&at, &record, &data); i++)
        if (record.kind == KIND_FLUSH)
            counted[record.file] = i;
}

static void write_out(const char *folder, uint64_t file)
{
    static const uint8_t nothing[4096];
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, head.files[file].name);
    uint64_t size = head.files[file].size;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)size))
        fail("%s: %s", path, strerror(errno));
    for (uint64_t at = 0; at < size; at += sizeof nothing)
        if (memcmp(contents[file] + at, nothing, sizeof nothing) != 0 &&
            pwrite(fd, contents[file] + at, sizeof nothing, (off_t)at) != sizeof nothing)
            fail("%s: %s", path, strerror(errno));
    close(fd);
}

static int make(uint64_t records, bool flushed, const char *folder)
{
    uint64_t counted[FILES];
    const uint8_t *at = log_begin, *data;
    struct record record;
    for (unsigned i = 0; i < FILES; i++)
        counted[i] = flushed ? 0 : records;
    if (flushed)
        last_flushes(records, counted);
    for (uint64_t i = 0; i < head.count; i++)
        contents[i] = map(head.files[i].size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    for (uint64_t i = 0; i < records; i++) {
        if (!next(&at, &record, &data))
            fail("the log has %llu records", (unsigned long long)i);
        if (i < counted[record.file] && record.kind == KIND_WRITE)
            memcpy(contents[record.file] + record.offset, data, record.length);
        if (i < counted[record.file] && record.kind == KIND_ZERO)
            memset(contents[record.file] + record.offset, 0, record.length);
    }
    for (uint64_t i = 0; i < head.count; i++)
        write_out(folder, i);
    return 0;
}

static int list(void)
{
    const uint8_t *at = log_begin, *data;
    struct record record;
    for (uint64_t i = 0; next(&at, &record, &data); i++)
        printf("%llu %s %s %llu %llu\n", (unsigned long long)i, kinds[record.kind], head.files[record.file].name,
            (unsigned long long)record.offset, (unsigned long long)record.length);
    return 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "serve") == 0 && argc > 4)
        return serve(argv[2], argv[3], argv + 4);
    if (strcmp(verb, "make") == 0 && argc == 6) {
        bool flushed = strcmp(argv[4], "flushed") == 0;
        if (flushed || strcmp(argv[4], "answered") == 0) {
            load(argv[2]);
            return make(strtoull(argv[3], NULL, 10), flushed, argv[5]);
        }
    }
    if (strcmp(verb, "list") == 0 && argc == 3) {
        load(argv[2]);
        return list();
    }
    fprintf(stderr, "recorder serve MOUNTPOINT LOG NAME=BYTES…\n"
                    "recorder make LOG COUNT answered|flushed FOLDER\n"
                    "recorder list LOG\n");
    return 2;
}
