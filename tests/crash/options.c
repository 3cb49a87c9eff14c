/* The command line of crash-kinds. */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "crash.h"

static void usage(void)
{
    fprintf(stderr,
        "usage: crash-kinds --start=COMMAND --datastores=NAME:KIND[:FOLDER],… [--events=NAME,… --page=FILE] "
        "[--runs=N]\n"
        "                   [--seed=N] [--disks=N] [--size=MIB] [--think=US] [--save=FOLDER] [--keep] [--stubborn] "
        "MOUNTPOINT\n"
        "The disks begin on the first datastore. FOLDER: where the datastore's files can be looked at.\n");
    exit(2);
}

static void parse_stores(struct world *world, char *text)
{
    for (char *item = strtok(text, ","); item && world->stores < MOST; item = strtok(NULL, ",")) {
        struct store *store = &world->store[world->stores++];
        char *kind = strchr(item, ':'), *folder = kind ? strchr(kind + 1, ':') : NULL;
        if (!kind)
            usage();
        *kind++ = '\0';
        if (folder)
            *folder++ = '\0';
        snprintf(store->name, sizeof(store->name), "%s", item);
        snprintf(store->kind, sizeof(store->kind), "%s", kind);
        store->folder = folder;
    }
}

static void map_page(struct world *world, const char *path)
{
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (!path)
        return;
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*world->page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        give_up(path);
    close(fd);
    world->page = map;
}

void parse(struct world *world, int argc, char **argv)
{
    static const struct option options[] = {{"start", 1, NULL, 'm'}, {"datastores", 1, NULL, 'd'},
        {"events", 1, NULL, 'e'}, {"page", 1, NULL, 'p'}, {"runs", 1, NULL, 'r'}, {"seed", 1, NULL, 's'},
        {"disks", 1, NULL, 'n'}, {"size", 1, NULL, 'z'}, {"think", 1, NULL, 't'}, {"save", 1, NULL, 'S'},
        {"stubborn", 0, NULL, 'k'}, {"keep", 0, NULL, 'K'}, {NULL, 0, NULL, 0}};
    const char *page = NULL;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 'm':
            world->start = optarg;
            break;
        case 'd':
            parse_stores(world, optarg);
            break;
        case 'e':
            for (char *item = strtok(optarg, ","); item && world->events < MOST_EVENTS; item = strtok(NULL, ","))
                world->event[world->events++] = item;
            break;
        case 'p':
            page = optarg;
            break;
        case 'r':
            world->runs = (unsigned)atol(optarg);
            break;
        case 's':
            world->seed = (unsigned)strtoul(optarg, NULL, 10);
            break;
        case 'n':
            world->disks = (unsigned)atol(optarg);
            break;
        case 'z':
            world->size = strtoull(optarg, NULL, 10) << 20;
            break;
        case 't':
            world->think_us = (unsigned)atol(optarg);
            break;
        case 'S':
            world->save = optarg;
            break;
        case 'K':
            world->keeps = true;
            break;
        case 'k':
            world->stubborn = true;
            break;
        default:
            usage();
        }
    }
    if (optind != argc - 1 || !world->start || world->stores < 2 || world->disks == 0 || world->disks > MOST ||
        world->size == 0 || (world->events && !page))
        usage();
    world->mount = argv[optind];
    map_page(world, page);
}
