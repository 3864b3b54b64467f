/* SPDX-License-Identifier: MIT */
/* Filling the error struct, and the exit status that belongs to each code. */
#include "promptd/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "promptd/buffer.h"
#include "promptd/text.h"

bool error_set(struct error *error, enum error_code code, const char *format, ...)
{
    if (!error)
        return false;
    error->code = code;
    va_list args;
    va_start(args, format);
    if (vsnprintf(error->text, sizeof error->text, format, args) < 0)
        error->text[0] = '\0';
    va_end(args);
    return false;
}

void error_print(const char *program, const struct error *error)
{
    struct buffer text = {0};
    text_append_escaped(&text, error->text);
    buffer_append_char(&text, '\0');
    (void)fprintf(stderr, "%s: %s\n", program, text.failed ? "out of memory" : text.data);
    buffer_free(&text);
}

int error_exit_status(enum error_code code)
{
    switch (code) {
#define X(name, status, meaning)                                                                                       \
    case ERROR_##name:                                                                                                 \
        return status;
        ERROR_MAP(X)
#undef X
    }
    return 70;
}
