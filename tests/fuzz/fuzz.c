#include "fuzz.h"

#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The case that runs; one program runs one at a time. */
static struct {
    const char *program;
    volatile uint64_t seed;
} now;

/* There with a sanitizer, which reports itself and then calls back. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

void __sanitizer_set_report_fd(void *fd) __attribute__((weak));

void fuzz_silence(void)
{
    int fd = dup(STDERR_FILENO), nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || nowhere < 0)
        return;
    if (__sanitizer_set_report_fd)
        __sanitizer_set_report_fd((void *)(intptr_t)fd);
    dup2(nowhere, STDERR_FILENO);
    close(nowhere);
}

static void last_words(void)
{
    char line[256];
    int length = snprintf(line, sizeof(line), "\nagain: %s --seed %llu --cases 1\n0 passed, 1 failed, 0 skipped\n",
        now.program, (unsigned long long)now.seed);
    ssize_t ignored = write(STDOUT_FILENO, line, (size_t)length);
    (void)ignored;
}

static void killed(int number)
{
    char line[64];
    int length = snprintf(line, sizeof(line), "%s\n",
        number == SIGALRM   ? "a case does not end"
        : number == SIGABRT ? "aborted"
                            : "crashed");
    ssize_t ignored = write(STDOUT_FILENO, line, (size_t)length);
    (void)ignored;
    last_words();
    _exit(1);
}

void fuzz_broken(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    fflush(stdout);
    if (!now.program) /* not by fuzz_run: libFuzzer keeps the case */
        abort();
    last_words();
    _exit(1);
}

int fuzz_run(int argc, char **argv, unsigned cases, void (*one)(uint64_t seed))
{
    static const struct option options[] = {
        {"cases", required_argument, NULL, 'c'}, {"seed", required_argument, NULL, 's'}, {0}};
    uint64_t seed = 1, count = cases;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'c')
            count = strtoull(optarg, NULL, 0);
        else if (option == 's')
            seed = strtoull(optarg, NULL, 0);
        else
            return 2;
    }
    now.program = argv[0];
    signal(SIGALRM, killed);
    signal(SIGABRT, killed);
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(last_words);
    } else {
        signal(SIGSEGV, killed);
        signal(SIGBUS, killed);
        signal(SIGFPE, killed);
        signal(SIGILL, killed);
    }
    for (uint64_t i = 0; i < count; i++) {
        now.seed = seed + i;
        alarm(FUZZ_CASE_S);
        one(seed + i);
    }
    alarm(0);
    printf("%llu passed, 0 failed, 0 skipped\n", (unsigned long long)count);
    return 0;
}

/* ---- random ---- */

uint64_t random_next(struct random *random)
{
    uint64_t value = random->state += 0x9e3779b97f4a7c15ull;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ value >> 27) * 0x94d049bb133111ebull;
    return value ^ value >> 31;
}

uint64_t random_below(struct random *random, uint64_t count)
{
    return count ? random_next(random) % count : 0;
}

uint64_t random_edge(struct random *random)
{
    uint64_t power = 1ull << random_below(random, 64);
    switch (random_below(random, 8)) {
    case 0:
        return 0;
    case 1:
        return 1;
    case 2:
        return UINT64_MAX;
    case 3:
        return power;
    case 4:
        return power - 1;
    case 5:
        return power + 1;
    case 6:
        return random_below(random, 256);
    default:
        return random_next(random);
    }
}

/* ---- text ---- */

static size_t insert(char *text, size_t size, size_t room, size_t at, const char *part, size_t length)
{
    if (length > room - size)
        length = room - size;
    memmove(text + at + length, text + at, size - at);
    memcpy(text + at, part, length);
    return size + length;
}

size_t fuzz_text(struct random *random, char *text, size_t size, size_t room, const char *const *parts)
{
    static const char odd[] = "\0\n\r\t\"'%/:?=&[]@#;,.-+eE0123456789\x7f\xff\xc3 ";
    size_t count = 0;
    while (parts && parts[count])
        count++;
    for (uint64_t i = 1 + random_below(random, 4) * random_below(random, 2); i > 0; i--) {
        size_t at = random_below(random, size + 1), length = random_below(random, size - at + 1);
        switch (random_below(random, 7)) {
        case 0: /* a byte is another */
            if (at < size)
                text[at] = (char)random_next(random);
            break;
        case 1:
            if (at < size)
                text[at] = odd[random_below(random, sizeof(odd) - 1)];
            break;
        case 2: /* a part is gone */
            memmove(text + at, text + at + length, size - at - length);
            size -= length;
            break;
        case 3: { /* a part is there again */
            char copy[256];
            length = length < sizeof(copy) ? length : sizeof(copy);
            memcpy(copy, text + at, length);
            size = insert(text, size, room, random_below(random, size + 1), copy, length);
            break;
        }
        case 4: /* a word */
            if (count) {
                const char *part = parts[random_below(random, count)];
                size = insert(text, size, room, at, part, strlen(part));
            }
            break;
        case 5: { /* a number */
            char digits[24];
            int written = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)random_edge(random));
            size = insert(text, size, room, at, digits, (size_t)written);
            break;
        }
        default: { /* the same byte many times */
            char many[200];
            memset(many, odd[random_below(random, sizeof(odd) - 1)], sizeof(many));
            size = insert(text, size, room, at, many, random_below(random, sizeof(many)));
        }
        }
    }
    return size;
}
