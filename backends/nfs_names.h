/* nfs_names: the calls on names of an NFS datastore; as datastore_ops says. */
#pragma once

#include "io/datastore.h"

int nfsds_statfs(struct datastore *datastore, struct statvfs *out);
int nfsds_lookup(struct datastore *datastore, const char *path, struct stat *out);
int nfsds_list_path(struct datastore *datastore, const char *path, datastore_entry *entry, void *argument);
int nfsds_create(struct datastore *datastore, const char *path, const struct stat *st, const char *content);
int nfsds_rename(struct datastore *datastore, const char *from, const char *to, bool replace);
int nfsds_remove(struct datastore *datastore, const char *path, bool directory);
int nfsds_readlink(struct datastore *datastore, const char *path, char *out, size_t size);
int nfsds_set_attributes(struct datastore *datastore, const char *path, const struct stat *st, unsigned mask);
ssize_t nfsds_get_xattr(struct datastore *datastore, const char *path, const char *name, void *value, size_t size);
int nfsds_set_xattr(
    struct datastore *datastore, const char *path, const char *name, const void *value, size_t size, int flags);
ssize_t nfsds_list_xattr(struct datastore *datastore, const char *path, char *out, size_t size);
int nfsds_remove_xattr(struct datastore *datastore, const char *path, const char *name);
int nfsds_sync_directory(struct datastore *datastore, const char *path);
