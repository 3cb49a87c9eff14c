#include "base/behalf.h"

#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>

#define STACK_SIZE (64u << 10)

__thread struct behalf behalf_now;
__thread int behalf_ready;

/* Stays as long as the process: threads that work for requests do. One that has such a stack (a sanitizer's) keeps it.
 */
void behalf_prepare(void)
{
    stack_t stack;
    behalf_ready = 1;
    if (sigaltstack(NULL, &stack) < 0 || !(stack.ss_flags & SS_DISABLE))
        return;
    void *memory = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (memory == MAP_FAILED)
        return; /* the handler runs on the thread's own stack, which only an overflow of it prevents */
    stack = (stack_t){.ss_sp = memory, .ss_size = STACK_SIZE};
    sigaltstack(&stack, NULL);
}
