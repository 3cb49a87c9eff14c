/* A round: moves, a death, and what must hold after it. */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "crash.h"

/* ---- the mount ---- */

static bool get(int fd, const char *name, char *out, size_t size)
{
    ssize_t length = fgetxattr(fd, name, out, size - 1);
    out[length < 0 ? 0 : length] = '\0';
    return length >= 0;
}

static pid_t worker_pid(struct world *world)
{
    char text[32];
    return get(world->disk[0].fd, "user.svmfs.worker", text, sizeof(text)) ? (pid_t)atol(text) : 0;
}

static pid_t parent_of(pid_t pid)
{
    char path[64], line[512] = "", state;
    int parent = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (!file)
        return 0;
    char *after = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
    if (!after || sscanf(after + 1, " %c %d", &state, &parent) != 2)
        parent = 0;
    fclose(file);
    return parent;
}

static bool is_gone(pid_t pid)
{
    return pid <= 0 || kill(pid, 0) < 0;
}

static void mount_again(struct world *world, pid_t keeper, pid_t worker)
{
    for (unsigned i = 0; i < world->disks; i++)
        close(world->disk[i].fd);
    if (worker) {
        usleep(roll(&world->random, 30000));
        kill(worker, SIGKILL);
    }
    for (uint64_t end = now_ms() + PATIENCE_S * 1000; !is_gone(keeper); usleep(2000))
        if (now_ms() > end) {
            fail(world, "the keeper %d does not end", (int)keeper);
            exit(1);
        }
    while (umount2(world->mount, MNT_DETACH) == 0)
        ;
    int status = system(world->start);
    if (status != 0) {
        fail(world, "the mount cannot be made again: status %d", status);
        exit(1);
    }
    for (unsigned i = 0; i < world->disks; i++) {
        world->disk[i].fd = open(world->disk[i].path, O_RDWR | O_DIRECT | O_CLOEXEC);
        if (world->disk[i].fd < 0) {
            fail(world, "disk %u cannot be opened: %s", i, strerror(errno));
            exit(1);
        }
    }
    atomic_store(&world->tolerate, false);
    atomic_store(&world->halt, false);
}

/* ---- a round ---- */

static bool set(struct disk *disk, const char *name, const char *value)
{
    return fsetxattr(disk->fd, name, value, strlen(value), 0) == 0;
}

/* A datastore that a new worker has not reached yet is away for a moment: the command is refused, and given again. */
static int ask(struct disk *disk, const char *target)
{
    for (uint64_t end = now_ms() + PATIENCE_S * 1000;; usleep(5000)) {
        if (fsetxattr(disk->fd, "user.svmfs.migrate", target, strlen(target), 0) == 0)
            return 0;
        int error = errno;
        if (error == EBUSY && now_ms() < end) { /* what was kept is not gone yet */
            set(disk, "user.svmfs.control", "release");
            continue;
        }
        if (error != ENODEV || now_ms() > end)
            return -error;
    }
}

/* A move to another datastore; now and then it is compared, or the old copy is kept. */
static void ask_for_move(struct world *world, unsigned index)
{
    static const char *const more[] = {"", "", ",verify", ",keep=10m"};
    struct disk *disk = &world->disk[index];
    char command[64], why[400];
    unsigned how = roll(&world->random, world->keeps ? 4 : 3);
    do
        disk->target = roll(&world->random, world->stores);
    while (disk->target == disk->store);
    snprintf(command, sizeof(command), "%s%s", world->store[disk->target].name, more[how]);
    int error = ask(disk, command);
    disk->kept = how == 3;
    disk->before = disk->store;
    if (error == 0)
        return;
    get(disk->fd, "user.svmfs.error", why, sizeof(why));
    fail(world, "disk %u cannot be moved to %s: %s: %s", index, command, strerror(-error), why);
    disk->target = disk->store;
    disk->over = true;
}

static void ask_for_moves(struct world *world)
{
    for (unsigned i = 0; i < world->disks; i++) {
        struct disk *disk = &world->disk[i];
        disk->over = disk->undoing = false;
        if (disk->kept && roll(&world->random, 3) && set(disk, "user.svmfs.control", "undo")) {
            disk->kept = false;
            disk->undoing = true;
            disk->target = disk->before;
            world->undone++;
            continue;
        }
        if (disk->kept) /* or it was dropped meanwhile */
            set(disk, "user.svmfs.control", "release");
        ask_for_move(world, i);
    }
}

