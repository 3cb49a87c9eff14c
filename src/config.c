/* The file's form is read here: sections, keys, comments, lines; what each key may say is setting's. Written out
 * instead of taken from a library: the common small one cuts sections and lines short, hides sections without keys and
 * gives handlers no line number, and a cut name would be another datastore's.
 *
 *   # comment          ; comment          a blank and "#" or ";" begins a comment after a value, too
 *   [mount]            at most once
 *   [datastore NAME]   one or more; their order is the order of the mount's array
 *   key = value        each at most once in its section */
#include "config.h"

#include <ctype.h>
#include <sched.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "setting.h"

#define REACTORS_DEFAULT_MAX 8u
#define STATE_PARENT         "/var/lib/svmfs"

/* The state while a file is read. */
struct reader {
    struct config *config;
    const char *file;
    const char *const *schemes;
    struct sentence *why;
    unsigned line;
    enum { SECTION_NONE, SECTION_MOUNT, SECTION_DATASTORE } section;
    unsigned seen; /* keys of this section, by number */
    bool mount_seen;
    unsigned default_line, section_lines[CONFIG_DATASTORES_MAX];
};

#define FAULT(reader, line, format, ...)                                                                               \
    refuse((reader)->why, -EINVAL, "%.200s:%u: " format, (reader)->file, line, __VA_ARGS__)

static bool name_is_good(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length <= DATASTORE_NAME_MAX && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == length;
}

static int datastore_of(const struct config *config, const char *name)
{
    for (unsigned i = 0; i < config->datastore_count; i++)
        if (strcmp(config->datastores[i].name, name) == 0)
            return (int)i;
    return -1;
}

/* Cuts white space and comments off; returns the first character that counts. */
static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    if (*text == '#' || *text == ';')
        *text = '\0';
    for (char *p = text; *p; p++)
        if (isspace((unsigned char)p[0]) && (p[1] == '#' || p[1] == ';'))
            *p = '\0';
    size_t length = strlen(text);
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
    return text;
}

static int begin_datastore(struct reader *reader, const char *name)
{
    struct config *config = reader->config;
    if (!name_is_good(name))
        return FAULT(reader, reader->line, "\"%.100s\" is not a name for a datastore: 1 to %d of A-Z a-z 0-9 . _ - are",
            name, DATASTORE_NAME_MAX);
    int other = datastore_of(config, name);
    if (other >= 0)
        return FAULT(
            reader, reader->line, "datastore %s stands in line %u already", name, reader->section_lines[other]);
    if (config->datastore_count == CONFIG_DATASTORES_MAX)
        return FAULT(
            reader, reader->line, "datastore %s is one too many: %d are the limit", name, CONFIG_DATASTORES_MAX);
    char *copy = strdup(name);
    if (!copy)
        return refuse(reader->why, -ENOMEM, "%s: no memory", reader->file);
    reader->section_lines[config->datastore_count] = reader->line;
    config->datastores[config->datastore_count++].name = copy;
    reader->section = SECTION_DATASTORE;
    return 0;
}

static int begin_section(struct reader *reader, char *text)
{
    char *end = strrchr(text, ']');
    if (!end || end[1] != '\0')
        return FAULT(reader, reader->line, "\"%.100s\" has no ] at its end", text);
    *end = '\0';
    text = trim(text + 1);
    reader->seen = 0;
    if (strncmp(text, "datastore", 9) == 0 && (text[9] == '\0' || isblank((unsigned char)text[9])))
        return begin_datastore(reader, trim(text + 9));
    if (strcmp(text, "mount") != 0)
        return FAULT(
            reader, reader->line, "there is no section [%.100s]: [mount] and [datastore NAME] are known", text);
    if (reader->mount_seen)
        return FAULT(reader, reader->line, "section [%s] stands twice", text);
    reader->mount_seen = true;
    reader->section = SECTION_MOUNT;
    return 0;
}

