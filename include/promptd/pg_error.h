/* SPDX-License-Identifier: MIT */
/* Why a statement failed. The text is as the server said it: whether it quotes a prompt is still to be checked. */
#ifndef PROMPTD_PG_ERROR_H
#define PROMPTD_PG_ERROR_H

#include <stddef.h>

enum { SQLSTATE_SIZE = 6, PG_ERROR_TEXT_SIZE = 820 }; /* 200 characters of at most four bytes, and some room */

struct pg_error {
    char sqlstate[SQLSTATE_SIZE];  /* "" where no server said it */
    char text[PG_ERROR_TEXT_SIZE]; /* the server's primary message, shortened, or a sentence of ours */
};

/* sqlstate: NULL where no server said it. Of the text at most 200 characters. */
void pg_error_set(struct pg_error *error, const char *sqlstate, const char *text);

/* What libpq says of a connection: one line, and without its guesses about the cause. */
void pg_error_copy_reason(char *out, size_t size, const char *text);

#endif
