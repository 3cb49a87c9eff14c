/* The one file that knows every room: what the command line asks for, and the visible array of backends.
 *
 * To mount: the configuration and the options are checked while there is a terminal to say so on; then the process
 * splits (unless -f), and the child is the keeper. The worker gets the configuration as it was checked: a copy in
 * memory that lives as long as the keeper, so that editing the file below a served mount cannot give the next worker
 * other datastores. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "backends/backends.h"
#include "base/cleanup.h"
#include "base/event.h"
#include "base/log.h"
#include "config.h"
#include "daemon.h"
#include "fs/keeper.h"
#include "fs/upgrade.h"
#include "fs/worker.h"
#include "options.h"

#define EXIT_USAGE       2
#define WORKER_SOCKET    3
#define BACKEND_COUNT    (sizeof(backends) / sizeof(backends[0]))
#define CONTROL_XATTR    "user.svmfs.control"
#define CONTROL_SENTENCE "user.svmfs.error"

static const struct datastore_ops *const backends[] = {
    &backend_local, &backend_memory, &backend_nfs, &backend_volume, &backend_fault, NULL};

static const char help[] =
    "usage: svmfs CONFIG MOUNTPOINT [-o OPTIONS] [-f] [--takeover]   mount\n"
    "       svmfs --check-config CONFIG                 say whether the configuration is good\n"
    "       svmfs --dump-config CONFIG                  print it with everything that it leaves out\n"
    "       svmfs --upgrade MOUNTPOINT                  let this program serve the mount, under load\n"
    "       svmfs --rescan MOUNTPOINT                   find what came and went in the datastores' directories\n"
    "       svmfs --version | --help\n"
    "\n"
    "-o OPTIONS  mount options; default=, state=, reactors=, jobs=, target-timeout=, epoch=, buffers= replace the "
    "file's\n"
    "--takeover  also datastores that another mount uses, which must be dead: it cannot write to them any more\n"
    "-f          stay in the foreground, log to stderr\n"
    "\n"
    "To unmount: umount MOUNTPOINT. To move an open disk: setfattr -n user.svmfs.migrate -v DATASTORE FILE.\n"
    "The manual: svmfs(8).\n";

struct arguments {
    struct options options;
    bool foreground;
    const char *check, *dump, *rescan, *upgrade, *takes;
    const char *config, *mountpoint;
};

static int fail(const struct sentence *why)
{
    fprintf(stderr, "svmfs: %s\n", why->text);
    return EXIT_FAILURE;
}

static int load(struct config *config, const char *file, struct sentence *why)
{
    const char *schemes[BACKEND_COUNT] = {NULL};
    for (size_t i = 0; backends[i]; i++)
        schemes[i] = backends[i]->scheme;
    return config_load(config, file, schemes, why);
}

static int check_config(const char *file)
{
    struct config config;
    struct sentence why;
    if (load(&config, file, &why) < 0)
        return fail(&why);
    printf("%s: good: %u datastore%s, new files go to %s, state in %s\n", file, config.datastore_count,
        config.datastore_count == 1 ? "" : "s", config.default_datastore, config.state);
    config_free(&config);
    return EXIT_SUCCESS;
}

static int dump_config(const char *file)
{
    struct config config;
    struct sentence why;
    if (load(&config, file, &why) < 0)
        return fail(&why);
    config_dump(&config, stdout);
    config_free(&config);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* What is mounted last at the path counts. */
static bool is_our_mount(const char *path)
{
    char real[PATH_MAX];
    bool ours = false;
    FILE *mounts = realpath(path, real) ? setmntent("/proc/self/mounts", "re") : NULL;
    for (const struct mntent *entry; mounts && (entry = getmntent(mounts));)
        if (strcmp(entry->mnt_dir, real) == 0)
            ours = strcmp(entry->mnt_type, "fuse.svmfs") == 0;
    if (mounts)
        endmntent(mounts);
    return ours;
}

