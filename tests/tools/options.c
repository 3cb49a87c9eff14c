#include "options.h"
#include "pattern.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void usage(FILE *out)
{
    fprintf(out,
        "usage: verify-load [options] FILE\n"
        "  --size=BYTES       create FILE anew with this size (K, M, G, T); default: FILE as it is, full of zeroes\n"
        "  --keep             do not touch FILE at the start; what it holds is unknown (or see --load)\n"
        "  --range=OFF:LEN    keep to this part\n"
        "  --direct | --map   O_DIRECT; or half of the requests through a shared map (default: page cache)\n"
        "  --odd              half of the writes begin and end anywhere (default: multiples of --align)\n"
        "  --align=BYTES      of the other requests; default 512, or 4096 if a direct file refuses that\n"
        "  --writers=N --readers=N --seconds=N --seed=N --think=US --smallest=BYTES --largest=BYTES\n"
        "  --until-eof        run until stdin closes; SIGTERM and SIGINT always end the load\n"
        "  --flush=N          fdatasync after every N writes of a writer\n"
        "  --sparse=PERCENT   so many regions are never written and must stay zero\n"
        "  --punch=PERCENT    so many of the writes punch a hole\n"
        "  --status=FD        a line a second\n"
        "  --tolerate-errors  a failed request is counted, not a failure (its effect is unknown)\n"
        "  --save=HISTORY     write the final history;  --load=HISTORY  go on from one\n"
        "  --check=HISTORY    no load: prove FILE against a history\n");
}

static uint64_t parse_size(const char *text, char **end)
{
    uint64_t value = strtoull(text, end, 0);
    const char *units = "KMGT", *unit = **end ? strchr(units, **end) : NULL;
    if (unit) {
        value <<= 10 * (unit - units + 1);
        ++*end;
    }
    return value;
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = parse_size(text, &end);
    if (*end || end == text) {
        fprintf(stderr, "verify-load: not a number: %s\n", text);
        exit(2);
    }
    return value;
}

static void parse_range(struct options *options, const char *text)
{
    char *end;
    options->range_offset = parse_size(text, &end);
    options->range_length = *end == ':' ? number(end + 1) : 0;
    if (*end != ':' || options->range_length == 0 || options->range_offset % BLOCK || options->range_length % BLOCK) {
        fprintf(stderr, "verify-load: --range wants OFFSET:LENGTH in multiples of 512\n");
        exit(2);
    }
}

static const struct option LONG[] = {
    {"size", 1, 0, 's'},
    {"keep", 0, 0, 'k'},
    {"fill", 0, 0, 'i'},
    {"range", 1, 0, 'r'},
    {"direct", 0, 0, 'd'},
    {"map", 0, 0, 'm'},
    {"odd", 0, 0, 'o'},
    {"align", 1, 0, 'a'},
    {"writers", 1, 0, 'W'},
    {"readers", 1, 0, 'R'},
    {"seconds", 1, 0, 't'},
    {"seed", 1, 0, 'S'},
    {"think", 1, 0, 'T'},
    {"smallest", 1, 0, 'n'},
    {"largest", 1, 0, 'x'},
    {"until-eof", 0, 0, 'e'},
    {"flush", 1, 0, 'f'},
    {"sparse", 1, 0, 'z'},
    {"punch", 1, 0, 'p'},
    {"status", 1, 0, 'q'},
    {"tolerate-errors", 0, 0, 'E'},
    {"save", 1, 0, 'v'},
    {"load", 1, 0, 'l'},
    {"check", 1, 0, 'c'},
    {"no-final", 0, 0, 'F'},
    {"help", 0, 0, 'h'},
    {0},
};

/* Options without a value. */
static bool set_flag(struct options *options, int letter)
{
    switch (letter) {
    case 'k':
        options->keep = true;
        return true;
    case 'i':
        options->fill = true;
        return true;
    case 'd':
        options->direct = true;
        return true;
    case 'm':
        options->map = true;
        return true;
    case 'o':
        options->odd = true;
        return true;
    case 'e':
        options->until_eof = true;
        return true;
    case 'E':
        options->tolerate = true;
        return true;
    case 'F':
        options->no_final = true;
        return true;
    default:
        return false;
    }
}

/* Where a plain number or a flag goes. */
static unsigned *number_of(struct options *options, int letter)
{
    switch (letter) {
    case 'a':
        return &options->align;
    case 'W':
        return &options->writers;
    case 'R':
        return &options->readers;
    case 't':
        return &options->seconds;
    case 'T':
        return &options->think_us;
    case 'n':
        return &options->smallest;
    case 'x':
        return &options->largest;
    case 'f':
        return &options->flush_every;
    case 'z':
        return &options->sparse;
    case 'p':
        return &options->punch;
    default:
        return NULL;
    }
}

static bool *flag_of(struct options *options, int letter)
{
    switch (letter) {
    case 'k':
        return &options->keep;
    case 'i':
        return &options->fill;
    case 'd':
        return &options->direct;
    case 'm':
        return &options->map;
    case 'o':
        return &options->odd;
    case 'e':
        return &options->until_eof;
    case 'E':
        return &options->tolerate;
    case 'F':
        return &options->no_final;
    default:
        return NULL;
    }
}

static void set_option(struct options *options, int letter, const char *value)
{
    if (number_of(options, letter)) {
        *number_of(options, letter) = (unsigned)number(value);
        return;
    }
    if (flag_of(options, letter)) {
        *flag_of(options, letter) = true;
        return;
    }
    switch (letter) {
    case 's':
        options->size = number(value);
        break;
    case 'S':
        options->seed = number(value);
        break;
    case 'q':
        options->status_fd = (int)number(value);
        break;
    case 'r':
        parse_range(options, value);
        break;
    case 'v':
        options->save = value;
        break;
    case 'l':
        options->load = value;
        break;
    case 'c':
        options->check = value;
        break;
    default:
        usage(letter == 'h' ? stdout : stderr);
        exit(letter == 'h' ? 0 : 2);
    }
}

void options_parse(struct options *options, int argc, char **argv)
{
    int letter;
    *options = (struct options){.writers = 4, .readers = 2, .flush_every = 64, .seed = 1, .status_fd = -1};
    options->smallest = BLOCK;
    options->largest = LARGEST;
    while ((letter = getopt_long(argc, argv, "h", LONG, NULL)) != -1)
        if (!set_flag(options, letter))
            set_option(options, letter, optarg);
    bool sizes = options->smallest && options->smallest <= options->largest && options->largest <= LARGEST;
    if (optind != argc - 1 || !sizes || options->align % BLOCK || options->align > 4096 || options->sparse > 99 ||
        (options->direct && options->map)) {
        usage(stderr);
        exit(2);
    }
    options->file = argv[optind];
}
