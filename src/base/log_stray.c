/* SPDX-License-Identifier: MIT */
/* What libraries print by themselves. libpq, for one, prints a notice that comes while it is still connecting. */
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#define LOG_COMPONENT "library"
#include "promptd/log.h"

enum { STRAY_LINE_MAX = 200 }; /* bytes that are logged of one */

static FILE *captured;
static FILE *original;

static ssize_t write_stray(void *cookie, const char *bytes, size_t size)
{
    (void)cookie;
    const char *end = bytes + size;
    for (const char *at = bytes; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline ? newline : end) - at);
        if (length > 0)
            log_warning(NULL, "%.*s", (int)(length < STRAY_LINE_MAX ? length : STRAY_LINE_MAX), at);
        at += length + (newline != NULL);
    }
    return (ssize_t)size;
}

void log_capture_stderr(void)
{
    const cookie_io_functions_t functions = {.write = write_stray};
    if (captured)
        return;
    captured = fopencookie(NULL, "w", functions);
    if (!captured)
        return; /* stray lines then stand in the log as they are */
    (void)setvbuf(captured, NULL, _IOLBF, 0);
    original = stderr;
    stderr = captured;
}

void log_leave_stderr(void)
{
    if (!captured)
        return;
    stderr = original;
    (void)fclose(captured);
    captured = NULL;
}
