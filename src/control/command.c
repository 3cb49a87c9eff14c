#include "control/command.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "config.h"

int command_text(const char *value, size_t size, char out[COMMAND_MAX + 1], struct sentence *why)
{
    if (size == 0)
        return refuse(why, -EINVAL, "the value is empty");
    if (size > COMMAND_MAX)
        return refuse(why, -EINVAL, "the value has %zu bytes; at most %d are understood", size, COMMAND_MAX);
    for (size_t i = 0; i < size; i++)
        if (!isprint((unsigned char)value[i]))
            return refuse(why, -EINVAL, "the value is no text: byte %zu is 0x%02x", i, (unsigned char)value[i]);
    memcpy(out, value, size);
    out[size] = '\0';
    return 0;
}

static int find_datastore(struct catalog *catalog, const char *name, unsigned *index)
{
    for (unsigned i = 0; i < catalog_datastore_count(catalog); i++)
        if (strcmp(catalog_datastore(catalog, i)->name, name) == 0) {
            *index = i;
            return 0;
        }
    return -ENODEV;
}

static const char *const formats[] = {"same", "thin", "thick"};

static int parse_format(const char *value, struct job_request *out, struct sentence *why)
{
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(value, formats[i]) == 0) {
            out->format = (enum job_format)i;
            return 0;
        }
    return refuse(why, -EINVAL, "format=%s is none of same, thin, thick", value);
}

/* deadline=TIME from now on; on record it is until=SECONDS since the epoch. */
static int parse_deadline(const char *option, const char *value, struct job_request *out, struct sentence *why)
{
    uint64_t ns;
    if (strcmp(option, "until") == 0) {
        out->until = strtoull(value, NULL, 10);
        return out->until ? 0 : refuse(why, -EINVAL, "until=%s is no time", value);
    }
    if (config_parse_duration(value, &ns) < 0 || ns < NS_PER_S)
        return refuse(why, -EINVAL, "deadline=%s is no time, as 30m; at least 1s", value);
    out->until = (uint64_t)time(NULL) + ns / NS_PER_S;
    return 0;
}

static int parse_option(char *option, struct job_request *out, struct sentence *why)
{
    char *value = strchr(option, '=');
    if (value)
        *value++ = '\0';
    if (!value && strcmp(option, "paused") == 0) {
        out->paused = true;
        return 0;
    }
    if (!value && strcmp(option, "verify") == 0) {
        out->verify = true;
        return 0;
    }
    if (value && strcmp(option, "format") == 0)
        return parse_format(value, out, why);
    if (value && strcmp(option, "rate") == 0)
        return config_parse_size(value, &out->rate) < 0 ? refuse(why, -EINVAL, "rate=%s is no rate, as 200M", value)
                                                        : 0;
    if (value && strcmp(option, "rescue") == 0) {
        out->rescue = strcmp(value, "yes") == 0;
        return out->rescue || strcmp(value, "no") == 0 ? 0
                                                       : refuse(why, -EINVAL, "rescue=%s is none of yes, no", value);
    }
    if (value && strcmp(option, "latency") == 0)
        return config_parse_duration(value, &out->latency_ns) < 0 || !out->latency_ns
                   ? refuse(why, -EINVAL, "latency=%s is no time, as 2ms", value)
                   : 0;
    if (value && (strcmp(option, "deadline") == 0 || strcmp(option, "until") == 0))
        return parse_deadline(option, value, out, why);
    if (value && strcmp(option, "keep") == 0)
        return config_parse_duration(value, &out->keep_ns) < 0 || out->keep_ns < NS_PER_S
                   ? refuse(why, -EINVAL, "keep=%s is no time, as 2h; at least 1s", value)
                   : 0;
    if (value && strcmp(option, "undo") == 0) {
        out->undo_until = strtoull(value, NULL, 10);
        return out->undo_until ? 0 : refuse(why, -EINVAL, "undo=%s is no time", value);
    }
    if (value && strcmp(option, "switchover") == 0) {
        out->manual = strcmp(value, "manual") == 0;
        return out->manual || strcmp(value, "auto") == 0
                   ? 0
                   : refuse(why, -EINVAL, "switchover=%s is none of auto, manual", value);
    }
    return refuse(why, -EINVAL, "unknown option \"%s\"", option);
}

int command_parse_migrate(struct catalog *catalog, const char *text, struct job_request *out, struct sentence *why)
{
    char copy[COMMAND_MAX + 1], *rest = copy;
    *out = (struct job_request){.target = 0};
    strncpy(copy, text, COMMAND_MAX);
    copy[COMMAND_MAX] = '\0';
    strcpy(out->text, copy);
    char *target = strsep(&rest, ",");
    if (find_datastore(catalog, target, &out->target) < 0)
        return refuse(why, -ENODEV, "there is no datastore \"%s\"", target);
    for (char *option; (option = strsep(&rest, ","));) {
        int error = parse_option(option, out, why);
        if (error < 0)
            return error;
    }
    if (out->until) /* what is recorded must not begin anew with the next worker */
        command_format(catalog, out, out->text);
    return 0;
}

void command_format(struct catalog *catalog, const struct job_request *request, char out[COMMAND_MAX + 1])
{
    char keep[64] = "", pace[96] = "";
    if (request->keep_ns)
        snprintf(keep, sizeof(keep), ",keep=%llus", (unsigned long long)(request->keep_ns / NS_PER_S));
    if (request->undo_until)
        snprintf(keep, sizeof(keep), ",undo=%llu", (unsigned long long)request->undo_until);
    if (request->latency_ns)
        snprintf(pace, sizeof(pace), ",latency=%lluus", (unsigned long long)(request->latency_ns / NS_PER_US));
    if (request->until)
        snprintf(strchr(pace, '\0'), 32, ",until=%llu", (unsigned long long)request->until);
    snprintf(out, COMMAND_MAX + 1, "%s,format=%s,rate=%llu%s%s%s%s%s%s",
        catalog_datastore(catalog, request->target)->name, formats[request->format], (unsigned long long)request->rate,
        request->manual ? ",switchover=manual" : "", request->rescue ? ",rescue=yes" : "",
        request->verify ? ",verify" : "", request->paused ? ",paused" : "", keep, pace);
}

int command_parse_control(const char *text, enum command_verb *out, struct sentence *why)
{
    static const char *const verbs[] = {"cancel", "pause", "resume", "switchover", "verify", "undo", "release"};
    for (unsigned i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
        if (strcmp(text, verbs[i]) == 0) {
            *out = (enum command_verb)i;
            return 0;
        }
    return refuse(why, -EINVAL, "\"%s\" is none of cancel, pause, resume, switchover, verify, undo, release", text);
}
