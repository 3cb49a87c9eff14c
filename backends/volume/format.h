/* format: the bytes of a volume on its raw image, as docs/VOLUME.md describes them. Pure: encodes, decodes and checks,
 * does no I/O. All numbers are little endian; all records lie in pages of 4096 bytes, each with its own checksum. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VOLUME_VERSION     1
#define VOLUME_BLOCK       4096u                          /* the unit of written bits and of metadata pages */
#define VOLUME_EXTENT      (1u << 20)                     /* the unit of allocation */
#define VOLUME_BLOCKS      (VOLUME_EXTENT / VOLUME_BLOCK) /* blocks of an extent: 256 */
#define VOLUME_EXTENTS_MAX 0xfffffff0u                    /* of a volume, and of one file */
#define VOLUME_EXTENTS_MIN 12u                            /* of a volume */
#define VOLUME_NAME_MAX    255
#define VOLUME_CONTENT_MAX 4095       /* a symlink's target */
#define VOLUME_XATTRS_MAX  (1u << 20) /* bytes of all xattrs of one node as encoded */
#define VOLUME_ROOT        1ull       /* the root directory's node number */
#define VOLUME_UUID        16
#define VOLUME_LABEL       64

/* Little-endian fields of any alignment. */
typedef struct {
    uint8_t b[2];
} le16;
typedef struct {
    uint8_t b[4];
} le32;
typedef struct {
    uint8_t b[8];
} le64;

static inline uint16_t get16(le16 v)
{
    return (uint16_t)(v.b[0] | v.b[1] << 8);
}

static inline uint32_t get32(le32 v)
{
    return (uint32_t)v.b[0] | (uint32_t)v.b[1] << 8 | (uint32_t)v.b[2] << 16 | (uint32_t)v.b[3] << 24;
}

static inline uint64_t get64(le64 v)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | v.b[i];
    return value;
}

static inline le16 put16(uint16_t value)
{
    return (le16){{(uint8_t)value, (uint8_t)(value >> 8)}};
}

static inline le32 put32(uint32_t value)
{
    return (le32){{(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24)}};
}

static inline le64 put64(uint64_t value)
{
    le64 v;
    for (int i = 0; i < 8; i++, value >>= 8)
        v.b[i] = (uint8_t)value;
    return v;
}

/* ---- pages ---- */

#define PAGE_MAGIC   0x566d7673u /* "svmV" */
#define PAGE_PAYLOAD (VOLUME_BLOCK - sizeof(struct page_head))

enum page_type {
    PAGE_SUPERBLOCK = 1, /* number: its sequence */
    PAGE_ANCHOR = 2,     /* number: the checkpoint's generation */
    PAGE_CHECKPOINT = 3, /* number: the generation */
    PAGE_JOURNAL = 4,    /* number: the commit */
    PAGE_OWNER = 5,      /* number: counts up with every write */
};

struct page_head {
    le32 magic;
    le32 crc;    /* CRC-32C of the uuid (not of a superblock's) and the 4096 bytes with this field as zero */
    le16 type;   /* enum page_type */
    le16 used;   /* bytes of payload */
    le32 index;  /* of this page in its object, from 0 */
    le64 number; /* of the object */
    le32 pages;  /* of the object */
    le32 flags;
};

/* Of a journal page: what the commit tells of, and all commits before it, were flushed before it was written. */
#define PAGE_SEALED 1u

struct page {
    struct page_head head;
    uint8_t payload[VOLUME_BLOCK - 32];
};

/* What a page says of itself, decoded. */
struct page_info {
    uint16_t type, used;
    uint32_t index, pages, flags;
    uint64_t number;
};

uint32_t crc32c(uint32_t crc, const void *memory, size_t size);

/* Fills the head and the checksum; clears what is behind used. */
void page_seal(struct page *page, const uint8_t uuid[VOLUME_UUID], const struct page_info *info);
/* True: the checksum is right and it is a page of that type and (uuid not NULL) of that volume. */
bool page_open(const struct page *page, const uint8_t uuid[VOLUME_UUID], enum page_type type, struct page_info *info);

/* ---- the head: the first extent of either metadata copy ---- */

