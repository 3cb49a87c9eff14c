#include "stage.h"

#include <fcntl.h>
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backends/backends.h"
#include "base/event.h"

int (*stage_hook)(const char *call, const struct datastore *datastore, const char *path);

static int hook(const char *call, const struct datastore *datastore, const char *path)
{
    return stage_hook ? stage_hook(call, datastore, path) : 0;
}

static int hooked_lookup(struct datastore *datastore, const char *path, struct stat *out)
{
    int error = hook("lookup", datastore, path);
    return error ? error : backend_local.lookup(datastore, path, out);
}

static int hooked_list(struct datastore *datastore, const char *path, datastore_entry *entry, void *argument)
{
    int error = hook("list", datastore, path);
    return error ? error : backend_local.list(datastore, path, entry, argument);
}

static int hooked_create(struct datastore *datastore, const char *path, const struct stat *st, const char *content)
{
    int error = hook("create", datastore, path);
    return error ? error : backend_local.create(datastore, path, st, content);
}

static int hooked_rename(struct datastore *datastore, const char *from, const char *to, bool replace)
{
    int error = hook("rename", datastore, from);
    return error ? error : backend_local.rename(datastore, from, to, replace);
}

static int hooked_remove(struct datastore *datastore, const char *path, bool directory)
{
    int error = hook("remove", datastore, path);
    return error ? error : backend_local.remove(datastore, path, directory);
}

static int hooked_set_attributes(struct datastore *datastore, const char *path, const struct stat *st, unsigned mask)
{
    int error = hook("set_attributes", datastore, path);
    return error ? error : backend_local.set_attributes(datastore, path, st, mask);
}

static struct datastore_ops hooked;

static void open_datastores(struct stage *stage)
{
    static const struct datastore_ops *backends[] = {&hooked, NULL};
    hooked = backend_local;
    hooked.lookup = hooked_lookup;
    hooked.list = hooked_list;
    hooked.create = hooked_create;
    hooked.rename = hooked_rename;
    hooked.remove = hooked_remove;
    hooked.set_attributes = hooked_set_attributes;
    for (unsigned i = 0; i < stage->count; i++) {
        char url[128], name[2] = {(char)('a' + i), '\0'};
        struct sentence why = {""};
        snprintf(url, sizeof(url), "local:%s/%s", stage->root, name);
        struct datastore_options options = {.name = name, .url = url, .timeout_ns = 1000000000, .threads = 2};
        cr_assert_eq(datastore_new(&stage->datastores[i], &options, backends, &why), 0, "%s", why.text);
        stage->datastores[i]->index = i;
        cr_assert_eq(datastore_open(stage->datastores[i], &why), 0, "%s", why.text);
    }
}

static void close_datastores(struct stage *stage)
{
    for (unsigned i = 0; i < stage->count; i++)
        datastore_free(stage->datastores[i]);
}

void stage_open(struct stage *stage, unsigned count)
{
    char path[128];
    memset(stage, 0, sizeof(*stage));
    strcpy(stage->root, "/tmp/svmfs-catalog-XXXXXX");
    cr_assert(mkdtemp(stage->root));
    stage->count = count;
    for (unsigned i = 0; i < count; i++) {
        snprintf(path, sizeof(path), "%s/%c", stage->root, 'a' + (int)i);
        cr_assert_eq(mkdir(path, 0755), 0);
    }
    open_datastores(stage);
}

void stage_mount(struct stage *stage, bool first)
{
    char state[128];
    struct sentence why = {""};
    snprintf(state, sizeof(state), "%s/state", stage->root);
    int error = catalog_open(&stage->catalog, state, stage->datastores, stage->count, 0, first, &why);
    cr_assert_eq(error, 0, "catalog_open: %d %s", error, why.text);
}

void stage_unmount(struct stage *stage)
{
    catalog_close(stage->catalog);
    stage->catalog = NULL;
}

void stage_close(struct stage *stage)
{
    char command[128];
    if (stage->catalog)
        stage_unmount(stage);
    close_datastores(stage);
    snprintf(command, sizeof(command), "rm -rf %s", stage->root);
    cr_assert_eq(system(command), 0);
}

bool stage_die(struct stage *stage, const char *name, int count, bool first, void (*act)(struct stage *stage))
{
    int status;
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        char at[96];
        stage_mount(stage, first);
        snprintf(at, sizeof(at), "%s:%d", name, count);
        setenv("SVMFS_DIE_AT", at, 1);
        event_arm();
        act(stage);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(
        WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 99), "status %x", (unsigned)status);
    return WEXITSTATUS(status) == 99;
}

static const char *physical(struct stage *stage, unsigned datastore, const char *path, char *out, size_t size)
{
    snprintf(out, size, "%s/%c/%s", stage->root, 'a' + (int)datastore, path);
    return out;
}

