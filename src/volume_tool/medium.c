#include "volume_tool/medium.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "backends/backends.h"

#define NAME    "volume" /* of the datastore; medium_sentence takes it out again */
#define PREFIX  "datastore " NAME
#define VOLUME  "volume:"
#define THREADS 16

/* It has no names: only the raw image below it is reached. */
static const struct datastore_ops no_names = {.scheme = "volume"};
static const struct datastore_ops *const backends[] = {&no_names, NULL};

static bool has_scheme(const char *url)
{
    size_t length = strcspn(url, ":/");
    return length > 0 && url[length] == ':';
}

/* What was given → the url of the raw image, allocated. */
static int make_url(const char *given, char **out, struct sentence *why)
{
    struct stat st;
    if (strncmp(given, VOLUME, strlen(VOLUME)) == 0)
        given += strlen(VOLUME);
    if (has_scheme(given)) {
        *out = strdup(given);
        return *out ? 0 : -ENOMEM;
    }
    if (*given == '\0')
        return refuse(why, -EINVAL, "the URL is empty");
    char *path = realpath(given, NULL);
    if (!path)
        return refuse(why, -errno, "%s: %s", given, error_text(-errno));
    bool device = stat(path, &st) == 0 && S_ISBLK(st.st_mode);
    int length = asprintf(out, "%s:%s", device ? "device" : "local", path);
    free(path);
    return length < 0 ? -ENOMEM : 0;
}

static void read_word(const char *path, char *out, size_t size)
{
    FILE *file = fopen(path, "re");
    if (!file || !fgets(out, (int)size, file))
        out[0] = '\0';
    if (file)
        fclose(file);
    out[strcspn(out, "\n")] = '\0';
}

/* The tool is a mount of its own that lives as long as the process. */
static int make_identity(struct identity *identity, bool takeover)
{
    struct utsname names;
    *identity = (struct identity){.generation = 1, .takeover = takeover, .keeper = (int)getpid()};
    if (getrandom(&identity->mount, sizeof(identity->mount), 0) != (ssize_t)sizeof(identity->mount))
        return -EIO;
    identity->mount |= 1;
    snprintf(identity->host, sizeof(identity->host), "%s", uname(&names) == 0 ? names.nodename : "");
    snprintf(identity->mountpoint, sizeof(identity->mountpoint), "svmfs-volume");
    read_word("/etc/machine-id", identity->machine, sizeof(identity->machine));
    read_word("/proc/sys/kernel/random/boot_id", identity->boot, sizeof(identity->boot));
    return 0;
}

static int make_datastore(struct medium *medium, const struct arguments *arguments, struct sentence *why)
{
    char *url;
    if (asprintf(&url, VOLUME "%s", medium->url) < 0)
        return -ENOMEM;
    const struct datastore_options options = {.name = NAME,
        .url = url,
        .timeout_ns = arguments->timeout_ns,
        .threads = THREADS,
        .password_file = arguments->password_file,
        .mutual_user = arguments->mutual_user,
        .mutual_password_file = arguments->mutual_password_file};
    int error = datastore_new(&medium->datastore, &options, backends, why);
    free(url);
    return error ? error : make_identity(&medium->datastore->identity, arguments->takeover);
}

int medium_open(struct medium *medium, const struct arguments *arguments, bool writable, struct sentence *why)
{
    *medium = (struct medium){0};
    int error = make_url(arguments->url, &medium->url, why);
    if (!error)
        error = make_datastore(medium, arguments, why);
    if (!error)
        error = raw_open(medium->datastore, backend_raws, medium->url, writable, &medium->image, &medium->ops, why);
    if (!error) {
        medium->carrier = (struct carrier){
            .image = medium->image, .block = medium->image->limits.block < 512 ? 512 : medium->image->limits.block};
        error = reactor_start(&medium->carrier.reactor, 0);
    }
    if (!error && medium->carrier.block > VOLUME_BLOCK)
        error = refuse(why, -EINVAL, PREFIX ": its blocks have %u bytes, a volume's at most %u", medium->carrier.block,
            VOLUME_BLOCK);
    if (error && *why->text == '\0')
        refuse(why, error, PREFIX ": %s", error_text(error));
    medium_sentence(medium, why);
    if (error)
        medium_close(medium);
    return error;
}

void medium_close(struct medium *medium)
{
    if (medium->image)
        image_close(medium->image);
    reactor_stop(medium->carrier.reactor);
    datastore_free(medium->datastore);
    free(medium->url);
    *medium = (struct medium){0};
}

void medium_sentence(const struct medium *medium, struct sentence *why)
{
    char text[SENTENCE_MAX];
    const char *rest = why->text + strlen(PREFIX);
    if (!medium->url || strncmp(why->text, PREFIX, strlen(PREFIX)) != 0 || (*rest != ':' && *rest != ' '))
        return;
    snprintf(text, sizeof(text), "%.*s%s", SENTENCE_MAX / 2, medium->url, rest);
    memcpy(why->text, text, sizeof(text));
}

const char *medium_scheme(const struct medium *medium)
{
    return medium->ops->scheme;
}

const char *medium_rest(const struct medium *medium)
{
    return strchr(medium->url, ':') + 1;
}
