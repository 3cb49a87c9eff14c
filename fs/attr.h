/* attr: attributes as the catalog has them and as FUSE sends them. Pure. */
#pragma once

#include <linux/fuse.h>
#include <stdbool.h>
#include <sys/statvfs.h>

#include "catalog/catalog.h"

#define ATTR_BLOCK      4096u
#define ATTR_GENERATION 1u
#define ATTR_VALID_S    1u
#define ATTR_NAME_MAX   255u

void attr_fill(struct fuse_attr *out, const struct stat *st);

/* settled false: something is about to change the attributes; the kernel is to ask again. */
void attr_entry(struct fuse_entry_out *out, const struct node *node, bool settled);
void attr_answer(struct fuse_attr_out *out, const struct node *node, bool settled);

/* The kernel's 32-bit device numbers. */
uint32_t attr_encode_device(dev_t device);
dev_t attr_decode_device(uint32_t encoded);

/* What SETATTR asks for besides the size: attribute_mask bits, their values in st. A SETATTR that names nothing (chown
 * to nobody new) still touches the change time: an owner that keeps both. */
unsigned attr_changes(const struct fuse_setattr_in *in, struct stat *st);

/* Adds one datastore's numbers in blocks of ATTR_BLOCK. */
void attr_add_space(struct fuse_kstatfs *sum, const struct statvfs *st);
