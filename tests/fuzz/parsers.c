#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backends/backends.h"
#include "backends/fault_rules.h"
#include "backends/iscsi_reserve.h"
#include "backends/iscsi_url.h"
#include "backends/nfs_record.h"
#include "backends/nfs_url.h"
#include "backends/owner_record.h"
#include "base/log.h"
#include "catalog/catalog.h"
#include "config.h"
#include "control/command.h"
#include "fuzz.h"
#include "options.h"
#include "parsers.h"

#define ROOM PARSER_ROOM

static char folder[] = "/tmp/svmfs-fuzz.XXXXXX";
static char file[64];
static struct catalog *catalog;
static struct datastore *datastore;
static unsigned long taken, refused;

static void must_say(const struct sentence *why, const char *what)
{
    if (why->text[0] == '\0' || !memchr(why->text, 0, sizeof(why->text)))
        fuzz_broken("%s: refused without a sentence\n", what);
    refused++;
}

static void write_file(const char *text, size_t size)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, text, size) != (ssize_t)size)
        fuzz_broken("%s cannot be written\n", file);
    close(fd);
}

/* ---- one parser each ---- */

static void dump(const struct config *config, char **text, size_t *size)
{
    FILE *out = open_memstream(text, size);
    config_dump(config, out);
    fclose(out);
}

static void fuzz_config(char *text, size_t size)
{
    static const char *const schemes[] = {"local", "memory", "nfs", "volume", "fault", NULL};
    struct config config, again;
    struct sentence why = {""};
    char *first, *second;
    size_t first_size, second_size;
    write_file(text, size);
    if (config_load(&config, file, schemes, &why) < 0) {
        must_say(&why, "config_load");
        return;
    }
    taken++;
    dump(&config, &first, &first_size);
    config_free(&config);
    write_file(first, first_size);
    if (config_load(&again, file, schemes, &why) < 0)
        fuzz_broken("the configuration that was printed is refused: %s\n%s\n", why.text, first);
    dump(&again, &second, &second_size);
    if (first_size != second_size || memcmp(first, second, first_size) != 0)
        fuzz_broken("a configuration that is printed twice:\n%s\n%s\n", first, second);
    config_free(&again);
    free(first);
    free(second);
}

static void fuzz_options(char *text, size_t size)
{
    struct options options = {0};
    struct sentence why = {""};
    if (options_add(&options, text, &why) < 0)
        must_say(&why, "options_add");
    else
        taken++;
    if (!memchr(options.mount, 0, sizeof(options.mount)))
        fuzz_broken("options_add: no end\n");
}

static void fuzz_migrate(char *text, size_t size)
{
    char value[COMMAND_MAX + 1], written[COMMAND_MAX + 1], twice[COMMAND_MAX + 1];
    struct job_request request, again;
    struct sentence why = {""};
    int error = command_text(text, size, value, &why);
    if (!error)
        error = command_parse_migrate(catalog, value, &request, &why);
    if (error) {
        must_say(&why, "migrate");
        return;
    }
    taken++;
    command_format(catalog, &request, written);
    if (command_parse_migrate(catalog, written, &again, &why) < 0)
        fuzz_broken("\"%s\" became \"%s\", which is refused: %s\n", value, written, why.text);
    command_format(catalog, &again, twice);
    if (strcmp(written, twice) != 0)
        fuzz_broken("\"%s\" became \"%s\" and then \"%s\"\n", value, written, twice);
}

static void fuzz_control(char *text, size_t size)
{
    char value[COMMAND_MAX + 1];
    enum command_verb verb;
    struct sentence why = {""};
    uint64_t number;
    int error = command_text(text, size, value, &why);
    if (!error)
        error = command_parse_control(value, &verb, &why);
    if (error)
        must_say(&why, "control");
    else
        taken++;
    config_parse_duration(text, &number);
    config_parse_size(text, &number);
}