/* Is the job over? Fails the round if it is not done. */
static bool is_over(struct world *world, unsigned index)
{
    struct disk *disk = &world->disk[index];
    char line[600], why[400];
    if (disk->over || !get(disk->fd, "user.svmfs.progress", line, sizeof(line)))
        return disk->over;
    if (strncmp(line, "state=done", 10) != 0 && strncmp(line, "state=failed", 12) != 0 &&
        strncmp(line, "state=cancelled", 15) != 0)
        return false;
    char wanted[64];
    snprintf(wanted, sizeof(wanted), " target=%s", world->store[disk->target].name);
    const char *found = strstr(line, wanted);
    if (!found || (found[strlen(wanted)] != '\0' && found[strlen(wanted)] != ' ')) {
        if (!disk->undoing && world->stale++ == 0)
            fail(world, "disk %u, %s to %s: progress tells of an older job: %s", index, world->store[disk->store].name,
                world->store[disk->target].name, line);
        return false;
    }
    disk->over = true;
    if (strncmp(line, "state=done", 10) != 0) {
        get(disk->fd, "user.svmfs.error", why, sizeof(why));
        fail(world, "disk %u, %s to %s: %s: %s", index, world->store[disk->store].name, world->store[disk->target].name,
            line, why);
    }
    return true;
}

static unsigned over(struct world *world)
{
    unsigned count = 0;
    for (unsigned i = 0; i < world->disks; i++)
        count += is_over(world, i);
    return count;
}

/* The jobs that were not over when it happened, by the kinds of their datastores; one of them at least has met it. */
static void note_met(struct world *world, enum how how)
{
    unsigned before = world->met, last = 0;
    world->deaths[how]++;
    for (unsigned i = 0; i < world->disks; i++) {
        const struct disk *disk = &world->disk[i];
        bool was_over = disk->over;
        last = was_over ? last : i;
        if (is_over(world, i))
            continue;
        world->met++;
        world->pairs[disk->store][disk->target]++;
    }
    if (world->met == before) {
        world->met++;
        world->pairs[world->disk[last].store][world->disk[last].target]++;
    }
}

static void arm(struct world *world, unsigned event, long count)
{
    atomic_store(&world->page->left, 0);
    strncpy(world->page->name, world->event[event], sizeof(world->page->name) - 1);
    atomic_store(&world->page->left, count);
    world->armed[event]++;
}

static void die_by_kill(struct world *world, pid_t worker)
{
    usleep(roll(&world->random, roll(&world->random, 3) ? 40000 : 150000));
    kill(worker, SIGKILL);
    if (roll(&world->random, 5) == 0) {
        usleep(roll(&world->random, 30000));
        pid_t next = worker_pid(world);
        if (next > 0 && next != worker)
            kill(next, SIGKILL);
    }
    worker_pid(world);
    note_met(world, KILL);
}

static void die_at_event(struct world *world, pid_t worker, unsigned event)
{
    pid_t now = worker;
    while (over(world) < world->disks && (now = worker_pid(world)) == worker)
        usleep(1000);
    now = worker_pid(world);
    bool died = now != worker;
    atomic_store(&world->page->left, 0);
    if (!died)
        return;
    world->died[event]++;
    note_met(world, EVENT);
}

/* Only a worker that follows knows which commits of a volume were written and not flushed; a new mount trusts none. */
static bool is_volume(const struct store *store)
{
    return strstr(store->kind, "volume") != NULL;
}

static void die_all(struct world *world, pid_t worker, pid_t keeper)
{
    usleep(roll(&world->random, 60000));
    atomic_store(&world->tolerate, true);
    kill(keeper, SIGKILL);
    kill(worker, SIGKILL);
    halt(world);
    for (unsigned i = 0; i < world->disks; i++)
        if (is_volume(&world->store[world->disk[i].store]) || is_volume(&world->store[world->disk[i].target]))
            history_lose(world->disk[i].history);
    mount_again(world, keeper, 0);
    note_met(world, ALL);
}

/* Half the time the worker dies at its end, too. */
static void detach(struct world *world, pid_t worker, pid_t keeper)
{
    usleep(roll(&world->random, 30000));
    if (umount2(world->mount, MNT_DETACH) < 0)
        fail(world, "umount -l: %s", strerror(errno));
    usleep(roll(&world->random, 20000));
    halt(world);
    mount_again(world, keeper, roll(&world->random, 2) ? worker : 0);
    note_met(world, DETACH);
}

