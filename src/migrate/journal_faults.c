#include "migrate/journal_faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#define RULES     16
#define LINE      128
#define ERRNO_MAX 133
#define LOOK_MS   20 /* how often a call that hangs looks whether its rule is gone */

enum action { ACTION_HANG = 1, ACTION_DELAY, ACTION_ERROR };

struct rule {
    char line[LINE];
    unsigned verbs; /* bits */
    enum action action;
    int error;
    uint64_t ms, after, count, seen, acted;
};

struct journal_faults {
    pthread_mutex_t mutex;
    char *file;
    struct stat read;
    unsigned count;
    struct rule rules[RULES];
};

/* ---- reading ---- */

static bool parse_number(const char *text, uint64_t *out, char **end)
{
    errno = 0;
    *out = text ? strtoull(text, end, 10) : 0;
    return text && *text >= '0' && *text <= '9' && errno == 0;
}

static bool parse_time(const char *text, uint64_t *ms)
{
    char *unit;
    if (!parse_number(text, ms, &unit) || *ms > 1000000000)
        return false;
    if (strcmp(unit, "s") == 0)
        *ms *= 1000;
    else if (strcmp(unit, "ms") != 0)
        return false;
    return true;
}

static bool parse_error(const char *name, int *error)
{
    for (int i = 1; name && i <= ERRNO_MAX; i++) {
        const char *known = strerrorname_np(i);
        if (known && strcmp(known, name) == 0) {
            *error = -i;
            return true;
        }
    }
    return false;
}

static bool parse_action(struct rule *rule, const char *word, char **rest)
{
    if (word && strcmp(word, "hang") == 0) {
        rule->action = ACTION_HANG;
        return true;
    }
    if (word && strcmp(word, "delay") == 0) {
        rule->action = ACTION_DELAY;
        return parse_time(strtok_r(NULL, " \t", rest), &rule->ms);
    }
    rule->action = ACTION_ERROR;
    return word && strcmp(word, "error") == 0 && parse_error(strtok_r(NULL, " \t", rest), &rule->error);
}

static bool parse_verb(struct rule *rule, const char *word)
{
    static const char *const names[JOURNAL_VERBS] = {"write", "sync", "directory", "rename", "remove", "open", "read"};
    for (unsigned i = 0; i < JOURNAL_VERBS; i++)
        if (strcmp(word, names[i]) == 0 || strcmp(word, "any") == 0)
            rule->verbs |= 1u << i;
    return rule->verbs != 0;
}

/* False: there is something in the line, and it is no rule. An empty line has no verbs. */
static bool parse_line(struct rule *rule, const char *line)
{
    char copy[LINE], *rest = NULL, *end;
    *rule = (struct rule){.count = UINT64_MAX};
    snprintf(rule->line, sizeof(rule->line), "%s", line);
    snprintf(copy, sizeof(copy), "%s", line);
    const char *word = strtok_r(copy, " \t", &rest);
    if (!word)
        return true;
    if (strlen(line) >= LINE || !parse_verb(rule, word) || !parse_action(rule, strtok_r(NULL, " \t", &rest), &rest))
        return false;
    while ((word = strtok_r(NULL, " \t", &rest))) {
        uint64_t *number = strcmp(word, "after") == 0 ? &rule->after : strcmp(word, "count") == 0 ? &rule->count : NULL;
        if (!number || !parse_number(strtok_r(NULL, " \t", &rest), number, &end) || *end)
            return false;
    }
    return true;
}

/* A line that was there before goes on counting. */
static void take(struct rule *rules, unsigned *count, struct rule *rule, const struct journal_faults *before)
{
    for (unsigned i = 0; i < before->count; i++)
        if (strcmp(before->rules[i].line, rule->line) == 0)
            *rule = before->rules[i];
    rules[(*count)++] = *rule;
}

static void parse_file(struct journal_faults *faults, FILE *stream)
{
    auto_free char *line = NULL;
    struct rule rules[RULES];
    size_t size = 0;
    unsigned count = 0;
    for (unsigned number = 1; stream && getline(&line, &size, stream) >= 0; number++) {
        struct rule rule;
        line[strcspn(line, "#\n")] = '\0';
        if (!parse_line(&rule, line) || (rule.verbs && count == RULES))
            log_error("%s:%u: no fault rule, or more than %u: \"%s\"", faults->file, number, RULES, line);
        else if (rule.verbs)
            take(rules, &count, &rule, faults);
    }
    memcpy(faults->rules, rules, count * sizeof(rules[0]));
    faults->count = count;
}

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void refresh_locked(struct journal_faults *faults)
{
    struct stat st = {0};
    if (stat(faults->file, &st) < 0)
        memset(&st, 0, sizeof(st));
    if (same(&st, &faults->read))
        return;
    FILE *stream = st.st_ino ? fopen(faults->file, "re") : NULL;
    if (stream && fstat(fileno(stream), &st) < 0)
        memset(&st, 0, sizeof(st));
    parse_file(faults, stream);
    faults->read = st;
    if (stream)
        fclose(stream);
}

struct journal_faults *journal_faults_open(const char *file)
{
    struct journal_faults *faults = calloc(1, sizeof(*faults));
    if (!faults || !(faults->file = strdup(file))) {
        free(faults);
        return NULL;
    }
    pthread_mutex_init(&faults->mutex, NULL);
    return faults;
}

void journal_faults_close(struct journal_faults *faults)
{
    if (!faults)
        return;
    pthread_mutex_destroy(&faults->mutex);
    free(faults->file);
    free(faults);
}

/* ---- acting ---- */

static struct rule decide(struct journal_faults *faults, enum journal_verb verb)
{
    struct rule found = {0};
    pthread_mutex_lock(&faults->mutex);
    refresh_locked(faults);
    for (unsigned i = 0; i < faults->count && !found.action; i++) {
        struct rule *rule = &faults->rules[i];
        if (!(rule->verbs & 1u << verb) || rule->seen++ < rule->after || rule->acted >= rule->count)
            continue;
        rule->acted++;
        found = *rule;
    }
    pthread_mutex_unlock(&faults->mutex);
    return found;
}

static bool stands(struct journal_faults *faults, const struct rule *rule)
{
    bool there = false;
    pthread_mutex_lock(&faults->mutex);
    refresh_locked(faults);
    for (unsigned i = 0; i < faults->count && !there; i++)
        there = strcmp(faults->rules[i].line, rule->line) == 0;
    pthread_mutex_unlock(&faults->mutex);
    return there;
}

static void pass(uint64_t ms)
{
    struct timespec rest = {(time_t)(ms / 1000), (long)(ms % 1000 * NS_PER_MS)};
    while (nanosleep(&rest, &rest) < 0 && errno == EINTR)
        ;
}

int journal_fault(struct journal_faults *faults, enum journal_verb verb)
{
    if (!faults)
        return 0;
    struct rule rule = decide(faults, verb);
    if (rule.action == ACTION_DELAY)
        pass(rule.ms);
    while (rule.action == ACTION_HANG && stands(faults, &rule))
        pass(LOOK_MS);
    return rule.action == ACTION_ERROR ? rule.error : 0;
}
