/* SPDX-License-Identifier: MIT */
/* Are the tables, columns, keys, privileges and policies there that the statements need? Asked of each new connection,
 * and by promptctl check. */
#ifndef PROMPTD_SCHEMA_CHECK_H
#define PROMPTD_SCHEMA_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "promptd/pg_session.h"
#include "promptd/settings.h"

/* What the settings ask of the tables. */
struct schema_needs {
    bool evidence;    /* the table promptd_unsettled */
    char lengths[64]; /* what columns must take: of a prompt, a source and a status; an array */
};

struct schema_needs schema_needs_of(const struct settings *settings);

/* $1 and $2 are the two needs. Each row is a sentence that names a fault, and whether nothing can be stored because of
 * it. */
extern const char schema_check_sql[];

/* What a session says about its server. */
struct schema_facts {
    int32_t backend_pid;
    bool has_evidence; /* promptd_unsettled is there, and may be used */
    bool is_blocked;   /* without it nothing can be stored */
};

/* The needs must stay until the answer. */
void schema_check_build(const struct schema_needs *needs, struct pg_statement out[2]);
bool schema_check_read(const struct pg_answer *answer, struct schema_facts *facts); /* false: not as expected */

/* Logs each fault once, as long as it is there. *findings is NULL at first; then it has those of the last check, from
 * malloc, or is NULL where there were none. */
void schema_check_report(const struct pg_answer *answer, char **findings);

#endif
