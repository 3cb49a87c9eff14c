/* fuzz-seeds DIRECTORY: makes what libFuzzer's programs begin with: DIRECTORY/journal, volume, config, commands, options,
 * each with a handful of files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base.h"
#include "fuzz.h"
#include "journal_target.h"
#include "parsers.h"

#define JOURNALS 24
#define PAGES    40
#define PART     255 /* of a page in one change */

static const char *root;

static void put(const char *kind, const char *name, size_t number, const void *bytes, size_t size)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", root, kind);
    mkdir(root, 0777);
    mkdir(path, 0777);
    snprintf(path, sizeof(path), "%s/%s/%s-%zu", root, kind, name, number);
    FILE *file = fopen(path, "w");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        fuzz_broken("%s cannot be written\n", path);
}

static void put_parser(const char *kind, const char *name)
{
    const struct parser *parser = parser_named(name);
    for (size_t i = 0; i < 4 && parser->seeds[i]; i++)
        put(kind, name, i, parser->seeds[i], strlen(parser->seeds[i]));
    for (size_t i = 0; i < 24 && parser->words[i]; i++)
        put(kind, name, 100 + i, parser->words[i], strlen(parser->words[i]));
}

/* The beginning of a page becomes what it is: nothing is changed yet. See libfuzzer-volume.c. */
static void put_pages(unsigned dead)
{
    struct base base;
    base_make(&base, !dead);
    for (uint32_t i = 0; i < PAGES; i++) {
        uint32_t page = i * base.page_count / PAGES;
        uint8_t bytes[1 + 5 + PART] = {(uint8_t)(dead | i % 8 << 1), (uint8_t)page, (uint8_t)(page >> 8), 0, 0, PART};
        memcpy(bytes + 6, base.bytes + base.pages[page], PART);
        put("volume", dead ? "dead" : "closed", i, bytes, sizeof(bytes));
    }
    base_free(&base);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "fuzz-seeds DIRECTORY\n");
        return 2;
    }
    root = argv[1];
    for (size_t i = 0; i < JOURNALS; i++) {
        uint8_t *bytes;
        size_t size;
        journal_example(i, &bytes, &size);
        put("journal", "journal", i, bytes, size);
        free(bytes);
    }
    put_pages(0);
    put_pages(1);
    put_parser("config", "config");
    put_parser("commands", "migrate");
    put_parser("commands", "control");
    put_parser("options", "options");
    return 0;
}
