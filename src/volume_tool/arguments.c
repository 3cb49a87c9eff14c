#include "volume_tool/arguments.h"

#include <getopt.h>
#include <string.h>

#include "backends/volume/format.h"
#include "config.h"

#define TIMEOUT_NS (30 * 1000000000ull)

const char arguments_help[] =
    "usage: svmfs-volume format [--label LABEL] [--names-size SIZE] [--force] [--takeover] URL\n"
    "       svmfs-volume check [--repair-copies] [--takeover] URL\n"
    "       svmfs-volume list [-l] URL\n"
    "       svmfs-volume grow [--takeover] URL                take what the raw image has more than its volume\n"
    "       svmfs-volume rm [--takeover] URL PATH             remove a file or an empty directory\n"
    "       svmfs-volume dmtable [--device DEVICE] URL PATH…  a device-mapper table of each file\n"
    "       svmfs-volume dmtable --dd [--device DEVICE] [--output FILE] URL PATH\n"
    "       svmfs-volume --version | --help\n"
    "\n"
    "URL is iscsi://portal/iqn/lun, device:/dev/node, local:/file, or a path; volume: may stand before it.\n"
    "--force            format over whatever is there; it is lost\n"
    "--takeover         though a mount uses the volume, which must be dead: it cannot write to it any more\n"
    "--repair-copies    write the good copy of what is damaged in the other one\n"
    "--dd               print commands that put the file together without device-mapper\n"
    "--password-file FILE, --mutual-user NAME, --mutual-password-file FILE    iSCSI, as in svmfs(8)\n"
    "--timeout TIME     of one request; 30s\n"
    "\n"
    "Exit status: 0 done, clean; 1 failed, refused, damaged; 2 one of two copies is damaged, nothing is lost;\n"
    "3 check could not read it; 4 wrong usage. The manual: svmfs-volume(8).\n";

static const char *const names[COMMANDS] = {"format", "check", "list", "grow", "rm", "dmtable"};

#define OF(command) (1u << (command))
#define OF_ALL      (OF(COMMANDS) - 1)
#define OF_CHANGES  (OF(COMMAND_FORMAT) | OF(COMMAND_CHECK) | OF(COMMAND_GROW) | OF(COMMAND_RM))

enum letter {
    OPTION_LABEL = 256,
    OPTION_NAMES_SIZE,
    OPTION_FORCE,
    OPTION_TAKEOVER,
    OPTION_REPAIR,
    OPTION_DD,
    OPTION_DEVICE,
    OPTION_OUTPUT,
    OPTION_PASSWORD,
    OPTION_MUTUAL_USER,
    OPTION_MUTUAL_PASSWORD,
    OPTION_TIMEOUT,
};

static const struct option long_options[] = {{"label", required_argument, NULL, OPTION_LABEL},
    {"names-size", required_argument, NULL, OPTION_NAMES_SIZE}, {"force", no_argument, NULL, OPTION_FORCE},
    {"takeover", no_argument, NULL, OPTION_TAKEOVER}, {"repair-copies", no_argument, NULL, OPTION_REPAIR},
    {"dd", no_argument, NULL, OPTION_DD}, {"device", required_argument, NULL, OPTION_DEVICE},
    {"output", required_argument, NULL, OPTION_OUTPUT}, {"password-file", required_argument, NULL, OPTION_PASSWORD},
    {"mutual-user", required_argument, NULL, OPTION_MUTUAL_USER},
    {"mutual-password-file", required_argument, NULL, OPTION_MUTUAL_PASSWORD},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT}, {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'}, {0}};

/* The commands that an option means something to. */
static unsigned commands_of(int letter)
{
    switch (letter) {
    case OPTION_LABEL:
    case OPTION_NAMES_SIZE:
    case OPTION_FORCE:
        return OF(COMMAND_FORMAT);
    case OPTION_TAKEOVER:
        return OF_CHANGES;
    case OPTION_REPAIR:
        return OF(COMMAND_CHECK);
    case OPTION_DD:
    case OPTION_DEVICE:
    case OPTION_OUTPUT:
        return OF(COMMAND_DMTABLE);
    case 'l':
        return OF(COMMAND_LIST);
    default:
        return OF_ALL;
    }
}

static int take(struct arguments *out, int letter, char *value, struct sentence *why)
{
    switch (letter) {
    case OPTION_LABEL:
        out->label = value;
        return strlen(value) < VOLUME_LABEL ? 0
                                            : refuse(why, -EINVAL, "a label has at most %u bytes", VOLUME_LABEL - 1);
    case OPTION_NAMES_SIZE:
        return config_parse_size(value, &out->names_size) < 0
                   ? refuse(why, -EINVAL, "--names-size: \"%s\" is no size; for example 64M", value)
                   : 0;
    case OPTION_TIMEOUT:
        return config_parse_duration(value, &out->timeout_ns) < 0 || out->timeout_ns == 0
                   ? refuse(why, -EINVAL, "--timeout: \"%s\" is no time; for example 30s", value)
                   : 0;
    case OPTION_FORCE:
        out->force = true;
        return 0;
    case OPTION_TAKEOVER:
        out->takeover = true;
        return 0;
    case OPTION_REPAIR:
        out->repair_copies = true;
        return 0;
    case OPTION_DD:
        out->dd = true;
        return 0;
    case OPTION_DEVICE:
        out->device = value;
        return 0;
    case OPTION_OUTPUT:
        out->output = value;
        return 0;
    case OPTION_PASSWORD:
        out->password_file = value;
        return 0;
    case OPTION_MUTUAL_USER:
        out->mutual_user = value;
        return 0;
    case OPTION_MUTUAL_PASSWORD:
        out->mutual_password_file = value;
        return 0;
    case 'l':
        out->attributes = true;
        return 0;
    }
    return refuse(why, -EINVAL, "unknown option");
}

static int find_command(const char *word, enum command *out)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(word, names[i]) == 0) {
            *out = (enum command)i;
            return 0;
        }
    return -EINVAL;
}

