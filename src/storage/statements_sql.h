/* SPDX-License-Identifier: MIT */
/* The texts of the statements; those that promptctl check tries, too, are in promptd/statements.h. What each parameter
 * is stands at each. */
#ifndef PROMPTD_STATEMENTS_SQL_H
#define PROMPTD_STATEMENTS_SQL_H

extern const char statements_transact_sql[];
extern const char statements_transact_clean_sql[];
extern const char statements_verify_sql[];
extern const char statements_verify_without_evidence_sql[];
extern const char statements_unsettled_sql[];
extern const char statements_probe_sql[];
extern const char statements_probe_undo_sql[];
extern const char statements_probe_table_sql[];

/* How the error begins by which a statement fails that has not made an interview ready. */
#define STATEMENTS_SUPPRESSED "the interview was not made ready: a trigger or a rule keeps it"

/* And one that has inserted a prompt under another id than ours. */
#define STATEMENTS_REPLACED "a trigger or a rule has given the prompt another id"

#endif
