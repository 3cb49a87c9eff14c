/* journal_files: where journals' bytes go: the files of one directory, by name. Journals know only these calls, so that a
 * test can put a medium below them that loses its power.
 *
 * The calls block. Different threads may use different files at the same time. Errors are negative errno. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct journal_files;
struct journal_file; /* an open one */

struct journal_files_ops {
    /* make: new and empty, whatever stands there; durable only by its own sync and that of the directory. Else -ENOENT
     * where there is none. */
    int (*open)(struct journal_files *files, const char *name, bool make, struct journal_file **out);
    /* Of an open file. */
    int64_t (*length)(struct journal_file *file);
    /* Bytes read, fewer than length only at the file's end. */
    int64_t (*read)(struct journal_file *file, void *bytes, size_t length, uint64_t at);
    /* All of them, or an error. The file grows as needed. */
    int (*write)(struct journal_file *file, const void *bytes, size_t length, uint64_t at);
    /* All that was written is durable, and the length that it needs. After an error nothing is known of what was
     * written since the last success. */
    int (*sync)(struct journal_file *file);
    void (*close)(struct journal_file *file);
    /* Replaces what stands there. An open file stays open. Durable by sync_directory, as remove is. */
    int (*rename)(struct journal_files *files, const char *from, const char *to);
    int (*remove)(struct journal_files *files, const char *name);
    int (*sync_directory)(struct journal_files *files);
    int (*list)(struct journal_files *files, void (*found)(void *argument, const char *name), void *argument);
    void (*free)(struct journal_files *files);
};

/* Embedded in each implementation. That of directories is made by journal_files_open, see journal.h; its file of rules for
 * faults: journal_faults.h. */
struct journal_files {
    const struct journal_files_ops *ops;
    _Atomic uint32_t others; /* references but the first; zero-filled */
};
