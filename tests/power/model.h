/* model: what a volume may be after a loss of power: the whole of its names as they were at one moment since they were last known to
 * be durable; each word of a file as at its last flush, or as written since. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define MODEL_SLOTS   9 /* paths that files may have */
#define MODEL_OBJECTS 64
#define MODEL_BYTES   (3u << 20) /* of a file at most */
#define MODEL_PAGES   (MODEL_BYTES / 4096)
#define MODEL_WORDS   (4096 / 8)
#define MODEL_CHANGES 400

extern const char *const model_paths[MODEL_SLOTS];

/* What a name says. */
struct model_entry {
    uint32_t object; /* 0: there is none */
    uint64_t size;
    uint32_t mode, xattr; /* xattr: its length; 0: none */
};

/* All names at one moment. */
struct model_names {
    struct model_entry entry[MODEL_SLOTS];
};

/* Words [start, end) became value's: 0 is zeroes; else word n of the file is object, value. */
struct model_change {
    uint32_t start, end, value;
};

struct model_object {
    uint32_t *durable[MODEL_PAGES]; /* a value per word; NULL: zeroes */
    uint32_t *now[MODEL_PAGES];
    struct model_change changes[MODEL_CHANGES]; /* since the last flush */
    uint32_t change_count;
    uint32_t changed; /* the moment of its last change of name, size or attribute */
};

struct model {
    struct model_names moments[MODEL_CHANGES];
    uint32_t moment;  /* the last */
    uint32_t durable; /* it is that one or a later one */
    uint32_t objects; /* numbers given out */
    struct model_object object[MODEL_OBJECTS];
};

static inline struct model_names *model_now(struct model *model)
{
    return &model->moments[model->moment];
}

void model_clear(struct model *model);
/* A new moment, a copy of the last: to be changed. NULL: there is no room for more. */
struct model_names *model_next(struct model *model);

/* To be called before the volume is told. */
void model_write(struct model *model, uint32_t object, uint64_t start, uint64_t end, uint32_t value);
/* The object's flush was answered. */
void model_flushed(struct model *model, uint32_t object);

/* Nothing that was answered is lost: the names are as at that moment or later, and each object is as it is now, but for its last change, which
 * may have been cut off. */
void model_answered(struct model *model, uint32_t moment);

/* May word n of the object be this? */
bool model_allows(const struct model *model, uint32_t object, uint32_t word, uint64_t got);
uint64_t model_word(uint32_t object, uint32_t value);

/* Moments that are equal to names, from the first that is possible; UINT32_MAX: none. */
uint32_t model_match(const struct model *model, const struct model_names *names);
/* What the volume was found to be is what it is now. words: as read, MODEL_BYTES / 8 of them. */
void model_adopt_names(struct model *model, const struct model_names *names);
void model_adopt_page(struct model *model, uint32_t object, uint32_t page, const uint64_t *words);
