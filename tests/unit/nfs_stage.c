#include "nfs_stage.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/nfs_rpc.h"

#define CONNECTIONS 32

enum { ROOT = 1, PRIVATE = 2, DISK = 3 }; /* fileids; a handle is one */

struct held {
    struct list link;
    uint64_t offset;
    uint32_t count;
    unsigned char bytes[];
};

/* libnfs does not align what it has decoded. */
#define ARGUMENTS(type)                                                                                                \
    struct type arguments;                                                                                             \
    memcpy(&arguments, call->body.cbody.args, sizeof(arguments))

static struct stage *served; /* by the one server thread of a test */

static void attributes(uint64_t fileid, struct fattr3 *out)
{
    *out = (struct fattr3){.type = fileid == DISK ? NF3REG : NF3DIR,
        .mode = fileid == DISK ? 0600 : 0700,
        .nlink = 1,
        .size = fileid == DISK ? served->size : 4096,
        .used = fileid == DISK ? served->size : 4096,
        .fileid = fileid};
}

static uint64_t fileid_of(const struct nfs_fh3 *handle)
{
    uint64_t fileid;
    memcpy(&fileid, handle->data.data_val, sizeof(fileid));
    return fileid;
}

static int reply(struct rpc_context *rpc, struct rpc_msg *call, void *result, zdrproc_t encode, int room)
{
    return served->silent ? 0 : rpc_send_reply(rpc, call, result, encode, room);
}

static bool later(void)
{
    if (served->jukebox == 0)
        return false;
    served->jukebox--;
    return true;
}

static int serve_null(struct rpc_context *rpc, struct rpc_msg *call)
{
    return reply(rpc, call, NULL, (zdrproc_t)zdr_void, 0);
}

static int serve_mount(struct rpc_context *rpc, struct rpc_msg *call)
{
    static uint64_t root = ROOT;
    struct mountres3 result = {.fhs_status = MNT3_OK};
    char *path;
    memcpy(&path, call->body.cbody.args, sizeof(path));
    if (strcmp(path, "/export") != 0)
        result.fhs_status = MNT3ERR_NOENT;
    result.mountres3_u.mountinfo.fhandle = (fhandle3){sizeof(root), (char *)&root};
    return reply(rpc, call, &result, (zdrproc_t)zdr_mountres3, 256);
}

static int serve_getattr(struct rpc_context *rpc, struct rpc_msg *call)
{
    ARGUMENTS(GETATTR3args);
    struct GETATTR3res result = {.status = NFS3_OK};
    attributes(fileid_of(&arguments.object), &result.GETATTR3res_u.resok.obj_attributes);
    return reply(rpc, call, &result, (zdrproc_t)zdr_GETATTR3res, 256);
}

static int serve_lookup(struct rpc_context *rpc, struct rpc_msg *call)
{
    static uint64_t found[1];
    ARGUMENTS(LOOKUP3args);
    struct LOOKUP3res result = {.status = NFS3_OK};
    bool root = fileid_of(&arguments.what.dir) == ROOT;
    found[0] = root && strcmp(arguments.what.name, "disk") == 0     ? DISK
               : root && strcmp(arguments.what.name, ".svmfs") == 0 ? PRIVATE
                                                                    : 0;
    if (!found[0]) {
        result.status = NFS3ERR_NOENT;
        return reply(rpc, call, &result, (zdrproc_t)zdr_LOOKUP3res, 256);
    }
    struct LOOKUP3resok *ok = &result.LOOKUP3res_u.resok;
    ok->object = (struct nfs_fh3){{sizeof(found[0]), (char *)found}};
    ok->obj_attributes.attributes_follow = 1;
    attributes(found[0], &ok->obj_attributes.post_op_attr_u.attributes);
    return reply(rpc, call, &result, (zdrproc_t)zdr_LOOKUP3res, 512);
}

static int serve_fsinfo(struct rpc_context *rpc, struct rpc_msg *call)
{
    struct FSINFO3res result = {.status = NFS3_OK};
    result.FSINFO3res_u.resok.rtmax = result.FSINFO3res_u.resok.wtmax = served->transfer;
    return reply(rpc, call, &result, (zdrproc_t)zdr_FSINFO3res, 256);
}

static int serve_pathconf(struct rpc_context *rpc, struct rpc_msg *call)
{
    struct PATHCONF3res result = {.status = NFS3_OK};
    result.PATHCONF3res_u.resok.name_max = 255;
    return reply(rpc, call, &result, (zdrproc_t)zdr_PATHCONF3res, 256);
}

static int serve_read(struct rpc_context *rpc, struct rpc_msg *call)
{
    ARGUMENTS(READ3args);
    struct READ3res result = {.status = NFS3_OK};
    struct READ3resok *ok = &result.READ3res_u.resok;
    uint64_t left = arguments.offset < served->size ? served->size - arguments.offset : 0;
    uint32_t count = arguments.count < served->most ? arguments.count : served->most;
    count = count < left ? count : (uint32_t)left;
    ok->count = ok->data.data_len = count;
    ok->data.data_val = (char *)served->cached + arguments.offset;
    ok->eof = count == left;
    return reply(rpc, call, &result, (zdrproc_t)zdr_READ3res, (int)count + 256);
}

