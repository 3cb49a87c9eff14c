/* libfuzzer-journal: a journal as it is given, and with the checksums that it should have. */
#include <stdlib.h>
#include <string.h>

#include "journal_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct journal_sums sums = {0};
    uint8_t *sealed = malloc(size + !size);
    if (size)
        memcpy(sealed, bytes, size);
    journal_seal(sealed, size);
    journal_target(bytes, size, &sums);
    journal_target(sealed, size, &sums);
    free(sealed);
    return 0;
}
