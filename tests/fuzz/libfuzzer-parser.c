/* libfuzzer-parser: the texts of PARSERS, which the build names. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fuzz.h"
#include "parsers.h"

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static void end(void)
{
    unsigned long taken, refused;
    parsers_close(&taken, &refused);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct sentence why = {""};
    log_open("libfuzzer", false, LOG_LEVEL_ERROR);
    if (parsers_open(&why) < 0)
        fuzz_broken("cannot begin: %s\n", why.text);
    atexit(end);
    return 0;
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t size)
{
    static const char *const names[] = {PARSERS};
    char text[PARSER_ROOM + 1];
    if (size > PARSER_ROOM)
        return -1;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        memcpy(text, bytes, size);
        text[size] = '\0';
        parser_named(names[i])->fuzz(text, size);
    }
    return 0;
}