static int take_key(struct reader *reader, const char *key, const char *value)
{
    struct config *config = reader->config;
    struct sentence why = {0};
    if (reader->section == SECTION_NONE)
        return FAULT(reader, reader->line, "key %.100s stands before any section", key);
    bool is_mount = reader->section == SECTION_MOUNT;
    enum setting_section section = is_mount ? SETTING_MOUNT : SETTING_DATASTORE;
    void *object = is_mount ? (void *)config : (void *)&config->datastores[config->datastore_count - 1];
    const char *name = is_mount ? "mount" : config->datastores[config->datastore_count - 1].name;
    int number = setting_find(section, key);
    if (number < 0) {
        char keys[256];
        setting_keys(section, keys, sizeof(keys));
        return FAULT(reader, reader->line, "[%s] has no key %.100s: %s are known", name, key, keys);
    }
    if (reader->seen & 1u << number)
        return FAULT(reader, reader->line, "key %s stands twice in [%s]", key, name);
    reader->seen |= 1u << number;
    if (is_mount && strcmp(key, "default") == 0)
        reader->default_line = reader->line;
    if (setting_apply(section, number, object, value, &why) < 0)
        return FAULT(reader, reader->line, "[%s] %s", name, why.text);
    return 0;
}

static int take_line(struct reader *reader, char *line, size_t length)
{
    if (strlen(line) != length)
        return FAULT(reader, reader->line, "%s", "has a zero byte in it: this is no text");
    if (reader->line == 1 && strncmp(line, "\xef\xbb\xbf", 3) == 0)
        line += 3;
    char *text = trim(line);
    if (*text == '\0')
        return 0;
    if (*text == '[')
        return begin_section(reader, text);
    char *equals = strchr(text, '=');
    if (!equals || equals == text)
        return FAULT(reader, reader->line, "\"%.100s\" is neither [section] nor key = value", text);
    *equals = '\0';
    return take_key(reader, trim(text), trim(equals + 1));
}

static bool is_raw(const char *url, size_t length)
{
    static const char *const raws[] = {"device", "iscsi"};
    for (size_t i = 0; i < sizeof(raws) / sizeof(raws[0]); i++)
        if (url[length] == ':' && strlen(raws[i]) == length && strncmp(raws[i], url, length) == 0)
            return true;
    return false;
}

/* user:secret@ or user%secret@; %40 and the like are parts of a name. */
static bool holds_secret(const char *url)
{
    const char *from = strstr(url, "://");
    const char *end = from ? from + 3 + strcspn(from + 3, "/") : NULL;
    const char *at = from ? memrchr(from + 3, '@', (size_t)(end - from - 3)) : NULL;
    for (const char *p = from ? from + 3 : NULL; at && p < at; p++)
        if (*p == ':' || (*p == '%' && !(isxdigit((unsigned char)p[1]) && isxdigit((unsigned char)p[2]))))
            return true;
    return false;
}

static int check_url(struct reader *reader, unsigned index)
{
    const struct datastore_options *options = &reader->config->datastores[index];
    unsigned line = reader->section_lines[index];
    char known[200] = "";
    if (!options->url)
        return FAULT(reader, line, "datastore %s has no key url", options->name);
    if (holds_secret(options->url))
        return FAULT(reader, line,
            "datastore %s: url: has a secret in it; the user alone stands there, the secret in a file that "
            "password-file "
            "names",
            options->name);
    size_t length = strcspn(options->url, ":");
    bool found = false;
    for (const char *const *scheme = reader->schemes; *scheme; scheme++) {
        found = found || (options->url[length] == ':' && strlen(*scheme) == length &&
                             strncmp(*scheme, options->url, length) == 0);
        size_t used = strlen(known);
        snprintf(known + used, sizeof(known) - used, "%s%s:", used > 0 ? ", " : "", *scheme);
    }
    if (!found && is_raw(options->url, length))
        return FAULT(reader, line,
            "datastore %s: url: %.100s is one raw image and holds no files: volume: before it makes a datastore of it "
            "(volume:%.100s), once svmfs-volume has formatted it",
            options->name, options->url, options->url);
    if (!found)
        return FAULT(
            reader, line, "datastore %s: url: \"%.100s\" begins with none of %s", options->name, options->url, known);
    if (options->faults && strncmp(options->url, "fault:", 6) != 0)
        return FAULT(reader, line, "datastore %s: faults: is for an url that begins with fault:", options->name);
    if (options->url[strlen(options->url) - 1] == ':')
        return 0; /* names no place */
    for (unsigned i = 0; i < index; i++)
        if (strcmp(reader->config->datastores[i].url, options->url) == 0)
            return FAULT(reader, line, "datastore %s: url: %.200s is datastore %s already", options->name, options->url,
                reader->config->datastores[i].name);
    return 0;
}

