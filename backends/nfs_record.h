/* nfs_record: the text of a sidecar's file of xattrs: lines "xattr NAME HEX", name percent-encoded. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct nfsds_record {
    char *text; /* the lines; malloc()ed, ends in a zero; NULL: none */
    size_t size;
};

/* Takes text over. False: it is no record. */
bool nfsds_record_parse(struct nfsds_record *record, char *text, size_t size);
void nfsds_record_free(struct nfsds_record *record);
bool nfsds_record_is_empty(const struct nfsds_record *record);

/* Length, -ENODATA, -ERANGE. */
ssize_t nfsds_record_get(const struct nfsds_record *record, const char *name, void *value, size_t size);
/* Names, each with its zero. Length, -ERANGE. */
ssize_t nfsds_record_list(const struct nfsds_record *record, char *out, size_t size);
/* value NULL: it goes. 0, -EEXIST, -ENODATA, -ENOMEM. */
int nfsds_record_set(struct nfsds_record *record, const char *name, const void *value, size_t size, int flags);