/* As io/datastore.h has them: without slashes before, behind and between that mean nothing. */
static void tidy(char *path)
{
    char *to = path;
    for (const char *from = path; *from; from++)
        if (*from != '/' || (to > path && to[-1] != '/'))
            *to++ = *from;
    if (to > path && to[-1] == '/')
        to--;
    *to = '\0';
}

static int take_words(struct arguments *out, int count, char **words, struct sentence *why)
{
    const char *name = names[out->command];
    bool wants_paths = out->command == COMMAND_RM || out->command == COMMAND_DMTABLE;
    if (count == 0)
        return refuse(why, -EINVAL, "%s: which volume? Give its URL", name);
    out->url = words[0];
    out->paths = words + 1;
    out->path_count = (unsigned)(count - 1);
    if (wants_paths && out->path_count == 0)
        return refuse(why, -EINVAL, "%s: which file? Give its path in the volume; svmfs-volume list tells them", name);
    if (!wants_paths && out->path_count > 0)
        return refuse(why, -EINVAL, "%s: one URL only, and not \"%s\"", name, out->paths[0]);
    if ((out->command == COMMAND_RM || out->dd) && out->path_count > 1)
        return refuse(why, -EINVAL, "%s: one path at a time", name);
    if (out->output && !out->dd)
        return refuse(why, -EINVAL, "%s: --output belongs to --dd", name);
    for (unsigned i = 0; i < out->path_count; i++) {
        tidy(out->paths[i]);
        if (*out->paths[i] == '\0')
            return refuse(why, -EINVAL, "%s: the path is empty", name);
    }
    return 0;
}

int arguments_parse(struct arguments *out, int argc, char **argv, struct sentence *why)
{
    unsigned commands = OF_ALL;
    const char *misplaced = "";
    *out = (struct arguments){.timeout_ns = TIMEOUT_NS};
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, ":lhV", long_options, NULL)) != -1;) {
        const char *word = argv[optind - 1];
        if (letter == 'h' || letter == 'V') {
            out->command = letter == 'h' ? COMMAND_HELP : COMMAND_VERSION;
            return 0;
        }
        if (letter == ':')
            return refuse(why, -EINVAL, "no value after %s", word);
        if (letter == '?')
            return refuse(why, -EINVAL, "unknown option %s", word);
        int error = take(out, letter, optarg, why);
        if (error)
            return error;
        if ((commands & commands_of(letter)) != commands)
            misplaced = word;
        commands &= commands_of(letter);
    }
    if (optind == argc)
        return refuse(why, -EINVAL, "what is to be done? One of format, check, list, grow, rm, dmtable");
    if (find_command(argv[optind], &out->command) < 0)
        return refuse(why, -EINVAL, "\"%s\" is none of format, check, list, grow, rm, dmtable", argv[optind]);
    if (!(commands & OF(out->command)))
        return refuse(why, -EINVAL, "%s: %s is no option of it", argv[optind], misplaced);
    return take_words(out, argc - optind - 1, argv + optind + 1, why);
}
