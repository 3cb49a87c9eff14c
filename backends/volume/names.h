/* names: the datastore_ops of a volume that are about names and attributes, as io/datastore.h has them. */
#pragma once

#include "io/datastore.h"

struct volume;
struct owner;

/* datastore->state of an open volume datastore. */
struct volume_datastore {
    struct volume *volume;
    struct owner *owner;
    struct datastore *below; /* what the raw image is opened for: the same, with a pool of its own */
    uint64_t key;            /* of the reservation; 0: none */
    _Atomic uint64_t owner_number;
};

int volume_statfs(struct datastore *datastore, struct statvfs *out);
int volume_lookup(struct datastore *datastore, const char *path, struct stat *out);
int volume_list(struct datastore *datastore, const char *path, datastore_entry *entry, void *argument);
int volume_readlink(struct datastore *datastore, const char *path, char *out, size_t size);
int volume_create(struct datastore *datastore, const char *path, const struct stat *st, const char *content);
int volume_rename(struct datastore *datastore, const char *from, const char *to, bool replace);
int volume_remove_path(struct datastore *datastore, const char *path, bool directory);
int volume_set_attributes(struct datastore *datastore, const char *path, const struct stat *st, unsigned mask);
ssize_t volume_get_xattr(struct datastore *datastore, const char *path, const char *name, void *value, size_t size);
int volume_set_xattr(
    struct datastore *datastore, const char *path, const char *name, const void *value, size_t size, int flags);
ssize_t volume_list_xattr(struct datastore *datastore, const char *path, char *out, size_t size);
int volume_remove_xattr(struct datastore *datastore, const char *path, const char *name);
int volume_sync_directory(struct datastore *datastore, const char *path);
