/* The datastore of an NFS export, spoken to in NFS version 3 by libnfs's raw calls: files lie under their own paths,
 * with exact answers and the write verifier in hand, which libnfs's own file calls hide. docs/NFS.md tells what this
 * protocol cannot do and what is done about it.
 *
 * Its parts: where the server is (nfs_locate), a reactor's connections (nfs_connection), names on threads that wait
 * (nfs_ask, nfs_walk, nfs_make, nfs_list, nfs_names), what the protocol cannot hold (nfs_sidecar), images (nfs_image,
 * nfs_flush), and what makes them safe: nfs_quiet for ghosts, nfs_verifier for servers that forget. */
#include "backends/nfs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/nfs_make.h"
#include "backends/nfs_names.h"
#include "base/clock.h"
#include "base/log.h"

#define QUIET          (3 * NS_PER_S)
#define DEADLINE_LEAST (1 * NS_PER_S)
#define DEADLINE_MOST  (10 * NS_PER_S)
#define TRANSFER_MOST  (1u << 20)
#define TRANSFER_LEAST 512u
#define OWNER_FILE     "owner"

/* ---- the owner's record ---- */

static ssize_t read_owner(void *argument, char *text)
{
    struct nfs *nfs = argument;
    struct nfsds_handle directory;
    char *found;
    size_t size;
    int error = nfsds_private_directory(nfs, "", false, &directory);
    error = error ? error : nfsds_look(nfs, &directory, OWNER_FILE, &nfs->record);
    error = error ? error : nfsds_private_read_object(nfs, &nfs->record, &found, &size);
    if (error)
        return error;
    if (size > OWNER_RECORD)
        size = OWNER_RECORD;
    memcpy(text, found, size);
    free(found);
    return (ssize_t)size;
}

static int write_owner(void *argument, const char *text, size_t length)
{
    struct nfs *nfs = argument;
    struct nfsds_handle directory;
    int error = nfsds_private_directory(nfs, "", true, &directory);
    return error ? error : nfsds_private_write(nfs, &directory, OWNER_FILE, text, length);
}

/* Over the file that was read, which is not the one that a later claim has put in its place. */
static int beat_owner(void *argument, const char *text, size_t length)
{
    struct nfs *nfs = argument;
    return nfsds_private_write_over(nfs, &nfs->record, text, length);
}

static void lost_owner(void *argument, const char *sentence)
{
    struct nfs *nfs = argument;
    if (!atomic_exchange(&nfs->disowned, true))
        log_error("datastore %s: nothing is written to it any more: %s", nfs->datastore->name, sentence);
}

/* A read-only export with a record of when it was not: nothing to claim. */
static int claim(struct nfs *nfs, struct sentence *why)
{
    struct owner_place place = {
        .read = read_owner, .write = write_owner, .beat = beat_owner, .lost = lost_owner, .argument = nfs};
    int error = nfs->read_only ? 0 : owner_claim(&nfs->owner, nfs->datastore, &place, &nfs->datastore->stopping, why);
    if (error != -EROFS)
        return error;
    nfs->read_only = true;
    return 0;
}

/* ---- opening ---- */

static void take_info(void *out, const void *data)
{
    const struct FSINFO3resok *info = &((const struct FSINFO3res *)data)->FSINFO3res_u.resok;
    struct nfs *nfs = out;
    nfs->read_max = info->rtmax;
    nfs->write_max = info->wtmax;
}

static void take_names(void *out, const void *data)
{
    const struct PATHCONF3resok *names = &((const struct PATHCONF3res *)data)->PATHCONF3res_u.resok;
    ((struct nfs *)out)->name_max = names->name_max;
}

static uint32_t transfer(uint32_t said)
{
    return said > TRANSFER_MOST || said == 0 ? TRANSFER_MOST : said < TRANSFER_LEAST ? TRANSFER_LEAST : said;
}

static int ask_limits(struct nfs *nfs, struct sentence *why)
{
    struct FSINFO3args info = {nfsds_fh(&nfs->root)};
    struct PATHCONF3args names = {nfsds_fh(&nfs->root)};
    const char *name = nfs->datastore->name;
    int error = nfsds_ask(nfs, NFS_FSINFO, &info, take_info, nfs, NULL);
    if (error)
        return refuse(why, error,
            "datastore %s: the NFS server at %s port %d does not answer NFS version 3 (%s); is nfsport= right, and "
            "NFSv3 "
            "enabled?",
            name, nfs->url.host, nfs->nfs_port, error_text(error));
    nfs->read_max = transfer(nfs->read_max);
    nfs->write_max = transfer(nfs->write_max);
    nfs->name_max = NAME_MAX;
    nfsds_ask(nfs, NFS_PATHCONF, &names, take_names, nfs, NULL);
    if (nfs->name_max == 0 || nfs->name_max > NAME_MAX)
        nfs->name_max = NAME_MAX;
    return 0;
}

static int enter_directory(struct nfs *nfs, const char *below, struct sentence *why)
{
    struct nfsds_object object;
    if (*below == '\0')
        return 0;
    int error = nfsds_walk(nfs, below, &object);
    if (!error && !S_ISDIR(object.st.st_mode))
        error = -ENOTDIR;
    if (error)
        return refuse(why, error, "datastore %s: there is no directory %s on the export (%s); make it there first",
            nfs->datastore->name, below, error_text(error));
    nfs->root = object.handle;
    return 0;
}

static int remove_left(void *argument, const char *name, const struct stat *st)
{
    struct nfs *nfs = argument;
    struct nfsds_handle removed;
    if (nfsds_private_directory(nfs, NFS_REMOVED, false, &removed) == 0 && S_ISREG(st->st_mode) &&
        nfsds_private_remove(nfs, &removed, name) == 0)
        nfsds_sidecar_forget(nfs, st->st_ino);
    return 0;
}

