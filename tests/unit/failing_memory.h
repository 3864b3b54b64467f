/* SPDX-License-Identifier: MIT */
/*
 * Makes allocations fail: the Nth from now on, and all after it. For tests that are linked with
 * --wrap=malloc,calloc,realloc,strdup,strndup (promptd_failing_memory() in CMakeLists.txt); include it in one file.
 */
#ifndef PROMPTD_TESTS_FAILING_MEMORY_H
#define PROMPTD_TESTS_FAILING_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static long memory_left = -1; /* allocations that still succeed; -1: all of them */

static bool memory_fails(void)
{
    if (memory_left < 0)
        return false;
    if (memory_left == 0)
        return true;
    memory_left--;
    return false;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t length);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t length);

void *__wrap_malloc(size_t size)
{
    return memory_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return memory_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return memory_fails() ? NULL : __real_realloc(old, size);
}

char *__wrap_strdup(const char *text)
{
    return memory_fails() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t length)
{
    return memory_fails() ? NULL : __real_strndup(text, length);
}

#endif