#define HEAD_SUPERBLOCK   0u                            /* a superblock */
#define HEAD_ANCHOR(n)    (32768u + VOLUME_BLOCK * (n)) /* of checkpoint area n: 0 or 1 */
#define HEAD_OWNER        65536u                        /* the owner's record */
#define HEAD_HOSTS        131072u                       /* 128 KiB kept for several hosts, zero */
#define HEAD_HOSTS_SIZE   131072u
#define HEAD_TWIN         524288u /* a second superblock, the same */
#define SUPERBLOCK_PLACES 4       /* two in each head */

/* Features. A set bit that a program does not know: compatible: no matter; read-only compatible: it may read;
 * incompatible: it must not touch. */
#define FEATURES_COMPATIBLE   ((uint64_t)0)
#define FEATURES_READ_ONLY    ((uint64_t)0)
#define FEATURES_INCOMPATIBLE ((uint64_t)0)
#define FEATURE_HOSTS         ((uint64_t)1) /* incompatible: several hosts use the volume at once; reserved, not known */

struct disk_superblock {
    le32 version, block, extent, zero;
    le64 compatible, read_only, incompatible;
    uint8_t uuid[VOLUME_UUID];
    uint8_t label[VOLUME_LABEL]; /* padded with zeroes; the last byte is zero */
    le64 size;                   /* bytes of the raw image that the volume takes */
    le32 extents;                /* size / 1 MiB, rounded down */
    le32 journal_extents, area_extents;
    /* numbers of extents, of the primary [0] and the secondary [1] copy */
    le32 head[2], journal[2], area[2][2]; /* area[a][copy] */
    le32 zero2;
    le64 created; /* seconds since 1970 */
    uint8_t program[32];
};

struct superblock {
    uint64_t sequence;
    uint32_t version;
    uint64_t compatible, read_only, incompatible;
    uint8_t uuid[VOLUME_UUID];
    char label[VOLUME_LABEL];
    uint64_t size;
    uint32_t extents, journal_extents, area_extents;
    uint32_t head[2], journal[2], area[2][2];
    int64_t created;
    char program[32];
};

void superblock_encode(const struct superblock *superblock, struct page *page);
/* 0; -EINVAL: no superblock or a wrong checksum; -EUCLEAN: the checksum is right, what it says cannot be;
 * -EOPNOTSUPP: of a later version or with other sizes (block, extent). Features are the caller's to judge. */
int superblock_decode(const struct page *page, struct superblock *out);

/* Where the metadata of a new volume of so many extents lies; node_bytes: room for names and attributes, 0: by size.
 * False: too small. */
bool superblock_lay_out(struct superblock *superblock, uint64_t size, uint64_t node_bytes);
/* Is the extent taken by metadata? */
bool superblock_covers(const struct superblock *superblock, uint32_t extent);
/* Pages of the journal ring; pages of a checkpoint area. */
uint32_t journal_pages(const struct superblock *superblock);
uint32_t area_pages(const struct superblock *superblock);

struct disk_anchor {
    le32 area;         /* 0 or 1; the place says the same */
    le32 pages;        /* of the checkpoint, from the area's start */
    le64 bytes;        /* of its stream of records */
    le64 commit;       /* the last one that it contains */
    le32 journal_page; /* where commit + 1 starts in the ring */
    le32 zero;
    le64 next_node;
    le64 nodes, runs; /* in the checkpoint */
};

struct anchor {
    uint64_t generation;
    uint32_t area, pages;
    uint64_t bytes, commit;
    uint32_t journal_page;
    uint64_t next_node, nodes, runs;
};

void anchor_encode(const struct anchor *anchor, const uint8_t uuid[VOLUME_UUID], struct page *page);
int anchor_decode(const struct page *page, const struct superblock *superblock, unsigned place, struct anchor *out);

struct disk_owner {
    le16 length;
    uint8_t text[]; /* as backends/owner.h says */
};

/* ---- records, in the streams of checkpoints and commits ---- */

enum record_type {
    RECORD_NODE = 1,    /* all of a node but xattrs and runs; makes it or replaces what it was */
    RECORD_REMOVED = 2, /* a node, with its xattrs and runs, is no more */
    RECORD_XATTRS = 3,  /* all xattrs of a node */
    RECORD_RUNS = 4,    /* what lies where in ranges of a file; replaces what was said of these ranges */
};