static void fuzz_rules(char *text, size_t size)
{
    struct fault_rules rules;
    write_file(text, size);
    if (fault_rules_open(&rules, file) < 0)
        fuzz_broken("fault_rules_open\n");
    for (unsigned point = 0; point < FAULT_POINTS; point++) {
        const struct extent extent = {4096, 8192};
        struct fault_waiting waiting = {.go = NULL};
        list_init(&waiting.link);
        struct fault_verdict verdict = fault_decide(&rules, point, &extent, "vm/disk.img", &waiting);
        taken += verdict.action != FAULT_NONE;
        refused += verdict.action == FAULT_NONE;
        if ((verdict.action == FAULT_FAIL || verdict.action == FAULT_LATE) && verdict.error >= 0)
            fuzz_broken("a rule fails with %d\n", verdict.error);
        list_remove(&waiting.link);
    }
    fault_rules_close(&rules);
}

static void fuzz_owner(char *text, size_t size)
{
    struct owner_record record, again;
    char written[OWNER_RECORD], whom[300];
    size = size < OWNER_RECORD ? size : OWNER_RECORD;
    owner_describe(text, size, whom, sizeof(whom));
    int error = owner_decode(text, size, &record);
    if (error) {
        refused++;
        return;
    }
    taken++;
    owner_encode(&record, written);
    if (owner_decode(written, sizeof(written), &again) < 0)
        fuzz_broken("a record that was written is none:\n%.*s\n", (int)sizeof(written), written);
    if (again.mount != record.mount || again.beat != record.beat || again.held != record.held)
        fuzz_broken("a record changed:\n%.*s\n%.*s\n", (int)size, text, (int)sizeof(written), written);
}

static void fuzz_lun(char *text, size_t size)
{
    struct lun_url url;
    struct sentence why = {""};
    char portal[LUN_PORTAL_SIZE];
    if (lun_url_parse(&url, "fuzz", text, &why) < 0) {
        must_say(&why, "lun_url_parse");
        return;
    }
    taken++;
    lun_url_portal(&url, portal);
    if (url.lun > LUN_NUMBER_MAX || url.port == 0 || url.port > 65535 || !url.host[0] || !url.target[0])
        fuzz_broken("\"%s\" was taken\n", text);
    lun_url_move(&url, text);
}

static void fuzz_nfs(char *text, size_t size)
{
    struct nfsds_url url;
    struct sentence why = {""};
    if (nfsds_url_parse(&url, "fuzz", text, &why) < 0) {
        must_say(&why, "nfsds_url_parse");
        return;
    }
    taken++;
    if (!url.host[0] || (url.path[0] && url.path[0] != '/') || url.nfs_port < 0 || url.nfs_port > 65535)
        fuzz_broken("\"%s\" was taken\n", text);
}

static void fuzz_sidecar(char *text, size_t size)
{
    struct nfsds_record record = {0};
    char out[ROOM], *own = malloc(size + 1);
    memcpy(own, text, size);
    own[size] = '\0';
    if (!nfsds_record_parse(&record, own, size)) {
        refused++;
        return;
    }
    taken++;
    ssize_t length = nfsds_record_list(&record, out, sizeof(out));
    for (const char *name = out; length > 0 && name < out + length; name += strlen(name) + 1) {
        char value[ROOM];
        if (nfsds_record_get(&record, name, value, sizeof(value)) == -ENODATA)
            fuzz_broken("the sidecar names \"%s\" and does not have it\n", name);
    }
    nfsds_record_set(&record, "user.more", "value", 5, 0);
    nfsds_record_free(&record);
}

static void fuzz_keys(char *text, size_t size)
{
    uint8_t *own = malloc(size + 1); /* so that a sanitizer sees its end */
    memcpy(own, text, size);
    struct lun_keys keys = lun_keys_decode(own, (uint32_t)size, 17);
    if ((size_t)keys.ours + keys.others > size / 8)
        fuzz_broken("more keys than there are bytes\n");
    taken += keys.ours + keys.others > 0;
    free(own);
}

static const char owner_text[] =
    "svmfs-owner 1\nstate held\nmount 00000000000000aa\nbeat 00000000000000000005\nkeeper 17\nworker 18\nprocesses 1\n"
    "boot b\nmachine m\nhost h\nmountpoint /vms\n";

