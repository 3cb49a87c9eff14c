/* A history in a file: header, one counter a block, then the bytes of the mixtures in order. */
#include "history_inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char MAGIC[8] = "SVMFSHI1";

struct saved {
    char magic[8];
    uint64_t base, length, seed, counter;
};

int history_save(struct history *history, const char *path)
{
    struct saved saved = {.base = history->base, .length = history->length, .seed = history->seed};
    FILE *out = fopen(path, "wb");
    bool good = out != NULL;
    if (!out)
        return -errno;
    pthread_mutex_lock(&history->mutex); /* reads settle what a block holds */
    saved.counter = history->counter;
    memcpy(saved.magic, MAGIC, sizeof MAGIC);
    good = fwrite(&saved, sizeof saved, 1, out) == 1;
    for (uint64_t i = 0; good && i < history->length / BLOCK; i++) {
        struct block *block = &history->blocks[i];
        uint64_t counter = block->counter != MIXTURE && block->more ? UNKNOWN : block->counter;
        good = fwrite(&counter, sizeof counter, 1, out) == 1;
    }
    for (uint64_t i = 0; good && i < history->length / BLOCK; i++)
        if (history->blocks[i].counter == MIXTURE)
            good = fwrite(history->blocks[i].image, BLOCK, 1, out) == 1;
    pthread_mutex_unlock(&history->mutex);
    if (fclose(out) != 0)
        good = false;
    return good ? 0 : -EIO;
}

struct history *history_load(const char *path)
{
    struct saved saved;
    struct history *history;
    FILE *in = fopen(path, "rb");
    bool good = in && fread(&saved, sizeof saved, 1, in) == 1 && memcmp(saved.magic, MAGIC, sizeof MAGIC) == 0;
    if (!good) {
        if (in)
            fclose(in);
        return NULL;
    }
    history = history_new(saved.base, saved.length, saved.seed, false);
    history->counter = saved.counter;
    for (uint64_t i = 0; good && i < saved.length / BLOCK; i++) {
        uint64_t counter;
        good = fread(&counter, sizeof counter, 1, in) == 1;
        if (!good)
            break;
        history->blocks[i].counter = counter;
        if (counter == MIXTURE)
            history->blocks[i].image = history_must(calloc(1, BLOCK));
    }
    for (uint64_t i = 0; good && i < saved.length / BLOCK; i++)
        if (history->blocks[i].counter == MIXTURE)
            good = fread(history->blocks[i].image, BLOCK, 1, in) == 1;
    fclose(in);
    if (!good) {
        history_free(history);
        return NULL;
    }
    return history;
}