static int refuse_private(const struct nfs *nfs, int error, struct sentence *why)
{
    const char *name = nfs->datastore->name;
    if (error != -EACCES && error != -EPERM)
        return refuse(why, error, "datastore %s: %s on the export cannot be used: %s", name, DATASTORE_PRIVATE,
            error_text(error));
    return refuse(why, error,
        "datastore %s: the server does not let uid %ld use %s on the export: export it with \"rw,no_root_squash\", or "
        "give the directory, and %s if it is there, to a user and say uid= and gid= in the url",
        name, nfs->url.uid >= 0 ? nfs->url.uid : (long)geteuid(), DATASTORE_PRIVATE, DATASTORE_PRIVATE);
}

/* svmfs's own directory, which must be writable for anything to be. */
static int enter_private(struct nfs *nfs, struct sentence *why)
{
    struct nfsds_handle private, removed;
    int error = nfsds_private_directory(nfs, "", true, &private);
    if (error == -EROFS) {
        nfs->read_only = true;
        error = nfsds_private_directory(nfs, "", false, &private);
        if (error == -ENOENT)
            return 0;
    }
    if (error)
        return refuse_private(nfs, error, why);
    error = claim(nfs, why);
    if (error)
        return error;
    if (nfs->read_only)
        log_info("datastore %s: the export is read-only", nfs->datastore->name);
    error = nfsds_sidecar_load(nfs);
    if (error)
        return refuse_private(nfs, error, why);
    if (!nfs->read_only && nfsds_private_directory(nfs, NFS_REMOVED, false, &removed) == 0)
        nfsds_list(nfs, &removed, remove_left, nfs);
    return 0;
}

static bool is_numeric(const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static uint64_t between(uint64_t value, uint64_t least, uint64_t most)
{
    return value < least ? least : value > most ? most : value;
}

static struct nfs *new_nfs(struct datastore *datastore, const struct nfsds_url *url)
{
    struct nfs *nfs = calloc(1, sizeof(*nfs));
    if (!nfs)
        return NULL;
    unsigned connections = url->connections ? url->connections : datastore->options.connections;
    nfs->datastore = datastore;
    nfs->url = *url;
    nfs->numeric = url->nfs_port && is_numeric(url->host);
    nfs->connections_max = (unsigned)between(connections, 1, NFS_CONNECTIONS_MAX);
    nfs->deadline_ns = between(datastore->timeout_ns / 3, DEADLINE_LEAST, DEADLINE_MOST);
    nfs->quiet_ns = datastore->options.quiet_ns ? datastore->options.quiet_ns : QUIET;
    nfs->name_max = NAME_MAX;
    pthread_mutex_init(&nfs->mutex, NULL);
    pthread_rwlock_init(&nfs->naming, NULL);
    list_init(&nfs->images);
    nfsds_verifier_init(&nfs->verifier, datastore);
    nfsds_sidecar_init(&nfs->sidecar);
    return nfs;
}

static void disconnect(void *argument)
{
    nfsds_connections_close(argument);
}

static void free_nfs(struct nfs *nfs)
{
    if (!owner_release(nfs->owner))
        return; /* its heart hangs in a call to the server, and uses all this */
    pool_close(nfs->locator);
    reactor_stop(nfs->names);
    disconnect(nfs);
    nfsds_verifier_destroy(&nfs->verifier);
    nfsds_sidecar_destroy(&nfs->sidecar);
    pthread_rwlock_destroy(&nfs->naming);
    pthread_mutex_destroy(&nfs->mutex);
    free(nfs);
}

static int start_threads(struct nfs *nfs)
{
    int error = reactor_start(&nfs->names, REACTOR_NAMES);
    if (!error) {
        nfsds_quiet_init(&nfs->quiet, nfs);
        error = pool_open(&nfs->locator, "locator", 1);
    }
    return error;
}

static int open_nfs(struct datastore *datastore, const char *rest, struct sentence *why)
{
    struct nfsds_url url;
    const char *below = "";
    int error = nfsds_url_parse(&url, datastore->name, rest, why);
    if (error)
        return error;
    struct nfs *nfs = new_nfs(datastore, &url);
    if (!nfs)
        return refuse(why, -ENOMEM, "datastore %s: no memory", datastore->name);
    error = start_threads(nfs);
    if (error)
        refuse(why, error, "datastore %s: no thread for its names: %s", datastore->name, error_text(error));
    error = error ? error : nfsds_locate_mount(nfs, &below, why);
    error = error ? error : ask_limits(nfs, why);
    error = error ? error : enter_directory(nfs, below, why);
    error = error ? error : enter_private(nfs, why);
    if (error) {
        free_nfs(nfs);
        return error;
    }
    datastore->state = nfs;
    return 0;
}

static void close_nfs(struct datastore *datastore)
{
    if (datastore->state)
        free_nfs(datastore->state);
    datastore->state = NULL;
}

const struct datastore_ops backend_nfs = {
    .scheme = "nfs",
    .open = open_nfs,
    .close = close_nfs,
    .statfs = nfsds_statfs,
    .lookup = nfsds_lookup,
    .list = nfsds_list_path,
    .create = nfsds_create,
    .rename = nfsds_rename,
    .remove = nfsds_remove,
    .readlink = nfsds_readlink,
    .set_attributes = nfsds_set_attributes,
    .get_xattr = nfsds_get_xattr,
    .set_xattr = nfsds_set_xattr,
    .list_xattr = nfsds_list_xattr,
    .remove_xattr = nfsds_remove_xattr,
    .sync_directory = nfsds_sync_directory,
    .open_image = nfsds_open_image,
};
