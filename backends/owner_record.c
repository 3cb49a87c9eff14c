#include "backends/owner_record.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC     "svmfs-owner "
#define VERSION   "1"
#define VALUE_MAX 255

/* ---- text ---- */

/* One line of it, at most size bytes with its end. */
static void put_plain(char *out, size_t size, const char *text)
{
    size_t at = 0;
    for (; *text && at + 1 < size; text++)
        out[at++] = (unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text;
    out[at] = '\0';
}

void owner_encode(const struct owner_record *record, char text[OWNER_RECORD])
{
    char lines[2 * OWNER_RECORD], value[VALUE_MAX + 1], host[65];
    put_plain(host, sizeof(host), record->host);
    int used = snprintf(lines, sizeof(lines),
        MAGIC VERSION "\nstate %s\nmount %016" PRIx64 "\nbeat %020" PRIu64 "\nkeeper %d\nworker %d\nprocesses %" PRIu64
                      "\nboot %.36s\nmachine %.32s\nhost %s\n",
        record->held ? "held" : "free", record->mount, record->beat, record->keeper, record->worker, record->processes,
        record->boot, record->machine, host);
    size_t room = OWNER_RECORD - (size_t)used - strlen("mountpoint \n");
    put_plain(value, room + 1 < sizeof(value) ? room + 1 : sizeof(value), record->mountpoint);
    used += snprintf(lines + used, sizeof(lines) - (size_t)used, "mountpoint %s\n", value);
    memset(text, '\n', OWNER_RECORD);
    memcpy(text, lines, (size_t)used);
}

static bool take_number(const char *value, int base, uint64_t most, uint64_t *out)
{
    char *end;
    if (*value == '\0' || *value == '-' || *value == '+' || *value == ' ')
        return false;
    errno = 0;
    unsigned long long number = strtoull(value, &end, base);
    if (*end != '\0' || errno != 0 || number > most)
        return false;
    *out = number;
    return true;
}

static bool take_process(const char *value, int *out)
{
    uint64_t number;
    bool good = take_number(value, 10, INT32_MAX, &number);
    if (good)
        *out = (int)number;
    return good;
}

enum { SEEN_MOUNT = 1, SEEN_BEAT = 2, SEEN_STATE = 4, SEEN_ALL = 7 };

/* A key that is not known is left to later versions that say more. */
static bool take_line(struct owner_record *record, const char *key, const char *value, unsigned *seen)
{
    if (strcmp(key, "mount") == 0) {
        *seen |= SEEN_MOUNT;
        return take_number(value, 16, UINT64_MAX, &record->mount);
    }
    if (strcmp(key, "beat") == 0) {
        *seen |= SEEN_BEAT;
        return take_number(value, 10, UINT64_MAX, &record->beat);
    }
    if (strcmp(key, "state") == 0) {
        *seen |= SEEN_STATE;
        record->held = strcmp(value, "held") == 0;
        return record->held || strcmp(value, "free") == 0;
    }
    if (strcmp(key, "keeper") == 0)
        return take_process(value, &record->keeper);
    if (strcmp(key, "worker") == 0)
        return take_process(value, &record->worker);
    if (strcmp(key, "processes") == 0)
        return take_number(value, 10, UINT64_MAX, &record->processes);
    if (strcmp(key, "boot") == 0)
        put_plain(record->boot, sizeof(record->boot), value);
    else if (strcmp(key, "machine") == 0)
        put_plain(record->machine, sizeof(record->machine), value);
    else if (strcmp(key, "host") == 0)
        put_plain(record->host, sizeof(record->host), value);
    else if (strcmp(key, "mountpoint") == 0)
        put_plain(record->mountpoint, sizeof(record->mountpoint), value);
    return true;
}

static bool is_blank(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] != '\0' && text[i] != '\n' && text[i] != ' ')
            return false;
    return true;
}

int owner_decode(const char *text, size_t length, struct owner_record *record)
{
    char copy[OWNER_RECORD + 1];
    unsigned seen = 0;
    *record = (struct owner_record){0};
    if (length > OWNER_RECORD)
        length = OWNER_RECORD;
    if (is_blank(text, length))
        return -ENOENT;
    memcpy(copy, text, length);
    copy[length] = '\0';
    if (strncmp(copy, MAGIC, strlen(MAGIC)) != 0)
        return -EINVAL;
    char *rest = copy + strlen(MAGIC), *line = strsep(&rest, "\n");
    if (strcmp(line, VERSION) != 0)
        return -EPROTO;
    while ((line = strsep(&rest, "\n"))) {
        char *value = line, *key = strsep(&value, " ");
        if (*key && !take_line(record, key, value ? value : "", &seen))
            return -EINVAL;
    }
    return seen == SEEN_ALL ? 0 : -EINVAL;
}

/* ---- judgement ---- */

bool owner_same(const struct owner_record *a, const struct owner_record *b)
{
    return a->mount == b->mount && a->keeper == b->keeper && a->processes == b->processes &&
           strcmp(a->boot, b->boot) == 0 && strcmp(a->machine, b->machine) == 0;
}

static bool is_known(const char *text)
{
    return text[0] != '\0';
}

/* A boot's id is random: who has the same runs on the same kernel, whatever else is the same or not. A machine's id is
 * not worth as much: machines are copied with it. */
enum owner_verdict owner_judge(
    const struct owner_record *found, const struct owner_record *self, bool (*alive)(int process))
{
    if (!found->held)
        return OWNER_FREE;
    if (is_known(found->boot) && strcmp(found->boot, self->boot) == 0) {
        bool visible = found->processes != 0 && found->processes == self->processes && found->keeper > 0;
        if (visible && found->mount == self->mount && found->keeper == self->keeper)
            return OWNER_OURS;
        /* A worker whose keeper died serves on. */
        if (visible && !alive(found->keeper) && (found->worker == 0 || !alive(found->worker)))
            return OWNER_DEAD;
        return OWNER_OTHER;
    }
    bool same_machine = is_known(found->machine) && strcmp(found->machine, self->machine) == 0 &&
                        is_known(found->host) && strcmp(found->host, self->host) == 0;
    return same_machine && is_known(found->boot) && is_known(self->boot) ? OWNER_OLD : OWNER_OTHER;
}

uint64_t owner_patience(enum owner_verdict verdict, uint64_t beat_ns)
{
    switch (verdict) {
    case OWNER_FREE:
    case OWNER_OURS:
    case OWNER_DEAD:
        return 0;
    case OWNER_OLD:
        return 2 * beat_ns;
    case OWNER_OTHER:
        return OWNER_STALE_BEATS * beat_ns;
    }
    abort();
}

int owner_describe(const char *text, size_t length, char *out, size_t size)
{
    struct owner_record record;
    int error = owner_decode(text, length, &record);
    if (error == -ENOENT)
        snprintf(out, size, "nobody has used it yet");
    else if (error == -EPROTO)
        snprintf(out, size, "in use by a later version of svmfs");
    else if (error)
        return -EINVAL;
    else
        snprintf(out, size, "%s svmfs on host %s, mounted at %s (process %d)",
            record.held ? "in use by" : "free; it was last used by",
            is_known(record.host) ? record.host : "without name",
            is_known(record.mountpoint) ? record.mountpoint : "an unknown place", record.keeper);
    return 0;
}