static void execute(uint64_t offset, const void *bytes, uint32_t count)
{
    memcpy(served->cached + offset, bytes, count);
    if (served->size < offset + count)
        served->size = offset + count;
}

static int serve_write(struct rpc_context *rpc, struct rpc_msg *call)
{
    ARGUMENTS(WRITE3args);
    struct WRITE3res result = {.status = NFS3_OK};
    struct WRITE3resok *ok = &result.WRITE3res_u.resok;
    uint32_t count = arguments.count < served->most ? arguments.count : served->most;
    served->writes++;
    if (served->hold_writes) {
        struct held *held = malloc(sizeof(*held) + count);
        held->offset = arguments.offset;
        held->count = count;
        memcpy(held->bytes, arguments.data.data_val, count);
        list_append(&served->held, &held->link);
        return 0;
    }
    if (later())
        result.status = NFS3ERR_JUKEBOX;
    if (served->status) {
        result.status = (nfsstat3)served->status;
        served->status = 0;
    }
    if (result.status == NFS3_OK) {
        execute(arguments.offset, arguments.data.data_val, count);
        ok->count = count;
        ok->committed = (stable_how)(arguments.stable > served->stable ? arguments.stable : served->stable);
        if (ok->committed != UNSTABLE)
            memcpy(served->durable + arguments.offset, arguments.data.data_val, count);
        memcpy(ok->verf, &served->verifier, sizeof(ok->verf));
    }
    return reply(rpc, call, &result, (zdrproc_t)zdr_WRITE3res, 256);
}

static int serve_commit(struct rpc_context *rpc, struct rpc_msg *call)
{
    struct COMMIT3res result = {.status = later() ? NFS3ERR_JUKEBOX : NFS3_OK};
    served->commits++;
    if (result.status == NFS3_OK)
        memcpy(served->durable, served->cached, served->size);
    memcpy(result.COMMIT3res_u.resok.verf, &served->verifier, sizeof(served->verifier));
    return reply(rpc, call, &result, (zdrproc_t)zdr_COMMIT3res, 256);
}

static int serve_setattr(struct rpc_context *rpc, struct rpc_msg *call)
{
    ARGUMENTS(SETATTR3args);
    struct SETATTR3res result = {.status = later() ? NFS3ERR_JUKEBOX : NFS3_OK};
    uint64_t size = arguments.new_attributes.size.set_size3_u.size;
    if (result.status == NFS3_OK && arguments.new_attributes.size.set_it) {
        if (size < served->size) {
            memset(served->cached + size, 0, served->size - size);
            memset(served->durable + size, 0, served->size - size);
        }
        served->size = size;
    }
    return reply(rpc, call, &result, (zdrproc_t)zdr_SETATTR3res, 256);
}

/* libnfs decodes arguments into memory that it has not cleared, and takes what lies there for strings. */
#define CLEAN(type)                                                                                                    \
    static uint32_t clean_##type(ZDR *zdr, void *out)                                                                  \
    {                                                                                                                  \
        memset(out, 0, sizeof(type));                                                                                  \
        return zdr_##type(zdr, out);                                                                                   \
    }
CLEAN(GETATTR3args)
CLEAN(SETATTR3args)
CLEAN(LOOKUP3args)
CLEAN(READ3args)
CLEAN(WRITE3args)
CLEAN(FSINFO3args)
CLEAN(PATHCONF3args)
CLEAN(COMMIT3args)
CLEAN(dirpath)
#define DECODE(type) (zdrproc_t) clean_##type, sizeof(type)

static struct service_proc nfs_procedures[] = {
    {0, serve_null, (zdrproc_t)zdr_void, 0},
    {1, serve_getattr, DECODE(GETATTR3args)},
    {2, serve_setattr, DECODE(SETATTR3args)},
    {3, serve_lookup, DECODE(LOOKUP3args)},
    {6, serve_read, DECODE(READ3args)},
    {7, serve_write, DECODE(WRITE3args)},
    {19, serve_fsinfo, DECODE(FSINFO3args)},
    {20, serve_pathconf, DECODE(PATHCONF3args)},
    {21, serve_commit, DECODE(COMMIT3args)},
};

static struct service_proc mount_procedures[] = {
    {0, serve_null, (zdrproc_t)zdr_void, 0},
    {1, serve_mount, DECODE(dirpath)},
};

/* ---- the thread ---- */

struct connections {
    struct rpc_context *rpc[CONNECTIONS];
    unsigned count;
};

static void end_one(struct connections *connections, unsigned i)
{
    rpc_disconnect(connections->rpc[i], "over");
    rpc_destroy_context(connections->rpc[i]);
    connections->rpc[i] = connections->rpc[--connections->count];
}

