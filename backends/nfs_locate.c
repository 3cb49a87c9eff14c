/* Where the server is, and the export's root: DNS, portmapper and MOUNT, each with a connection of its own for one
 * question, on threads that may block. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "backends/nfs.h"
#include "base/clock.h"

#define NFS_PORT      2049
#define PORTMAP_PORT  111
#define PROGRAM_NFS   100003
#define PROGRAM_MOUNT 100005

/* One question, asked by polling until the deadline. */
struct talk {
    struct rpc_context *rpc;
    uint64_t deadline;
    bool done;
    int status;
    void (*take)(struct talk *talk, const void *data);
    uint32_t port;
    int mount_status;
    struct nfsds_handle root;
};

static void answered(struct rpc_context *rpc, int status, void *data, void *private_data)
{
    struct talk *talk = private_data;
    talk->done = true;
    talk->status = status;
    if (status == RPC_STATUS_SUCCESS && talk->take)
        talk->take(talk, data);
}

/* 0, -ECONNREFUSED, -ETIMEDOUT, -EPROTO. */
static int wait_for(struct talk *talk)
{
    while (!talk->done) {
        uint64_t now = clock_now();
        struct pollfd fd = {rpc_get_fd(talk->rpc), (short)rpc_which_events(talk->rpc), 0};
        int ready = now < talk->deadline ? poll(&fd, 1, (int)((talk->deadline - now) / NS_PER_MS) + 1) : 0;
        if (ready == 0)
            return -ETIMEDOUT;
        if (ready > 0 && rpc_service(talk->rpc, fd.revents) < 0)
            return -ECONNREFUSED;
    }
    return talk->status == RPC_STATUS_SUCCESS ? 0 : -EPROTO;
}

static int talk_open(struct talk *talk, const struct nfs *nfs, const char *address, int port)
{
    memset(talk, 0, sizeof(*talk));
    talk->deadline = clock_now() + nfs->datastore->timeout_ns;
    talk->rpc = rpc_init_context();
    if (!talk->rpc)
        return -ENOMEM;
    if (nfs->url.uid >= 0)
        rpc_set_uid(talk->rpc, (int)nfs->url.uid);
    if (nfs->url.gid >= 0)
        rpc_set_gid(talk->rpc, (int)nfs->url.gid);
    if (rpc_connect_async(talk->rpc, address, port, answered, talk) < 0)
        return -ECONNREFUSED;
    int error = wait_for(talk);
    talk->done = false;
    return error == -EPROTO ? -ECONNREFUSED : error;
}

static void talk_close(struct talk *talk)
{
    talk->take = NULL;
    if (talk->rpc)
        rpc_destroy_context(talk->rpc);
}

static void take_port(struct talk *talk, const void *data)
{
    talk->port = *(const uint32_t *)data;
}

static int ask_port(
    const struct nfs *nfs, const char *address, int program, const char *what, int *out, struct sentence *why)
{
    struct talk talk;
    int error = talk_open(&talk, nfs, address, PORTMAP_PORT);
    if (!error) {
        talk.take = take_port;
        error = nfsds_rpc_port(talk.rpc, program, 3, answered, &talk);
        error = error ? error : wait_for(&talk);
    }
    talk_close(&talk);
    *out = (int)talk.port;
    if (error)
        return refuse(why, error,
            "datastore %s: no portmapper at %s port 111 says where %s listens (%s); start rpcbind there, or say "
            "nfsport= and mountport= in the url",
            nfs->datastore->name, nfs->url.host, what, error_text(error));
    if (!talk.port)
        return refuse(why, -ECONNREFUSED, "datastore %s: the server %s has no %s for NFS version 3; enable NFSv3 there",
            nfs->datastore->name, nfs->url.host, what);
    return 0;
}

static int resolve(struct nfs *nfs, char *out, size_t size, struct sentence *why)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int code = getaddrinfo(nfs->url.host, NULL, &hints, &found);
    if (code)
        return refuse(why, code == EAI_AGAIN ? -EAGAIN : -EHOSTUNREACH,
            "datastore %s: the name of the NFS server \"%s\" is not resolved (%s); correct the url or the DNS",
            nfs->datastore->name, nfs->url.host, gai_strerror(code));
    code = getnameinfo(found->ai_addr, found->ai_addrlen, out, (socklen_t)size, NULL, 0, NI_NUMERICHOST);
    freeaddrinfo(found);
    return code ? refuse(why, -EHOSTUNREACH, "datastore %s: no address of \"%s\"", nfs->datastore->name, nfs->url.host)
                : 0;
}

