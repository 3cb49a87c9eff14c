/* svmfs-volume: makes, checks, lists and grows volumes, and tells where their files' bytes lie. */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "volume_tool/commands.h"

static int run(const struct arguments *arguments, struct sentence *why)
{
    switch (arguments->command) {
    case COMMAND_FORMAT:
        return command_format(arguments, why);
    case COMMAND_CHECK:
        return command_check(arguments, why);
    case COMMAND_LIST:
        return command_list(arguments, why);
    case COMMAND_GROW:
        return command_grow(arguments, why);
    case COMMAND_RM:
        return command_rm(arguments, why);
    case COMMAND_DMTABLE:
        return command_dmtable(arguments, why);
    case COMMAND_HELP:
        fputs(arguments_help, stdout);
        return STATUS_DONE;
    case COMMAND_VERSION:
        printf("svmfs-volume %s\n", SVMFS_VERSION);
        return STATUS_DONE;
    case COMMANDS:
        break;
    }
    return STATUS_USAGE;
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    struct sentence why = {""};
    log_open("svmfs-volume", false, LOG_LEVEL_WARNING);
    if (arguments_parse(&arguments, argc, argv, &why) < 0) {
        fprintf(stderr, "svmfs-volume: %s\nsvmfs-volume --help tells the rest\n", why.text);
        return STATUS_USAGE;
    }
    int status = run(&arguments, &why);
    if (*why.text)
        fprintf(stderr, "svmfs-volume: %s\n", why.text);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "svmfs-volume: the output could not be written: %s\n", strerror(errno));
        return STATUS_FAILED;
    }
    return status;
}
