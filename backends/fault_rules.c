#include "backends/fault_rules.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"

#define DEFAULT_MS 100
#define ERRNO_MAX  133

struct fault_rule {
    struct list link;
    char *line;
    unsigned points; /* bits */
    enum fault_action action;
    int error;
    unsigned ms;
    bool has_offset, has_count;
    uint64_t offset, after, count;
    char *path;
    uint64_t seen, acted;
};

/* ---- reading ---- */

static const struct {
    const char *name;
    unsigned points;
} verbs[] = {
    {"read", 1u << VERB_READ},
    {"write", 1u << VERB_WRITE},
    {"zero", 1u << VERB_ZERO},
    {"flush", 1u << VERB_FLUSH},
    {"resize", 1u << VERB_RESIZE},
    {"map", 1u << VERB_MAP},
    {"allocate", 1u << VERB_ALLOCATE},
    {"open", 1u << FAULT_OPEN},
    {"name", 1u << FAULT_NAME},
    {"any", (1u << FAULT_POINTS) - 1},
};

static const struct {
    const char *name;
    enum fault_action action;
    int error;
} actions[] = {
    {"fail", FAULT_FAIL, -EIO},
    {"enospc", FAULT_FAIL, -ENOSPC},
    {"delay", FAULT_DELAY, 0},
    {"hang", FAULT_HANG, 0},
    {"late", FAULT_LATE, -EIO},
    {"check", FAULT_CHECK, 0},
    {"corrupt", FAULT_CORRUPT, 0},
};

_Static_assert(sizeof(verbs) / sizeof(verbs[0]) == FAULT_POINTS + 1, "a verb has no rule");

static void free_rule(struct fault_rule *rule)
{
    free(rule->line);
    free(rule->path);
    free(rule);
}

static int errno_by_name(const char *name)
{
    for (int i = 1; i <= ERRNO_MAX; i++) {
        const char *known = strerrorname_np(i);
        if (known && strcmp(known, name) == 0)
            return -i;
    }
    return 0;
}

static bool parse_number(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 0);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
}

static bool parse_key(struct fault_rule *rule, char *word)
{
    char *value = strchr(word, '=');
    uint64_t number;
    if (!value)
        return false;
    *value++ = '\0';
    if (strcmp(word, "errno") == 0)
        return (rule->error = errno_by_name(value)) != 0;
    if (strcmp(word, "path") == 0) {
        free(rule->path);
        return (rule->path = strdup(value)) != NULL;
    }
    if (!parse_number(value, &number))
        return false;
    if (strcmp(word, "offset") == 0) {
        rule->has_offset = true;
        rule->offset = number;
    } else if (strcmp(word, "after") == 0) {
        rule->after = number;
    } else if (strcmp(word, "count") == 0) {
        rule->has_count = true;
        rule->count = number;
    } else if (strcmp(word, "ms") == 0 && number <= UINT32_MAX) {
        rule->ms = (unsigned)number;
    } else {
        return false;
    }
    return true;
}

static bool parse_words(struct fault_rule *rule, char *verb, char *action, char **rest)
{
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(verbs[i].name, verb) == 0)
            rule->points = verbs[i].points;
    for (size_t i = 0; action && i < sizeof(actions) / sizeof(actions[0]); i++)
        if (strcmp(actions[i].name, action) == 0) {
            rule->action = actions[i].action;
            rule->error = actions[i].error;
            rule->ms = rule->action == FAULT_FAIL ? 0 : DEFAULT_MS;
        }
    if (!rule->points || rule->action == FAULT_NONE)
        return false;
    for (char *word; (word = strtok_r(NULL, " \t", rest));)
        if (!parse_key(rule, word))
            return false;
    return true;
}

/* NULL: nothing in the line, or nothing that is a rule (*bad). */
static struct fault_rule *parse_line(const char *line, bool *bad)
{
    auto_free char *copy = strdup(line);
    char *rest = NULL;
    struct fault_rule *rule = calloc(1, sizeof(*rule));
    *bad = !copy || !rule || !(rule->line = strdup(line));
    char *verb = *bad ? NULL : strtok_r(copy, " \t", &rest);
    if (verb) {
        list_init(&rule->link);
        *bad = !parse_words(rule, verb, strtok_r(NULL, " \t", &rest), &rest);
    }
    if (verb && !*bad)
        return rule;
    if (rule)
        free_rule(rule);
    return NULL;
}

static void parse_file(const char *file, FILE *stream, struct list *out)
{
    auto_free char *line = NULL;
    size_t size = 0;
    for (unsigned number = 1; getline(&line, &size, stream) >= 0; number++) {
        bool bad;
        line[strcspn(line, "#\n")] = '\0';
        struct fault_rule *rule = parse_line(line, &bad);
        if (rule)
            list_append(out, &rule->link);
        if (bad)
            log_error("%s:%u: no fault rule: \"%s\"", file, number, line);
    }
}

