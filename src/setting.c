#include "setting.h"

#include <ctype.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/clock.h"
#include "base/cleanup.h"

enum kind { KIND_TEXT, KIND_PATH, KIND_NAME, KIND_COUNT, KIND_DURATION, KIND_SIZE };

struct setting {
    const char *key;
    enum kind kind;
    size_t offset;
    uint64_t least, most, normal; /* KIND_COUNT, KIND_DURATION, KIND_SIZE; normal 0: no default here */
};

struct unit {
    const char *name;
    uint64_t factor;
};

#define NS_PER_MINUTE (60 * NS_PER_S)
#define NS_PER_HOUR   (60 * NS_PER_MINUTE)
#define NS_PER_DAY    (24 * NS_PER_HOUR)
#define MIB           (1ull << 20)

/* From large to small. */
static const struct unit durations[] = {{"d", NS_PER_DAY}, {"h", NS_PER_HOUR}, {"m", NS_PER_MINUTE}, {"s", NS_PER_S},
    {"ms", NS_PER_MS}, {"us", NS_PER_US}, {0}};
static const struct unit sizes[] = {{"T", 1ull << 40}, {"G", 1ull << 30}, {"M", MIB}, {"K", 1024}, {"", 1}, {0}};

static const struct setting mount_settings[] = {
    {"default", KIND_NAME, offsetof(struct config, default_datastore), 0, 0, 0},
    {"state", KIND_PATH, offsetof(struct config, state), 0, 0, 0},
    {"reactors", KIND_COUNT, offsetof(struct config, reactors), 1, REACTORS_GUEST_MAX, 0},
    {"jobs", KIND_COUNT, offsetof(struct config, jobs), 1, 64, 2},
    {"target-timeout", KIND_DURATION, offsetof(struct config, target_timeout_ns), 10 * NS_PER_MS, NS_PER_HOUR,
        5 * NS_PER_S},
    {"epoch", KIND_DURATION, offsetof(struct config, epoch_ns), 10 * NS_PER_MS, NS_PER_HOUR, 5 * NS_PER_S},
    {"journal-faults", KIND_PATH, offsetof(struct config, journal_faults), 0, 0, 0},
    {"buffers", KIND_SIZE, offsetof(struct config, buffers), 4 * MIB, 4096 * MIB, 64 * MIB},
    {0},
};

static const struct setting datastore_settings[] = {
    {"url", KIND_TEXT, offsetof(struct datastore_options, url), 0, 0, 0},
    {"timeout", KIND_DURATION, offsetof(struct datastore_options, timeout_ns), 10 * NS_PER_MS, NS_PER_HOUR,
        30 * NS_PER_S},
    {"threads", KIND_COUNT, offsetof(struct datastore_options, threads), 1, 256, 16},
    {"connections", KIND_COUNT, offsetof(struct datastore_options, connections), 1, 16, 0},
    {"password-file", KIND_PATH, offsetof(struct datastore_options, password_file), 0, 0, 0},
    {"mutual-user", KIND_TEXT, offsetof(struct datastore_options, mutual_user), 0, 0, 0},
    {"mutual-password-file", KIND_PATH, offsetof(struct datastore_options, mutual_password_file), 0, 0, 0},
    {"quiet", KIND_DURATION, offsetof(struct datastore_options, quiet_ns), 10 * NS_PER_MS, NS_PER_HOUR, 3 * NS_PER_S},
    {"faults", KIND_PATH, offsetof(struct datastore_options, faults), 0, 0, 0},
    {0},
};

static const struct setting *table_of(enum setting_section section)
{
    return section == SETTING_MOUNT ? mount_settings : datastore_settings;
}

int setting_find(enum setting_section section, const char *key)
{
    const struct setting *table = table_of(section);
    for (int i = 0; table[i].key; i++)
        if (strcmp(table[i].key, key) == 0)
            return i;
    return -1;
}

void setting_keys(enum setting_section section, char *out, size_t size)
{
    const struct setting *table = table_of(section);
    size_t length = 0;
    out[0] = '\0';
    for (int i = 0; table[i].key && length < size; i++)
        length += (size_t)snprintf(out + length, size - length, "%s%s", i > 0 ? ", " : "", table[i].key);
}

/* Digits, then a unit of the table. */
static int parse_quantity(const char *text, const struct unit *units, uint64_t *out)
{
    uint64_t number = 0;
    const char *p = text;
    for (; isdigit((unsigned char)*p); p++)
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*p - '0'), &number))
            return -EINVAL;
    if (p == text)
        return -EINVAL;
    for (; units->name; units++)
        if (strcasecmp(p, units->name) == 0)
            return __builtin_mul_overflow(number, units->factor, out) ? -EINVAL : 0;
    return -EINVAL;
}

int config_parse_duration(const char *text, uint64_t *ns)
{
    return parse_quantity(text, durations, ns);
}

int config_parse_size(const char *text, uint64_t *bytes)
{
    return parse_quantity(text, sizes, bytes);
}

static void print_quantity(uint64_t value, const struct unit *units, char *out, size_t size)
{
    while (units[1].name && (value < units->factor || value % units->factor != 0))
        units++;
    snprintf(out, size, "%" PRIu64 "%s", value / units->factor, units->name);
}