const struct parser parsers[] = {
    {"config", fuzz_config,
        {"[datastore a]\nurl = local:/srv\ntimeout = 30s\nthreads = 4\n[mount]\ndefault = a\nstate = /var/x\n",
            "# x\n[datastore b]\nurl=volume:iscsi://u@h:1/iqn.x/1\npassword-file = "
            "/s\nmutual-user=m\nmutual-password-file=/t\n"
            "[datastore n]\nurl=nfs://h/e\nquiet = 2s\nconnections=3\n[mount]\nreactors=2\njobs=3\nbuffers=64M\n"},
        {"[mount]", "[datastore x]", "[", "]", "url", "=", "timeout", "state", "faults", "default", "local:/",
            "memory:", "fault:local:/x", "500ms", "1h", "64M", "\n", "#", ";", "target-timeout"}},
    {"options", fuzz_options, {"rw,nodev,default=a,jobs=2", "_netdev,x-systemd.automount,state=/x,takeover"},
        {",", "=", "ro", "nosuid", "default=", "reactors=", "jobs=", "user=", "fsname="}},
    {"migrate", fuzz_migrate, {"a", "a,format=thin,rate=200M,switchover=manual,paused"},
        {",", "format=", "same", "thick", "rate=", "G", "verify", "keep=", "switchover=", "rescue=yes", "latency=2ms"}},
    {"control", fuzz_control, {"cancel", "pause", "resume", "switchover"},
        {"verify", "undo", "release", "rescan", "30s", "5T"}},
    {"rules", fuzz_rules,
        {"write fail errno=ENOSPC offset=4096 after=1 count=2\nany check\n", "read late ms=1 path=disk\n# x\n"},
        {"read", "write", "any", "name", "open", "fail", "hang", "delay", "late", "check", "enospc",
            "errno=", "ms=", "EIO", "\n"}},
    {"owner", fuzz_owner, {owner_text, "svmfs-owner 2\nstate held\n"},
        {"svmfs-owner 1\n", "state free\n", "mount ", "beat ", "host ", "\n"}},
    {"iscsi", fuzz_lun,
        {"//user@host:3260/iqn.2026-01.org.x:y/1", "//[::1]:1/iqn%3Ax/0?header_digest=yes&initiator=iqn.z"},
        {"/", "@", ":", "[", "]", "?", "&", "=", "%", "%00", "%2F", "header_digest", "initiator", "iqn.", ",1"}},
    {"nfs", fuzz_nfs, {"//host/export/dir?nfsport=1&mountport=2&uid=0&gid=0&connections=2", "//[fe80::1]:2049/e%20x"},
        {"/", ":", "[", "]", "?", "&", "=", "%", "%00", "%2e%2e", "..", "nfsport=", "uid=", "-1", "connections="}},
    {"sidecar", fuzz_sidecar, {"xattr user.a 616263\nxattr user.b%20c \n"},
        {"xattr ", "\n", " ", "%", "user.", "00", "ff"}},
    {"keys", fuzz_keys, {"keys"}, {""}},
};
const size_t parser_count = sizeof(parsers) / sizeof(parsers[0]);

const struct parser *parser_named(const char *name)
{
    for (size_t i = 0; i < parser_count; i++)
        if (strcmp(parsers[i].name, name) == 0)
            return &parsers[i];
    return NULL;
}

int parsers_open(struct sentence *why)
{
    static const struct datastore_ops *const backends[] = {&backend_memory, NULL};
    const struct datastore_options options = {.name = "a", .url = "memory:", .timeout_ns = 1000000000, .threads = 1};
    if (!mkdtemp(folder))
        return refuse(why, -errno, "there is no folder %s", folder);
    snprintf(file, sizeof(file), "%s/file", folder);
    int error = datastore_new(&datastore, &options, backends, why);
    if (!error)
        error = datastore_open(datastore, why);
    return error ? error : catalog_open(&catalog, folder, &datastore, 1, 0, true, why);
}

int parsers_close(unsigned long *was_taken, unsigned long *was_refused)
{
    char command[128];
    catalog_close(catalog);
    datastore_free(datastore);
    *was_taken = taken;
    *was_refused = refused;
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command) == 0 ? 0 : -EIO;
}
