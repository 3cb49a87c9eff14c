#include "model.h"

#include <stdlib.h>
#include <string.h>

const char *const model_paths[MODEL_SLOTS] = {"a", "b", "c", "d", "x/a", "x/b", "x/c", "y/a", "y/b"};

static void clear_pages(uint32_t **pages)
{
    for (unsigned i = 0; i < MODEL_PAGES; i++) {
        free(pages[i]);
        pages[i] = NULL;
    }
}

void model_clear(struct model *model)
{
    for (uint32_t i = 0; i < model->objects + 1 && i < MODEL_OBJECTS; i++) {
        struct model_object *object = &model->object[i];
        clear_pages(object->durable);
        clear_pages(object->now);
        object->change_count = 0;
        object->changed = 0;
    }
    model->moment = model->durable = model->objects = 0;
    memset(&model->moments[0], 0, sizeof(model->moments[0]));
}

struct model_names *model_next(struct model *model)
{
    if (model->moment + 1 == MODEL_CHANGES)
        return NULL;
    model->moments[model->moment + 1] = model->moments[model->moment];
    return &model->moments[++model->moment];
}

static void set_words(uint32_t **pages, uint32_t start, uint32_t end, uint32_t value)
{
    while (start < end) {
        uint32_t page = start / MODEL_WORDS, until = (page + 1) * MODEL_WORDS;
        if (until > end)
            until = end;
        if (!pages[page] && value)
            pages[page] = calloc(MODEL_WORDS, sizeof(uint32_t));
        if (pages[page])
            for (uint32_t i = start; i < until; i++)
                pages[page][i % MODEL_WORDS] = value;
        start = until;
    }
}

void model_write(struct model *model, uint32_t number, uint64_t start, uint64_t end, uint32_t value)
{
    struct model_object *object = &model->object[number];
    struct model_change change = {(uint32_t)(start / 8), (uint32_t)(end / 8), value};
    object->changes[object->change_count++] = change;
    set_words(object->now, change.start, change.end, value);
}

void model_flushed(struct model *model, uint32_t number)
{
    struct model_object *object = &model->object[number];
    for (uint32_t i = 0; i < object->change_count; i++)
        set_words(object->durable, object->changes[i].start, object->changes[i].end, object->changes[i].value);
    object->change_count = 0;
    if (object->changed > model->durable)
        model->durable = object->changed;
}

void model_answered(struct model *model, uint32_t moment)
{
    for (uint32_t i = 1; i <= model->objects; i++) {
        struct model_object *object = &model->object[i];
        if (object->change_count == 0)
            continue;
        struct model_change last = object->changes[object->change_count - 1];
        object->change_count--;
        model_flushed(model, i);
        object->changes[object->change_count++] = last;
    }
    model->durable = moment;
}

uint64_t model_word(uint32_t object, uint32_t value)
{
    return value ? (uint64_t)object << 32 | value : 0;
}

bool model_allows(const struct model *model, uint32_t number, uint32_t word, uint64_t got)
{
    const struct model_object *object = &model->object[number];
    const uint32_t *page = object->durable[word / MODEL_WORDS];
    if (got == model_word(number, page ? page[word % MODEL_WORDS] : 0))
        return true;
    for (uint32_t i = 0; i < object->change_count; i++) {
        const struct model_change *change = &object->changes[i];
        if (word >= change->start && word < change->end && got == model_word(number, change->value))
            return true;
    }
    return false;
}

uint32_t model_match(const struct model *model, const struct model_names *names)
{
    for (uint32_t i = model->durable; i <= model->moment; i++) {
        bool same = true;
        for (unsigned slot = 0; slot < MODEL_SLOTS && same; slot++) {
            const struct model_entry *a = &model->moments[i].entry[slot], *b = &names->entry[slot];
            same = a->object == b->object &&
                   (a->object == 0 || (a->size == b->size && a->mode == b->mode && a->xattr == b->xattr));
        }
        if (same)
            return i;
    }
    return UINT32_MAX;
}

void model_adopt_names(struct model *model, const struct model_names *names)
{
    model->moments[0] = *names;
    model->moment = model->durable = 0;
    for (uint32_t i = 0; i < MODEL_OBJECTS; i++) {
        model->object[i].change_count = 0;
        model->object[i].changed = 0;
    }
}

static void adopt(uint32_t **pages, uint32_t page, const uint64_t *words)
{
    if (!pages[page])
        pages[page] = malloc(MODEL_WORDS * sizeof(uint32_t));
    for (uint32_t i = 0; i < MODEL_WORDS; i++)
        pages[page][i] = (uint32_t)words[i];
}

void model_adopt_page(struct model *model, uint32_t number, uint32_t page, const uint64_t *words)
{
    adopt(model->object[number].durable, page, words);
    adopt(model->object[number].now, page, words);
}
