/* SPDX-License-Identifier: MIT */
/* Filling the error struct, and the exit status that belongs to each code. */
#include "promptd/error.h"

#include <stdarg.h>
#include <stdio.h>

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