static void accept_one(struct stage *stage, struct connections *connections)
{
    int fd = accept(stage->listener, NULL, NULL);
    if (fd < 0 || connections->count == CONNECTIONS) {
        close(fd);
        return;
    }
    struct rpc_context *rpc = rpc_init_server_context(fd);
    rpc_register_service(rpc, 100003, 3, nfs_procedures, sizeof(nfs_procedures) / sizeof(nfs_procedures[0]));
    rpc_register_service(rpc, 100005, 3, mount_procedures, sizeof(mount_procedures) / sizeof(mount_procedures[0]));
    connections->rpc[connections->count++] = rpc;
    stage->connections++;
}

static void turn(struct stage *stage, struct connections *connections)
{
    struct pollfd polled[CONNECTIONS + 2] = {{stage->listener, POLLIN, 0}, {stage->wake, POLLIN, 0}};
    unsigned count = connections->count;
    for (unsigned i = 0; i < count; i++)
        polled[i + 2] = (struct pollfd){
            rpc_get_fd(connections->rpc[i]), (short)rpc_which_events(connections->rpc[i]), 0};
    poll(polled, count + 2, -1);
    eventfd_t told;
    if (polled[1].revents)
        eventfd_read(stage->wake, &told);
    pthread_mutex_lock(&stage->mutex);
    for (unsigned i = count; i-- > 0 && !stage->cut;)
        if (polled[i + 2].revents && rpc_service(connections->rpc[i], polled[i + 2].revents) < 0)
            end_one(connections, i);
    while (stage->cut && connections->count > 0)
        end_one(connections, 0);
    stage->cut = false;
    if (polled[0].revents)
        accept_one(stage, connections);
    pthread_mutex_unlock(&stage->mutex);
}

static void *serve(void *argument)
{
    struct stage *stage = argument;
    struct connections connections = {.count = 0};
    bool stop = false;
    while (!stop) {
        turn(stage, &connections);
        pthread_mutex_lock(&stage->mutex);
        stop = stage->stop;
        pthread_mutex_unlock(&stage->mutex);
    }
    while (connections.count > 0)
        end_one(&connections, 0);
    return NULL;
}

void stage_start(struct stage *stage)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    memset(stage, 0, sizeof(*stage));
    pthread_mutex_init(&stage->mutex, NULL);
    list_init(&stage->held);
    stage->cached = calloc(1, STAGE_SIZE);
    stage->durable = calloc(1, STAGE_SIZE);
    stage->verifier = 1000;
    stage->transfer = stage->most = 1 << 20;
    stage->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    stage->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    served = stage;
    cr_assert(stage->cached && stage->durable);
    cr_assert_eq(bind(stage->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(stage->listener, 16), 0);
    cr_assert_eq(getsockname(stage->listener, (struct sockaddr *)&address, &length), 0);
    stage->port = ntohs(address.sin_port);
    cr_assert_eq(pthread_create(&stage->thread, NULL, serve, stage), 0);
}

void stage_stop(struct stage *stage)
{
    pthread_mutex_lock(&stage->mutex);
    stage->stop = true;
    pthread_mutex_unlock(&stage->mutex);
    eventfd_write(stage->wake, 1);
    pthread_join(stage->thread, NULL);
    stage_land(stage);
    close(stage->listener);
    close(stage->wake);
    free(stage->cached);
    free(stage->durable);
}

static void cut(struct stage *stage, bool forget)
{
    pthread_mutex_lock(&stage->mutex);
    if (forget) {
        memcpy(stage->cached, stage->durable, STAGE_SIZE);
        stage->verifier++;
    }
    stage->cut = true;
    eventfd_write(stage->wake, 1);
    pthread_mutex_unlock(&stage->mutex);
    for (bool done = false; !done; usleep(1000)) {
        pthread_mutex_lock(&stage->mutex);
        done = !stage->cut;
        pthread_mutex_unlock(&stage->mutex);
    }
}

void stage_crash(struct stage *stage)
{
    cut(stage, true);
}

void stage_cut(struct stage *stage)
{
    cut(stage, false);
}

void stage_land(struct stage *stage)
{
    struct list *link;
    pthread_mutex_lock(&stage->mutex);
    while ((link = list_pop(&stage->held))) {
        struct held *held = container_of(link, struct held, link);
        execute(held->offset, held->bytes, held->count);
        free(held);
    }
    pthread_mutex_unlock(&stage->mutex);
}

unsigned stage_writes(struct stage *stage)
{
    pthread_mutex_lock(&stage->mutex);
    unsigned writes = stage->writes;
    pthread_mutex_unlock(&stage->mutex);
    return writes;
}

unsigned stage_commits(struct stage *stage)
{
    pthread_mutex_lock(&stage->mutex);
    unsigned commits = stage->commits;
    pthread_mutex_unlock(&stage->mutex);
    return commits;
}