#define RECORD_MAY_SKIP 1u /* flag: a program that does not know the type passes over the record */

struct disk_record {
    le16 type, flags;
    le32 length; /* of the record, this head included; a multiple of 8 */
};

struct disk_time {
    le64 seconds; /* signed */
    le32 nanoseconds;
    le32 zero;
};

struct disk_node {
    struct disk_record head;
    le64 id, parent; /* the root is node 1, its own parent, without a name */
    le32 mode;       /* type and permissions as stat(2) has them on Linux */
    le32 uid, gid;
    le32 rdev_major, rdev_minor;
    le16 name_length, content_length;
    le64 size; /* bytes of a regular file, 0 of others */
    struct disk_time atime, mtime, ctime;
    uint8_t text[]; /* name, then content (a symlink's target); no zero bytes, no slash in a name */
};

struct disk_removed {
    struct disk_record head;
    le64 id;
};

struct disk_xattrs {
    struct disk_record head;
    le64 id;
    le32 count, zero;
    uint8_t entries[]; /* disk_xattr, one behind the other, not aligned */
};

struct disk_xattr {
    le16 name_length, zero;
    le32 value_length;
    uint8_t text[]; /* name, then value */
};

enum run_state {
    RUN_HOLE = 0,      /* nothing; physical is 0. Only in commits */
    RUN_UNWRITTEN = 1, /* allocated, reads as zero */
    RUN_WRITTEN = 2,   /* all blocks written */
    RUN_PARTIAL = 3,   /* one extent, with a bit for each of its blocks */
};

#define RUN_RESERVED 1u /* flag of RUN_PARTIAL: the extent was asked for as a whole (thick) */

struct disk_run {
    le32 logical, physical, count; /* in extents */
    uint8_t state, flags;
    le16 zero;
};

struct disk_bits {
    le64 word[VOLUME_BLOCKS / 64]; /* behind a disk_run of RUN_PARTIAL: bit n % 64 of word n / 64: block n is written */
};

struct disk_runs {
    struct disk_record head;
    le64 id;
    le32 count, zero;
    uint8_t entries[]; /* disk_run, disk_bits behind those that are partial; by logical, not overlapping */
};

#define RUNS_BYTES_MAX 65536u /* of one RECORD_RUNS */

_Static_assert(sizeof(struct page_head) == 32, "page_head");
_Static_assert(sizeof(struct page) == VOLUME_BLOCK, "page");
_Static_assert(sizeof(struct disk_superblock) == 216, "disk_superblock");
_Static_assert(sizeof(struct disk_anchor) == 56, "disk_anchor");
_Static_assert(sizeof(struct disk_node) == 104, "disk_node");
_Static_assert(sizeof(struct disk_run) == 16, "disk_run");
_Static_assert(sizeof(struct disk_bits) == 32, "disk_bits");

/* ---- a stream of records being written ---- */

/* Grows; failed: there was no memory. */
struct stream {
    uint8_t *memory;
    size_t size, room;
    bool failed;
};

void stream_free(struct stream *stream);
/* Room for length bytes (multiple of 8), zeroed; NULL without memory. */
void *stream_record(struct stream *stream, enum record_type type, unsigned flags, size_t length);
size_t record_round(size_t length);

/* Packs a stream into pages of that type: a new array, page-aligned, NULL without memory. An empty stream takes one. */
struct page *stream_pages(const struct stream *stream, const uint8_t uuid[VOLUME_UUID], enum page_type type,
    uint64_t number, uint32_t *pages);
/* A commit's, that is not sealed; stream_pages seals them. */
struct page *stream_pages_unsealed(
    const struct stream *stream, const uint8_t uuid[VOLUME_UUID], uint64_t number, uint32_t *pages);

/* ---- a stream being read ---- */

struct reader {
    const uint8_t *memory;
    size_t size, at;
};

/* The next record, whole and with a length that can be; NULL at the end (or, with *error set, where it is not). */
const struct disk_record *reader_next(struct reader *reader, int *error);
