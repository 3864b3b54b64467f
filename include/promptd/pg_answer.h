/* SPDX-License-Identifier: MIT */
/* What is asked of the server in one run, and what it answers. */
#ifndef PROMPTD_PG_ANSWER_H
#define PROMPTD_PG_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

#include "promptd/pg_error.h"

enum { PG_STATEMENTS_MAX = 3, PG_PARAMETERS_MAX = 7 };

/* Types by OID (pg_type.dat); PG_UNTYPED lets the server infer it from the column. */
enum { PG_UNTYPED = 0, PG_TEXT = 25, PG_TEXT_ARRAY = 1009, PG_UUID = 2950, PG_UUID_ARRAY = 2951 };

struct pg_parameter {
    unsigned type;
    const char *data; /* borrowed until the answer; NUL-terminated where it is text */
    size_t length;    /* bytes */
    bool binary;
};

struct pg_statement {
    const char *sql; /* borrowed until the answer; with `prepare`, for the session's life */
    struct pg_parameter parameters[PG_PARAMETERS_MAX];
    int parameter_count;
    bool prepare; /* runs often: worth preparing where that is possible */
    bool commits; /* ends a transaction: what follows in the run is another one. So does the last, in any case */
};

enum pg_status {
    PG_OK,     /* every statement succeeded and is committed */
    PG_FAILED, /* one failed; nothing of its transaction is in the database, and the others' end is known */
    PG_LOST    /* the connection died before the answer: of what is not known as committed nobody knows anything; the
                * session is closed already */
};

/* The answer to one run. Valid during the callback only. */
struct pg_answer {
    enum pg_status status;
    int failed_statement;  /* PG_FAILED: of the first that failed; the last of a transaction when its commit did */
    struct pg_error error; /* unless PG_OK */
    void *results[PG_STATEMENTS_MAX];
};

/* Is its transaction known to be committed? Whatever the status; only then may the following be asked. */
bool pg_answer_is_committed(const struct pg_answer *answer, int statement);
int pg_answer_rows(const struct pg_answer *answer, int statement);
/* A field, in binary format; NULL for SQL's null. Borrowed. */
const char *pg_answer_field(const struct pg_answer *answer, int statement, int row, int column, size_t *length);
bool pg_answer_is_true(const struct pg_answer *answer, int statement, int row, int column);

struct pg_session;
typedef void (*pg_answered)(void *context, struct pg_session *session, const struct pg_answer *answer);

/* Frees the results from this statement's on. For whoever has made the answer. */
void pg_answer_clear(struct pg_answer *answer, int from);

#endif