/* By the control surface, as any other process could; the sentence of the root tells what was found. */
static int rescan(const char *mountpoint)
{
    char sentence[SENTENCE_MAX + 1] = "";
    if (!is_our_mount(mountpoint)) {
        fprintf(stderr, "svmfs: %s: is no mount of svmfs\n", mountpoint);
        return EXIT_FAILURE;
    }
    int error = setxattr(mountpoint, CONTROL_XATTR, "rescan", strlen("rescan"), 0) < 0 ? -errno : 0;
    if (getxattr(mountpoint, CONTROL_SENTENCE, sentence, sizeof(sentence) - 1) <= 0)
        snprintf(sentence, sizeof(sentence), "%s", error < 0 ? error_text(error) : "rescanned");
    fprintf(error < 0 ? stderr : stdout, "%s%s: %s\n", error < 0 ? "svmfs: " : "", mountpoint, sentence);
    return error < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int upgrade(const char *mountpoint)
{
    struct sentence said = {0};
    if (upgrade_ask(mountpoint, &said) < 0)
        return fail(&said);
    printf("%s\n", said.text);
    return EXIT_SUCCESS;
}

/* A keeper asks: can this program take its session and its configuration? */
static int takes_session(const char *version, const char *file)
{
    struct config config;
    struct sentence why;
    if (load(&config, file, &why) < 0) {
        printf("it does not understand the mount's configuration: %s\n", why.text);
        return EXIT_FAILURE;
    }
    config_free(&config);
    return upgrade_answer(version);
}

/* The configuration's file becomes a copy in memory of what was checked; the worker reads that. kept: a keeper that died
 * did it. Its descriptor or -errno. */
static int freeze(struct config *config, int kept, struct sentence *why)
{
    char path[64];
    int fd = kept >= 0 ? kept : memfd_create("svmfs-configuration", MFD_CLOEXEC);
    FILE *out = kept >= 0 || fd < 0 ? NULL : fdopen(fd, "w");
    if (fd < 0 || (kept < 0 && !out))
        return refuse(why, -errno, "memory for the configuration: %s", error_text(errno));
    if (out)
        config_dump(config, out);
    if (out && fflush(out) != 0)
        return refuse(why, -errno, "memory for the configuration: %s", error_text(errno));
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), fd);
    char *copy = strdup(path);
    if (!copy)
        return refuse(why, -ENOMEM, "no memory");
    free(config->file);
    config->file = copy;
    return fd; /* out stays open as long as the process */
}

static void served(void *argument)
{
    int *say = argument;
    if (*say >= 0)
        daemon_say(*say, NULL);
    *say = -1;
    daemon_notify();
}

static int serve(struct config *config, const struct arguments *arguments, const char *mountpoint,
    const struct inheritance *inheritance)
{
    struct sentence why = {0};
    int say = -1;
    if (arguments->foreground)
        daemon_foreground();
    else if (daemon_begin(config->state, &say, &why) < 0)
        return fail(&why);
    event_arm();
    int config_fd = freeze(config, inheritance ? inheritance->config : -1, &why);
    const struct keeper_options options = {
        .config = config,
        .mountpoint = mountpoint,
        .mount_options = arguments->options.mount,
        .config_argument = arguments->config,
        .foreground = arguments->foreground,
        .takeover = arguments->options.takeover,
        .config_fd = config_fd,
        .inheritance = inheritance,
    };
    int error = config_fd < 0 ? config_fd : keeper_serve(&options, served, &say, &why);
    if (error == 0)
        return EXIT_SUCCESS;
    if (why.text[0] == '\0')
        refuse(&why, error, "%s: %s", mountpoint, error_text(error));
    log_error("%s", why.text);
    if (say >= 0)
        daemon_say(say, &why);
    return EXIT_FAILURE;
}

static int check_mountpoint(const char *mountpoint, char real[PATH_MAX], struct sentence *why)
{
    struct stat st;
    if (!realpath(mountpoint, real) || stat(real, &st) < 0) {
        int error = -errno;
        return refuse(why, error, "mountpoint %s: %s%s", mountpoint, error_text(error),
            error == -ENOTCONN ? " (a mount that died; umount it first)" : "");
    }
    return S_ISDIR(st.st_mode) ? 0 : refuse(why, -ENOTDIR, "mountpoint %s is not a directory", mountpoint);
}

/* The mount of a keeper that died, with the configuration that it had: whatever the file says by now, and without a look
 * at the mountpoint, where nobody answers yet. */