/* 2049 is every server's port when no portmapper says another. */
int nfsds_locate(struct nfs *nfs, struct sentence *why)
{
    char address[sizeof(nfs->address)];
    int nfs_port = nfs->url.nfs_port, error = resolve(nfs, address, sizeof(address), why);
    if (error)
        return error;
    if (!nfs_port && ask_port(nfs, address, PROGRAM_NFS, "NFS server", &nfs_port, NULL) != 0)
        nfs_port = NFS_PORT;
    pthread_mutex_lock(&nfs->mutex);
    memcpy(nfs->address, address, sizeof(address));
    nfs->nfs_port = nfs_port;
    pthread_mutex_unlock(&nfs->mutex);
    return 0;
}

/* ---- MOUNT ---- */

static void take_root(struct talk *talk, const void *data)
{
    const struct mountres3 *result = data;
    talk->mount_status = (int)result->fhs_status;
    if (result->fhs_status != MNT3_OK)
        return;
    const fhandle3 *handle = &result->mountres3_u.mountinfo.fhandle;
    if (handle->fhandle3_len > sizeof(talk->root.bytes)) {
        talk->mount_status = MNT3ERR_SERVERFAULT;
        return;
    }
    talk->root.length = handle->fhandle3_len;
    memcpy(talk->root.bytes, handle->fhandle3_val, handle->fhandle3_len);
}

static int refuse_mount(const struct nfs *nfs, int status, const char *path, struct sentence *why)
{
    const char *name = nfs->datastore->name, *host = nfs->url.host;
    switch (status) {
    case MNT3ERR_NOENT:
    case MNT3ERR_NOTDIR:
        return refuse(why, -ENOENT, "datastore %s: the server %s exports no %s; showmount -e %s lists what it does",
            name, host, path, host);
    case MNT3ERR_PERM:
    case MNT3ERR_ACCES:
        return refuse(why, -EACCES,
            "datastore %s: the server %s refuses %s to this host: it is no export, or not for this host, or (when "
            "svmfs "
            "does not run as root) it must be exported with \"insecure\"",
            name, host, path);
    default:
        return refuse(
            why, -EIO, "datastore %s: the server %s cannot mount %s (MOUNT status %d)", name, host, path, status);
    }
}

/* The longest part of the url's path that the server mounts; *refusal keeps the first refusal that says more than that
 * it is not there. */
static int mount_longest(struct nfs *nfs, struct talk *talk, const char **below, int *refusal)
{
    char path[sizeof(nfs->url.path) + 1];
    size_t length = strlen(nfs->url.path);
    for (;;) {
        memcpy(path, nfs->url.path, length);
        strcpy(path + length, length ? "" : "/");
        talk->done = false;
        talk->take = take_root;
        int error = nfsds_rpc_mount(talk->rpc, path, answered, talk);
        error = error ? error : wait_for(talk);
        if (error)
            return error;
        if (talk->mount_status == MNT3_OK) {
            *below = nfs->url.path + length + (nfs->url.path[length] == '/');
            return 0;
        }
        if (!*refusal || *refusal == MNT3ERR_NOENT)
            *refusal = talk->mount_status;
        if (length == 0)
            return -ENOENT;
        while (length > 0 && nfs->url.path[--length] != '/')
            ;
    }
}

int nfsds_locate_mount(struct nfs *nfs, const char **below, struct sentence *why)
{
    struct talk talk;
    int port = nfs->url.mount_port, refusal = 0, error = nfsds_locate(nfs, why);
    if (!error && !port)
        error = ask_port(nfs, nfs->address, PROGRAM_MOUNT, "mount daemon", &port, why);
    if (error)
        return error;
    error = talk_open(&talk, nfs, nfs->address, port);
    bool reached = !error;
    if (reached)
        error = mount_longest(nfs, &talk, below, &refusal);
    talk_close(&talk);
    if (!error) {
        nfs->root = talk.root;
        return 0;
    }
    if (refusal)
        return refuse_mount(nfs, refusal, *nfs->url.path ? nfs->url.path : "/", why);
    if (reached)
        return refuse(why, error,
            "datastore %s: what answers at %s port %d is no NFS mount daemon (%s); correct mountport=",
            nfs->datastore->name, nfs->url.host, port, error_text(error));
    return refuse(why, error,
        "datastore %s: no mount daemon answers at %s port %d (%s); is the NFS server started there?",
        nfs->datastore->name, nfs->url.host, port, error_text(error));
}
