/* Linked with -Wl,--wrap=malloc and so on: calls of this program's own objects come here, those of libraries do not. */
#include "tests/stress/alloc.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
int __real_posix_memalign(void **out, size_t align, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);
int __wrap_posix_memalign(void **out, size_t align, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

static atomic_uint rate;
static atomic_ulong state, refused;

unsigned long alloc_refuse(unsigned seed, unsigned one_in)
{
    atomic_store(&state, seed);
    atomic_store(&rate, one_in);
    return atomic_load(&refused);
}

static int refuses(void)
{
    unsigned one_in = atomic_load_explicit(&rate, memory_order_relaxed);
    if (one_in == 0)
        return 0;
    uint64_t x = atomic_fetch_add(&state, 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    if ((x ^ (x >> 27)) % one_in != 0)
        return 0;
    atomic_fetch_add(&refused, 1);
    errno = ENOMEM;
    return 1;
}

void *__wrap_malloc(size_t size)
{
    return refuses() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return refuses() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return refuses() ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *text)
{
    return refuses() ? NULL : __real_strdup(text);
}

int __wrap_posix_memalign(void **out, size_t align, size_t size)
{
    return refuses() ? ENOMEM : __real_posix_memalign(out, align, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
    return refuses() ? NULL : __real_aligned_alloc(align, size);
}
