/* SPDX-License-Identifier: MIT */
/* What the server says, made short. */
#include "promptd/pg_error.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void copy_shortened(char *out, size_t size, const char *text)
{
    enum { ERROR_CHARACTERS_MAX = 200 };
    size_t used = 0;
    size_t characters = 0;
    for (const char *at = text; *at && used + 5 < size; at++) {
        bool starts_character = ((unsigned char)*at & 0xC0) != 0x80;
        if (starts_character && characters++ == ERROR_CHARACTERS_MAX)
            break;
        out[used++] = *at;
    }
    while (used > 0 && (out[used - 1] == '\n' || out[used - 1] == ' '))
        used--;
    out[used] = '\0';
}

void pg_error_set(struct pg_error *error, const char *sqlstate, const char *text)
{
    (void)snprintf(error->sqlstate, sizeof error->sqlstate, "%s", sqlstate ? sqlstate : "");
    copy_shortened(error->text, sizeof error->text, text);
}

void pg_error_copy_reason(char *out, size_t size, const char *text)
{
    copy_shortened(out, size, text);
    char *guesses = strstr(out, "\n\t");
    if (guesses)
        *guesses = '\0';
    for (char *at = out; *at; at++)
        if (*at == '\n')
            *at = ' ';
}
