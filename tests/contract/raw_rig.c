#include "raw_rig.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/backends.h"

#define SIZE_MIB 64

static const struct datastore_ops *const backends[] = {&backend_memory, NULL};

const char *raw_kind_name(enum raw_kind kind)
{
    static const char *const names[] = {"local", "device", "device of 4096", "iscsi"};
    return names[kind];
}

static bool run(const char *command, char *line, size_t size)
{
    FILE *pipe = popen(command, "r");
    bool got = pipe && fgets(line, (int)size, pipe);
    if (got)
        line[strcspn(line, "\n")] = 0;
    return pipe && pclose(pipe) == 0 && got;
}

/* NULL, or why it cannot be tested here. */
static const char *find(struct raw_rig *raw)
{
    char command[1024];
    const char *given;
    switch (raw->kind) {
    case RAW_LOCAL:
        snprintf(raw->url, sizeof(raw->url), "local:%s/raw", raw->rig.scratch);
        snprintf(command, sizeof(command), "truncate -s %dM %s/raw && echo", SIZE_MIB, raw->rig.scratch);
        return run(command, command, sizeof(command)) ? NULL : "no file can be made";
    case RAW_DEVICE:
    case RAW_DEVICE_4096:
        given = raw->kind == RAW_DEVICE ? getenv("SVMFS_TEST_DEVICE") : NULL;
        if (!given) {
            snprintf(command, sizeof(command),
                "PATH=$PATH:/sbin:/usr/sbin; truncate -s %dM %s/raw && losetup -f --show --direct-io=on %s %s/raw "
                "2>/dev/null",
                SIZE_MIB, raw->rig.scratch, raw->kind == RAW_DEVICE_4096 ? "--sector-size 4096" : "", raw->rig.scratch);
            if (geteuid() != 0 || !run(command, raw->loop, sizeof(raw->loop)))
                return "no SVMFS_TEST_DEVICE is named, and a loop device needs root and a free one";
            given = raw->loop;
        }
        snprintf(raw->url, sizeof(raw->url), "device:%s", given);
        return NULL;
    case RAW_ISCSI:
        given = getenv("SVMFS_TEST_ISCSI");
        if (!given)
            return "SVMFS_TEST_ISCSI names no LUN that may be overwritten (iscsi://portal/target/lun)";
        snprintf(raw->url, sizeof(raw->url), "%s", given);
        return NULL;
    case RAW_KINDS:
        break;
    }
    abort();
}

static void identify(struct raw_rig *raw, uint64_t mount)
{
    raw->rig.datastore->identity = (struct identity){.mount = mount, .generation = 1, .host = "test"};
}

int raw_rig_again(struct raw_rig *raw, uint64_t mount, bool writable, struct image **out, struct sentence *why)
{
    const struct raw_ops *ops;
    identify(raw, mount);
    return raw_open(raw->rig.datastore, backend_raws, raw->url, writable, out, &ops, why);
}

void raw_rig_open(struct raw_rig *raw, enum raw_kind kind)
{
    struct rig *rig = &raw->rig;
    struct sentence why = {""};
    memset(raw, 0, sizeof(*raw));
    raw->kind = kind;
    const char *base = getenv("SVMFS_CONTRACT_DIR");
    snprintf(rig->scratch, sizeof(rig->scratch), "%s/svmfs-raw-XXXXXX", base ? base : "/tmp");
    expect(mkdtemp(rig->scratch));
    const char *reason = find(raw);
    if (reason) {
        raw_rig_close(raw);
        rig_skip(reason);
    }
    struct datastore_options options = {.name = "one",
        .url = "memory:",
        .timeout_ns = 6000000000,
        .threads = 4,
        .password_file = getenv("SVMFS_TEST_ISCSI_PASSWORD_FILE")};
    expect_equal(datastore_new(&rig->datastore, &options, backends, &why), 0);
    expect_equal(datastore_open(rig->datastore, &why), 0);
    identify(raw, (uint64_t)getpid() << 32 | 1);
    for (unsigned i = 0; i < RIG_REACTORS; i++)
        expect_equal(reactor_start(&rig->reactors[i], i), 0);
    if (raw_open(rig->datastore, backend_raws, raw->url, true, &raw->image, &raw->ops, &why) != 0)
        rig_fail(__FILE__, __LINE__, why.text);
}

void raw_rig_close(struct raw_rig *raw)
{
    char command[128];
    image_put(raw->image);
    rig_close(&raw->rig);
    if (*raw->loop) {
        snprintf(command, sizeof(command), "PATH=$PATH:/sbin:/usr/sbin; losetup -d %s", raw->loop);
        expect_equal(system(command), 0);
    }
}
