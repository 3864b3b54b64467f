/* SPDX-License-Identifier: MIT */
/*
 * What orphans and stuck have in common: rows of a view of sql/03_views.sql, older than so much, listed, and on request
 * dealt with one by one. Each is one statement of its own, which refuses what is no longer to be touched.
 */
#ifndef PROMPTCTL_FINDINGS_H
#define PROMPTCTL_FINDINGS_H

#include "database.h"
#include "promptd/buffer.h"
#include "promptd/commands.h"

/*
 * How a row is dealt with: $1 is its id, `parameters` are $2 to $5. The answer is one word: done; locked, by somebody
 * who is at work on it; kept, by a trigger or a policy that says nothing. No row: it is no finding any more. An error
 * with FINDINGS_KEPT in it is "kept", where something was changed that must not be changed alone.
 */
#define FINDINGS_KEPT "something keeps the rest of it"

struct findings_change {
    const char *sql;
    const char *parameters[4]; /* borrowed; NULL ends them */
};

struct findings_query {
    struct buffer sql;
    char *parameter; /* $2, owned; NULL: there is none */
};

struct findings {
    /* Columns as headings has them, the id first, and last the age in seconds. $1 is the least age, in seconds. The
     * caller frees what is in the query, also after a failure. */
    bool (*build)(struct database *database, const struct settings *settings, struct findings_query *query,
                  struct error *error);
    const char *dated;           /* the table whose created_at makes the age; NULL: the age is certain */
    const char *const *headings; /* also the keys of --json, in lower case with _; ends with NULL */
    struct findings_change change;
    /* For rows whose column before the age is FINDINGS_BY_SCAN. */
    struct findings_change change_scanned;
    enum ctl_option when; /* the option that asks for it */
    const char *one;      /* "orphaned prompt" */
    const char *many;
    const char *verb;        /* "Mark" */
    const char *consequence; /* " as failed" */
    const char *done;        /* "deleted"; also the key in --json */
};

#define FINDINGS_BY_SCAN "scan"

void findings_query_free(struct findings_query *query);

int findings_run(struct ctl *ctl, const struct findings *findings);

#endif