static unsigned cores(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < 1 ? 1 : (unsigned)count;
}

static char *default_state(const char *file)
{
    const char *base = strrchr(file, '/');
    base = base ? base + 1 : file;
    size_t length = strlen(base);
    if (length > 5 && strcmp(base + length - 5, ".conf") == 0)
        length -= 5;
    char *state;
    return asprintf(&state, "%s/%.*s", STATE_PARENT, (int)length, base) < 0 ? NULL : state;
}

/* The whole is there: what must be, is; what was not said gets its default. */
/* Half the cores: the others are the guests'. */
static unsigned default_reactors(void)
{
    unsigned half = cores() / 2;
    if (half == 0)
        return 1;
    return half < REACTORS_DEFAULT_MAX ? half : REACTORS_DEFAULT_MAX;
}

static int finish(struct reader *reader)
{
    struct config *config = reader->config;
    if (config->datastore_count == 0)
        return FAULT(reader, reader->line, "%s", "there is no [datastore NAME] section, and one at least is needed");
    for (unsigned i = 0; i < config->datastore_count; i++) {
        int error = check_url(reader, i);
        if (error < 0)
            return error;
        setting_defaults(SETTING_DATASTORE, &config->datastores[i]);
    }
    if (config->default_datastore && datastore_of(config, config->default_datastore) < 0)
        return FAULT(
            reader, reader->default_line, "[mount] default: there is no datastore %s", config->default_datastore);
    if (!config->default_datastore)
        config->default_datastore = strdup(config->datastores[0].name);
    if (!config->state)
        config->state = default_state(config->file);
    if (config->reactors == 0)
        config->reactors = default_reactors();
    setting_defaults(SETTING_MOUNT, config);
    if (!config->default_datastore || !config->state)
        return refuse(reader->why, -ENOMEM, "%s: no memory", reader->file);
    return 0;
}

static int read_file(struct reader *reader, FILE *in)
{
    auto_free char *line = NULL;
    size_t room = 0;
    ssize_t length;
    while (errno = 0, (length = getline(&line, &room, in)) >= 0) {
        reader->line++;
        int error = take_line(reader, line, (size_t)length);
        if (error < 0)
            return error;
    }
    if (ferror(in))
        return refuse(reader->why, -errno, "%s: %s", reader->file, error_text(errno));
    return finish(reader);
}

int config_load(struct config *config, const char *file, const char *const *schemes, struct sentence *why)
{
    struct reader reader = {.config = config, .file = file, .schemes = schemes, .why = why};
    memset(config, 0, sizeof(*config));
    FILE *in = fopen(file, "re");
    if (!in)
        return refuse(why, -errno, "%s: %s", file, error_text(errno));
    config->file = realpath(file, NULL);
    if (!config->file) /* a memfd has a name in /proc, but no path */
        config->file = strdup(file);
    int error = config->file ? read_file(&reader, in) : refuse(why, -ENOMEM, "%s: no memory", file);
    fclose(in);
    if (error < 0)
        config_free(config);
    return error;
}

void config_free(struct config *config)
{
    for (unsigned i = 0; i < config->datastore_count; i++) {
        free((char *)config->datastores[i].name);
        setting_clear(SETTING_DATASTORE, &config->datastores[i]);
    }
    setting_clear(SETTING_MOUNT, config);
    free(config->file);
    memset(config, 0, sizeof(*config));
}

void config_dump(const struct config *config, FILE *out)
{
    fprintf(out, "[mount]\n");
    setting_dump(SETTING_MOUNT, config, out);
    for (unsigned i = 0; i < config->datastore_count; i++) {
        fprintf(out, "\n[datastore %s]\n", config->datastores[i].name);
        setting_dump(SETTING_DATASTORE, &config->datastores[i], out);
    }
}
