/* SPDX-License-Identifier: MIT */
/* Reading an answer: libpq's results, which nobody above knows. */
#include "promptd/pg_answer.h"

#include <libpq-fe.h>

bool pg_answer_is_committed(const struct pg_answer *answer, int statement)
{
    return answer->results[statement] != NULL;
}

int pg_answer_rows(const struct pg_answer *answer, int statement)
{
    return PQntuples(answer->results[statement]);
}

const char *pg_answer_field(const struct pg_answer *answer, int statement, int row, int column, size_t *length)
{
    const PGresult *result = answer->results[statement];
    if (PQgetisnull(result, row, column)) {
        *length = 0;
        return NULL;
    }
    *length = (size_t)PQgetlength(result, row, column);
    return PQgetvalue(result, row, column);
}

bool pg_answer_is_true(const struct pg_answer *answer, int statement, int row, int column)
{
    size_t length;
    const char *field = pg_answer_field(answer, statement, row, column, &length);
    return field && length == 1 && field[0] != 0;
}

void pg_answer_clear(struct pg_answer *answer, int from)
{
    for (int i = from; i < PG_STATEMENTS_MAX; i++) {
        PQclear(answer->results[i]);
        answer->results[i] = NULL;
    }
}