static int go_on(const struct arguments *arguments, const struct inheritance *inheritance)
{
    struct config config;
    struct sentence why;
    char path[64], mountpoint[PATH_MAX];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", inheritance->config);
    if (inherit_mountpoint(inheritance, mountpoint, &why) < 0 || load(&config, path, &why) < 0)
        return fail(&why);
    int status = serve(&config, arguments, mountpoint, inheritance);
    config_free(&config);
    return status;
}

static int mount_it(const struct arguments *arguments)
{
    struct config config;
    struct sentence why;
    struct inheritance inheritance;
    char mountpoint[PATH_MAX];
    int inherited = inherit_take(&inheritance, &why);
    if (inherited != 0)
        return inherited < 0 ? fail(&why) : go_on(arguments, &inheritance);
    if (load(&config, arguments->config, &why) < 0)
        return fail(&why);
    int status = EXIT_FAILURE;
    if (options_override(&arguments->options, &config, &why) < 0)
        fail(&why);
    else if (geteuid() != 0)
        fprintf(stderr, "svmfs: only root may mount: svmfs keeps owners and opens every datastore's files\n");
    else if (check_mountpoint(arguments->mountpoint, mountpoint, &why) < 0)
        fail(&why);
    else if (options_check_places(&config, mountpoint, &why) < 0)
        fail(&why);
    else
        status = serve(&config, arguments, mountpoint, NULL);
    config_free(&config);
    return status;
}

static int worker(void)
{
    const char *log = getenv(DAEMON_LOG_ENVIRONMENT);
    log_open("svmfs", log && strcmp(log, "syslog") == 0, LOG_LEVEL_INFO);
    event_arm();
    return worker_serve(WORKER_SOCKET, backends);
}

static int usage(const char *what, const char *which)
{
    fprintf(stderr, "svmfs: %s%s\n%.*s       svmfs --help tells the rest\n", what, which,
        (int)(strchr(help, '\n') + 1 - help), help);
    return EXIT_USAGE;
}

static int run(const struct arguments *arguments, int rest)
{
    int verbs = !!arguments->check + !!arguments->dump + !!arguments->rescan + !!arguments->upgrade;
    if (arguments->takes && rest == 1)
        return takes_session(arguments->takes, arguments->config);
    if (verbs > 1 || (verbs == 1 && rest > 0))
        return usage("one thing at a time", "");
    if (arguments->check)
        return check_config(arguments->check);
    if (arguments->dump)
        return dump_config(arguments->dump);
    if (arguments->rescan)
        return rescan(arguments->rescan);
    if (arguments->upgrade)
        return upgrade(arguments->upgrade);
    if (rest != 2)
        return usage("a configuration and a mountpoint are needed", "");
    return mount_it(arguments);
}

int main(int argc, char **argv)
{
    static const struct option long_options[] = {{"check-config", required_argument, NULL, 'c'},
        {"dump-config", required_argument, NULL, 'd'}, {"rescan", required_argument, NULL, 'r'},
        {"upgrade", required_argument, NULL, 'u'}, {"takes-session", required_argument, NULL, 'T'},
        {"takeover", no_argument, NULL, 't'}, {"worker", no_argument, NULL, 'w'}, {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'}, {0}};
    static struct arguments arguments;
    struct sentence why;
    opterr = 0;
    for (int option; (option = getopt_long(argc, argv, ":o:fVh", long_options, NULL)) != -1;) {
        switch (option) {
        case 'o':
            if (options_add(&arguments.options, optarg, &why) < 0)
                return fail(&why);
            break;
        case 'f':
            arguments.foreground = true;
            break;
        case 'c':
            arguments.check = optarg;
            break;
        case 'd':
            arguments.dump = optarg;
            break;
        case 'r':
            arguments.rescan = optarg;
            break;
        case 'u':
            arguments.upgrade = optarg;
            break;
        case 'T':
            arguments.takes = optarg;
            break;
        case 't':
            arguments.options.takeover = true;
            break;
        case 'w':
            return worker();
        case 'V':
            printf("svmfs %s\n", SVMFS_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            fputs(help, stdout);
            return EXIT_SUCCESS;
        default:
            return usage(option == ':' ? "no value after " : "unknown option ", argv[optind - 1]);
        }
    }
    arguments.config = argv[optind];
    arguments.mountpoint = optind < argc ? argv[optind + 1] : NULL;
    return run(&arguments, argc - optind);
}