void stage_put(struct stage *stage, unsigned datastore, const char *path, const char *content)
{
    char out[512];
    FILE *file = fopen(physical(stage, datastore, path, out, sizeof(out)), "w");
    cr_assert(file, "%s", out);
    fputs(content, file);
    fclose(file);
}

void stage_mkdir(struct stage *stage, unsigned datastore, const char *path)
{
    char out[512];
    cr_assert_eq(mkdir(physical(stage, datastore, path, out, sizeof(out)), 0755), 0, "%s", out);
}

void stage_drop(struct stage *stage, unsigned datastore, const char *path)
{
    char out[512];
    cr_assert_eq(remove(physical(stage, datastore, path, out, sizeof(out))), 0, "%s", out);
}

bool stage_has(struct stage *stage, unsigned datastore, const char *path)
{
    char out[512];
    struct stat st;
    return lstat(physical(stage, datastore, path, out, sizeof(out)), &st) == 0;
}

const char *stage_content(struct stage *stage, unsigned datastore, const char *path)
{
    static char text[64];
    char out[512];
    FILE *file = fopen(physical(stage, datastore, path, out, sizeof(out)), "r");
    text[0] = '\0';
    if (file) {
        if (!fgets(text, sizeof(text), file))
            strcpy(text, "(empty)");
        fclose(file);
    }
    return text;
}

unsigned stage_hidden(struct stage *stage, unsigned datastore, const char *prefix)
{
    char out[512];
    unsigned count = 0;
    DIR *directory = opendir(physical(stage, datastore, DATASTORE_PRIVATE, out, sizeof(out)));
    struct dirent *entry;
    while (directory && (entry = readdir(directory)))
        count += entry->d_name[0] != '.' && strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    if (directory)
        closedir(directory);
    return count;
}

int stage_look(struct stage *stage, const char *path, struct node *out)
{
    char text[PATH_MAX];
    int error = catalog_get(stage->catalog, NODE_ROOT, out);
    snprintf(text, sizeof(text), "%s", path);
    for (char *save, *name = strtok_r(text, "/", &save); name && !error; name = strtok_r(NULL, "/", &save))
        error = catalog_lookup(stage->catalog, out->id, name, out);
    return error;
}

uint64_t stage_id(struct stage *stage, const char *path)
{
    struct node node;
    int error = stage_look(stage, path, &node);
    cr_assert_eq(error, 0, "%s: %s", path, error_name(error));
    return node.id;
}

uint64_t stage_parent(struct stage *stage, const char *path, const char **name)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - path) : 0, path);
    return stage_id(stage, directory);
}

int stage_create(struct stage *stage, const struct origin *origin, const char *path, mode_t mode, struct node *out)
{
    const char *name;
    struct stat st = {.st_mode = mode, .st_uid = 0, .st_gid = 0};
    struct node node;
    uint64_t parent = stage_parent(stage, path, &name);
    return names_create(stage->catalog, origin, parent, name, &st, S_ISLNK(mode) ? "goal" : NULL, out ? out : &node);
}

uint64_t stage_make(struct stage *stage, const char *path, mode_t mode)
{
    struct node node;
    int error = stage_create(stage, NULL, path, mode, &node);
    cr_assert_eq(error, 0, "%s: %s", path, error_name(error));
    return node.id;
}

static bool is_open(void *argument, uint64_t id)
{
    return argument != NULL;
}

int stage_unlink(struct stage *stage, const struct origin *origin, const char *path, bool open, uint64_t *removed)
{
    const char *name;
    uint64_t id, parent = stage_parent(stage, path, &name);
    return names_unlink(stage->catalog, origin, parent, name, is_open, open ? stage : NULL, removed ? removed : &id);
}

int stage_rmdir(struct stage *stage, const struct origin *origin, const char *path)
{
    const char *name;
    uint64_t parent = stage_parent(stage, path, &name);
    return names_rmdir(stage->catalog, origin, parent, name);
}

int stage_rename(struct stage *stage, const struct origin *origin, const char *path, const char *to, unsigned flags,
    bool open, uint64_t *replaced)
{
    const char *name, *new_name;
    uint64_t id, parent = stage_parent(stage, path, &name), new_parent = stage_parent(stage, to, &new_name);
    return names_rename(stage->catalog, origin, parent, name, new_parent, new_name, flags, is_open, open ? stage : NULL,
        replaced ? replaced : &id);
}

unsigned stage_where(struct stage *stage, const char *path)
{
    struct node node;
    int error = stage_look(stage, path, &node);
    cr_assert_eq(error, 0, "%s: %s", path, error_name(error));
    return node.datastore;
}
