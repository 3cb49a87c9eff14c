/* fuzz-parsers: texts and bytes from outside, changed at random: the configuration, mount options, commands, rules of
 * faults, owner's records, urls, sidecars, what a LUN answers. None may crash, hang, leak or reach beyond what it was given;
 * what is refused has a sentence; what is taken means the same when it is written out and read again.
 *
 *   fuzz-parsers [--cases N] [--seed S] */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "fuzz.h"
#include "parsers.h"

static void one(uint64_t seed)
{
    struct random random = {seed};
    const struct parser *parser = &parsers[seed % parser_count];
    char text[PARSER_ROOM + 1];
    size_t seeds = 0, words = 0;
    while (seeds < 4 && parser->seeds[seeds])
        seeds++;
    while (parser->words[words])
        words++;
    const char *from = parser->seeds[random_below(&random, seeds)];
    size_t size = strlen(from);
    memcpy(text, from, size);
    if (strcmp(parser->name, "keys") == 0) { /* generation, length of the list, keys */
        size = random_below(&random, 128);
        for (size_t i = 0; i < size; i++)
            text[i] = (char)random_next(&random);
        if (size > 8)
            memcpy(text + 4, (const char[]){0, 0, 0, (char)random_next(&random)}, 4);
    } else {
        size = fuzz_text(&random, text, size, PARSER_ROOM, words ? parser->words : NULL);
    }
    text[size] = '\0';
    parser->fuzz(text, size);
}

int main(int argc, char **argv)
{
    struct sentence why = {""};
    unsigned long taken, refused;
    log_open("fuzz-parsers", false, LOG_LEVEL_ERROR);
    if (parsers_open(&why) < 0) {
        printf("cannot begin: %s\n0 passed, 1 failed, 0 skipped\n", why.text);
        return 1;
    }
    fuzz_silence();
    int status = fuzz_run(argc, argv, 20000, one);
    int error = parsers_close(&taken, &refused);
    printf("%lu taken, %lu refused\n", taken, refused);
    return error ? 1 : status;
}