/* ---- changing ---- */

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static struct fault_rule *take_same_line(struct list *rules, const char *line)
{
    list_for_each (link, rules) {
        struct fault_rule *rule = container_of(link, struct fault_rule, link);
        if (strcmp(rule->line, line) == 0) {
            list_remove(&rule->link);
            return rule;
        }
    }
    return NULL;
}

static void let_go(struct fault_rules *rules, const struct fault_rule *gone)
{
    list_for_each_safe (link, &rules->waiting) {
        struct fault_waiting *waiting = container_of(link, struct fault_waiting, link);
        if (waiting->rule != gone)
            continue;
        list_remove(&waiting->link);
        waiting->go(waiting);
    }
}

static void replace(struct fault_rules *rules, struct list *read)
{
    struct list kept, *link;
    list_init(&kept);
    rules->check = false;
    while ((link = list_pop(read))) {
        struct fault_rule *rule = container_of(link, struct fault_rule, link);
        struct fault_rule *old = take_same_line(&rules->rules, rule->line);
        if (old) {
            free_rule(rule);
            rule = old;
        }
        rules->check |= rule->action == FAULT_CHECK;
        list_append(&kept, &rule->link);
    }
    while ((link = list_pop(&rules->rules))) {
        struct fault_rule *gone = container_of(link, struct fault_rule, link);
        let_go(rules, gone);
        free_rule(gone);
    }
    list_splice(&rules->rules, &kept);
}

static void refresh_locked(struct fault_rules *rules)
{
    struct stat st = {0};
    struct list read;
    if (!rules->file)
        return;
    if (stat(rules->file, &st) < 0)
        memset(&st, 0, sizeof(st));
    if (same(&st, &rules->read))
        return;
    list_init(&read);
    FILE *stream = st.st_ino ? fopen(rules->file, "re") : NULL;
    if (stream) {
        if (fstat(fileno(stream), &st) == 0)
            parse_file(rules->file, stream, &read);
        fclose(stream);
    }
    rules->read = st;
    replace(rules, &read);
}

void fault_rules_refresh(struct fault_rules *rules)
{
    pthread_mutex_lock(&rules->mutex);
    refresh_locked(rules);
    pthread_mutex_unlock(&rules->mutex);
}

int fault_rules_open(struct fault_rules *rules, const char *file)
{
    memset(rules, 0, sizeof(*rules));
    rules->file = file ? strdup(file) : NULL;
    if (file && !rules->file)
        return -ENOMEM;
    pthread_mutex_init(&rules->mutex, NULL);
    list_init(&rules->rules);
    list_init(&rules->waiting);
    return 0;
}

void fault_rules_close(struct fault_rules *rules)
{
    struct list *link;
    while ((link = list_pop(&rules->rules)))
        free_rule(container_of(link, struct fault_rule, link));
    pthread_mutex_destroy(&rules->mutex);
    free(rules->file);
}

/* ---- deciding ---- */

static bool touches(unsigned point, const struct extent *extent, uint64_t offset)
{
    bool bytes = extent && point != VERB_FLUSH && point != VERB_RESIZE;
    return bytes && extent->start <= offset && offset < extent->end;
}

static bool applies(struct fault_rule *rule, unsigned point, const struct extent *extent, const char *path)
{
    if (!(rule->points & 1u << point) || rule->action == FAULT_CHECK)
        return false;
    if (rule->has_offset && !touches(point, extent, rule->offset))
        return false;
    if (rule->path && !strstr(path, rule->path))
        return false;
    if (rule->seen++ < rule->after || (rule->has_count && rule->acted >= rule->count))
        return false;
    rule->acted++;
    return true;
}

struct fault_verdict fault_decide(struct fault_rules *rules, unsigned point, const struct extent *extent,
    const char *path, struct fault_waiting *waiting)
{
    struct fault_verdict verdict = {FAULT_NONE, 0, 0, 0};
    pthread_mutex_lock(&rules->mutex);
    refresh_locked(rules);
    list_for_each (link, &rules->rules) {
        struct fault_rule *rule = container_of(link, struct fault_rule, link);
        if (!applies(rule, point, extent, path))
            continue;
        uint64_t offset = rule->has_offset ? rule->offset : extent ? extent->start : 0;
        verdict = (struct fault_verdict){rule->action, rule->error ? rule->error : -EIO, rule->ms, offset};
        if (rule->action == FAULT_HANG) {
            waiting->rule = rule;
            list_append(&rules->waiting, &waiting->link);
        }
        break;
    }
    pthread_mutex_unlock(&rules->mutex);
    return verdict;
}

bool fault_checks(struct fault_rules *rules)
{
    pthread_mutex_lock(&rules->mutex);
    refresh_locked(rules);
    bool check = rules->check;
    pthread_mutex_unlock(&rules->mutex);
    return check;
}
