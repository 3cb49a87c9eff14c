/* Paths to handles. Every walk begins at the root and asks the server for each component: a handle that went stale on
 * the way (a directory that was replaced) is met by walking once more. The last LOOKUP's attributes are laid over by
 * what the sidecar holds. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nfs.h"
#include "base/cleanup.h"

#define WALKS 3

struct nfs_fh3 nfsds_fh(const struct nfsds_handle *handle)
{
    return (struct nfs_fh3){.data = {handle->length, (char *)(uintptr_t)handle->bytes}};
}

void nfsds_take_handle(struct nfsds_handle *out, const struct nfs_fh3 *from)
{
    out->length = from->data.data_len <= sizeof(out->bytes) ? from->data.data_len : 0;
    memcpy(out->bytes, from->data.data_val, out->length);
}

static void take_attributes(void *out, const void *data)
{
    const struct GETATTR3res *result = data;
    nfsds_rpc_stat(&result->GETATTR3res_u.resok.obj_attributes, out);
}

static int getattr(struct nfs *nfs, const struct nfsds_handle *handle, struct stat *out)
{
    struct GETATTR3args arguments = {nfsds_fh(handle)};
    return nfsds_ask(nfs, NFS_GETATTR, &arguments, take_attributes, out, NULL);
}

int nfsds_getattr(struct nfs *nfs, const struct nfsds_handle *handle, struct stat *out)
{
    int error = getattr(nfs, handle, out);
    if (!error)
        nfsds_sidecar_overlay(&nfs->sidecar, out);
    return error;
}

struct looked {
    struct nfsds_object *object;
    bool attributes;
};

static void take_looked(void *out, const void *data)
{
    const struct LOOKUP3resok *found = &((const struct LOOKUP3res *)data)->LOOKUP3res_u.resok;
    struct looked *looked = out;
    nfsds_take_handle(&looked->object->handle, &found->object);
    looked->attributes = found->obj_attributes.attributes_follow;
    if (looked->attributes)
        nfsds_rpc_stat(&found->obj_attributes.post_op_attr_u.attributes, &looked->object->st);
}

int nfsds_look(struct nfs *nfs, const struct nfsds_handle *directory, const char *name, struct nfsds_object *out)
{
    struct looked looked = {out, false};
    struct LOOKUP3args arguments = {{nfsds_fh(directory), (char *)(uintptr_t)name}};
    if (strlen(name) > nfs->name_max)
        return -ENAMETOOLONG;
    int error = nfsds_ask(nfs, NFS_LOOKUP, &arguments, take_looked, &looked, NULL);
    if (!error && !looked.attributes)
        error = getattr(nfs, &out->handle, &out->st);
    if (!error)
        nfsds_sidecar_overlay(&nfs->sidecar, &out->st);
    return error;
}

/* One component further; it is in a directory. */
static int step(struct nfs *nfs, struct nfsds_object *at, const char *name)
{
    struct nfsds_object next;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return -EINVAL;
    if (!S_ISDIR(at->st.st_mode))
        return -ENOTDIR;
    int error = nfsds_look(nfs, &at->handle, name, &next);
    if (!error)
        *at = next;
    return error;
}

static int walk(struct nfs *nfs, const char *path, struct nfsds_object *out)
{
    auto_free char *copy = strdup(path);
    char *rest = copy, *name;
    if (!copy)
        return -ENOMEM;
    out->handle = nfs->root;
    out->st = (struct stat){.st_mode = S_IFDIR};
    int error = *path ? 0 : nfsds_getattr(nfs, &out->handle, &out->st);
    while (!error && (name = strsep(&rest, "/")))
        if (*name)
            error = step(nfs, out, name);
    return error;
}

int nfsds_walk(struct nfs *nfs, const char *path, struct nfsds_object *out)
{
    int error = -ESTALE;
    for (unsigned i = 0; i < WALKS && error == -ESTALE; i++)
        error = walk(nfs, path, out);
    return error;
}

int nfsds_walk_parent(struct nfs *nfs, const char *path, struct nfsds_object *parent, const char **leaf)
{
    const char *slash = strrchr(path, '/');
    *leaf = slash ? slash + 1 : path;
    if (**leaf == '\0' || strcmp(*leaf, ".") == 0 || strcmp(*leaf, "..") == 0)
        return -EINVAL;
    auto_free char *directory = slash ? strndup(path, (size_t)(slash - path)) : strdup("");
    if (!directory)
        return -ENOMEM;
    int error = nfsds_walk(nfs, directory, parent);
    if (!error && !S_ISDIR(parent->st.st_mode))
        error = -ENOTDIR;
    return error ? error : strlen(*leaf) > nfs->name_max ? -ENAMETOOLONG : 0;
}