static bool stands(const struct store *store, const char *name)
{
    char path[600];
    snprintf(path, sizeof(path), "%s/%s", store->folder, name);
    return access(path, F_OK) == 0;
}

static bool has_partial(const struct store *store)
{
    char pattern[600];
    glob_t found;
    snprintf(pattern, sizeof(pattern), "%s/.svmfs/partial*", store->folder);
    bool any = glob(pattern, 0, NULL, &found) == 0 && found.gl_pathc > 0;
    globfree(&found);
    return any;
}

/* On its own datastore, on no other, nothing hidden: where that can be looked at. */
static const char *disorder(struct world *world, unsigned *where)
{
    for (unsigned s = 0; s < world->stores; s++) {
        *where = s;
        if (!world->store[s].folder)
            continue;
        if (!world->keeps && has_partial(&world->store[s])) /* what is kept is hidden as one */
            return "a partial image stays on";
        for (unsigned i = 0; i < world->disks; i++)
            if (stands(&world->store[s], strrchr(world->disk[i].path, '/') + 1) != (world->disk[i].store == s))
                return world->disk[i].store == s ? "a disk is missing on" : "a second copy of a disk stays on";
    }
    return NULL;
}

static void finish_round(struct world *world, uint8_t *buffer)
{
    uint64_t end = now_ms() + PATIENCE_S * 1000;
    char text[600];
    unsigned where;
    while (over(world) < world->disks && now_ms() < end)
        usleep(2000);
    for (unsigned i = 0; i < world->disks; i++) {
        struct disk *disk = &world->disk[i];
        if (!disk->over) {
            get(disk->fd, "user.svmfs.progress", text, sizeof(text));
            fail(world, "disk %u, %s to %s: its job does not end: %s", i, world->store[disk->store].name,
                world->store[disk->target].name, text);
            exit(1);
        }
        get(disk->fd, "user.svmfs.datastore", text, sizeof(text));
        if (strcmp(text, world->store[disk->target].name) != 0)
            fail(world, "disk %u is on %s, not on %s", i, text, world->store[disk->target].name);
        for (unsigned s = 0; s < world->stores; s++)
            if (strcmp(text, world->store[s].name) == 0)
                disk->store = s;
    }
    const char *what = disorder(world, &where);
    for (end = now_ms() + 10000; what && now_ms() < end; what = disorder(world, &where))
        usleep(5000);
    if (what)
        fail(world, "%s %s", what, world->store[where].name);
    prove_all(world, roll(&world->random, world->disks), buffer);
}

void one_round(struct world *world, uint8_t *buffer)
{
    unsigned dice = roll(&world->random, 100), event = 0;
    enum how how = dice < 3 ? ALL : dice < 5 ? DETACH : dice < 50 || world->events == 0 ? KILL : EVENT;
    pid_t worker = worker_pid(world), keeper = parent_of(worker);
    world->rounds++;
    world->how = how;
    if (how == EVENT) {
        event = (world->seed + world->turn++) % world->events; /* each in its turn */
        bool often = strncmp(world->event[event], "slot-", 5) == 0;
        arm(world, event, 1 + roll(&world->random, often ? 300 : world->disks));
    }
    ask_for_moves(world);
    switch (how) {
    case KILL:
        die_by_kill(world, worker);
        break;
    case EVENT:
        die_at_event(world, worker, event);
        break;
    case ALL:
        die_all(world, worker, keeper);
        break;
    case DETACH:
        detach(world, worker, keeper);
        break;
    case HOWS:
        break;
    }
    finish_round(world, buffer);
    if (how == ALL || how == DETACH)
        for (unsigned i = 0; i < world->disks; i++)
            prove_all(world, i, buffer);
}

void release_all(struct world *world)
{
    uint64_t end = now_ms() + 30000;
    unsigned where;
    for (unsigned i = 0; i < world->disks; i++)
        set(&world->disk[i], "user.svmfs.control", "release");
    world->keeps = false;
    const char *what = disorder(world, &where);
    for (; what && now_ms() < end; what = disorder(world, &where))
        usleep(5000);
    if (what)
        fail(world, "after everything was released %s %s", what, world->store[where].name);
}
