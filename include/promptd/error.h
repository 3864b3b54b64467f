/* SPDX-License-Identifier: MIT */
/* The one error type: a code that decides the exit status, and a sentence for people. */
#ifndef PROMPTD_ERROR_H
#define PROMPTD_ERROR_H

#include <stdbool.h>

/* code, exit status (sysexits.h where it has one), meaning */
#define ERROR_MAP(X)                                                                                                   \
    X(NONE, 0, "no error")                                                                                             \
    X(USAGE, 64, "bad command line")                                                                                   \
    X(UNAVAILABLE, 69, "an address cannot be bound or reached")                                                        \
    X(INTERNAL, 70, "internal error")                                                                                  \
    X(SPOOL, 73, "the spool directory cannot be used")                                                                 \
    X(CONFIG, 78, "bad configuration")

enum error_code {
#define X(code, status, meaning) ERROR_##code,
    ERROR_MAP(X)
#undef X
};

/* Filled by whoever fails first; text is one line, without a newline, cut where it is too long. */
struct error {
    enum error_code code;
    char text[512];
};

/* Sets both fields and returns false, so that a failing function can end with it. `error` may be NULL. */
bool error_set(struct error *error, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* To standard error, behind the program's name, in one line. Control characters, which a server may have sent, are
 * escaped: they are not for the terminal. */
void error_print(const char *program, const struct error *error);

int error_exit_status(enum error_code code);

#endif
