/* SPDX-License-Identifier: MIT */
/* Are the tables, columns and privileges there that the statements need? Asked of each new connection, and by promptctl
 * check. */
#ifndef PROMPTD_SCHEMA_CHECK_H
#define PROMPTD_SCHEMA_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "promptd/pg_session.h"

/* $1: whether promptd_unsettled is needed. Each row is a sentence that names a fault, and whether nothing can be stored
 * because of it. */
extern const char schema_check_sql[];

/* What a session says about its server. */
struct schema_facts {
    int32_t backend_pid;
    bool has_evidence; /* promptd_unsettled is there, and may be used */
    bool is_blocked;   /* without it nothing can be stored */
};

void schema_check_build(bool needs_evidence, struct pg_statement out[2]);
bool schema_check_read(const struct pg_answer *answer, struct schema_facts *facts); /* false: not as expected */

/* The faults of the last check, so that each set of them is logged once. Zero-initialised is empty. */
struct schema_report {
    char *findings;
};

void schema_report_update(struct schema_report *report, const struct pg_answer *answer);
bool schema_report_has_findings(const struct schema_report *report);
void schema_report_free(struct schema_report *report);

#endif
