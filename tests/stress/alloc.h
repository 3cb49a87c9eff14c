/* Memory that is refused at random: one call in `one_in` of malloc, calloc, realloc, strdup, posix_memalign, aligned_alloc
 * in the objects of this program; 0: none from now on. Returns how many were refused so far. NULL in a program that is
 * linked without alloc.c. */
#pragma once

__attribute__((weak)) unsigned long alloc_refuse(unsigned seed, unsigned one_in);