/* A line of the file can say it: what cannot be read back from a dump is refused. */
static bool text_is_plain(const char *text)
{
    size_t length = strlen(text);
    if (length == 0 || isspace((unsigned char)text[0]) || isspace((unsigned char)text[length - 1]))
        return false;
    if (strchr("#;", text[0]))
        return false;
    for (size_t i = 0; i < length; i++) {
        if (iscntrl((unsigned char)text[i]))
            return false;
        if (i > 0 && isblank((unsigned char)text[i - 1]) && strchr("#;", text[i]))
            return false;
    }
    return true;
}

static void print_value(const struct setting *setting, uint64_t value, char *out, size_t size)
{
    if (setting->kind == KIND_COUNT)
        snprintf(out, size, "%" PRIu64, value);
    else
        print_quantity(value, setting->kind == KIND_SIZE ? sizes : durations, out, size);
}

static int apply_number(const struct setting *setting, void *field, const char *value, struct sentence *why)
{
    static const struct unit plain[] = {{"", 1}, {0}};
    uint64_t number;
    const struct unit *units = setting->kind == KIND_COUNT ? plain : setting->kind == KIND_SIZE ? sizes : durations;
    const char *wanted = setting->kind == KIND_COUNT  ? "a number"
                         : setting->kind == KIND_SIZE ? "a size such as 512K, 64M or 1G"
                                                      : "a duration such as 500ms, 30s or 2m";
    if (parse_quantity(value, units, &number) < 0)
        return refuse(why, -EINVAL, "%s: \"%.100s\" is not %s", setting->key, value, wanted);
    if (number < setting->least || number > setting->most) {
        char least[32], most[32];
        print_value(setting, setting->least, least, sizeof(least));
        print_value(setting, setting->most, most, sizeof(most));
        return refuse(why, -EINVAL, "%s: %.100s is not between %s and %s", setting->key, value, least, most);
    }
    if (setting->kind == KIND_COUNT) {
        unsigned count = (unsigned)number;
        memcpy(field, &count, sizeof(count));
    } else {
        memcpy(field, &number, sizeof(number));
    }
    return 0;
}

static int apply_text(const struct setting *setting, void *field, const char *value, struct sentence *why)
{
    if (!text_is_plain(value))
        return refuse(
            why, -EINVAL, "%s: is empty or has control characters or the beginning of a comment in it", setting->key);
    if (setting->kind == KIND_PATH && value[0] != '/')
        return refuse(why, -EINVAL, "%s: \"%.200s\" is not an absolute path", setting->key, value);
    if (setting->kind == KIND_NAME && strlen(value) > DATASTORE_NAME_MAX)
        return refuse(why, -EINVAL, "%s: \"%.100s\" is not the name of a datastore", setting->key, value);
    char *copy = strdup(value);
    if (!copy)
        return refuse(why, -ENOMEM, "%s: no memory", setting->key);
    char *before;
    memcpy(&before, field, sizeof(before));
    free(before);
    memcpy(field, &copy, sizeof(copy));
    return 0;
}

static bool is_text(const struct setting *setting)
{
    return setting->kind == KIND_TEXT || setting->kind == KIND_PATH || setting->kind == KIND_NAME;
}

int setting_apply(enum setting_section section, int number, void *object, const char *value, struct sentence *why)
{
    const struct setting *setting = &table_of(section)[number];
    void *field = (char *)object + setting->offset;
    return is_text(setting) ? apply_text(setting, field, value, why) : apply_number(setting, field, value, why);
}

static uint64_t number_of(const struct setting *setting, const void *object)
{
    const char *field = (const char *)object + setting->offset;
    unsigned count;
    uint64_t number;
    if (setting->kind == KIND_COUNT) {
        memcpy(&count, field, sizeof(count));
        return count;
    }
    memcpy(&number, field, sizeof(number));
    return number;
}

static const char *text_of(const struct setting *setting, const void *object)
{
    const char *text;
    memcpy(&text, (const char *)object + setting->offset, sizeof(text));
    return text;
}

void setting_defaults(enum setting_section section, void *object)
{
    for (const struct setting *setting = table_of(section); setting->key; setting++) {
        if (is_text(setting) || setting->normal == 0 || number_of(setting, object) != 0)
            continue;
        char text[32];
        print_value(setting, setting->normal, text, sizeof(text));
        apply_number(setting, (char *)object + setting->offset, text, NULL);
    }
}

void setting_dump(enum setting_section section, const void *object, FILE *out)
{
    for (const struct setting *setting = table_of(section); setting->key; setting++) {
        char number[32];
        const char *value = number;
        if (is_text(setting))
            value = text_of(setting, object);
        else if (number_of(setting, object) != 0)
            print_value(setting, number_of(setting, object), number, sizeof(number));
        else
            value = NULL; /* the backend's own */
        if (value)
            fprintf(out, "%s = %s\n", setting->key, value);
    }
}

void setting_clear(enum setting_section section, void *object)
{
    for (const struct setting *setting = table_of(section); setting->key; setting++) {
        if (!is_text(setting))
            continue;
        char *text, *none = NULL;
        memcpy(&text, (char *)object + setting->offset, sizeof(text));
        free(text);
        memcpy((char *)object + setting->offset, &none, sizeof(none));
    }
}
