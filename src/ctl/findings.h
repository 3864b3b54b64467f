/* SPDX-License-Identifier: MIT */
/*
 * What orphans and stuck have in common: rows of a view of sql/03_views.sql, older than so much, listed, and on request
 * dealt with one by one. Each is one statement of its own, which refuses what is no longer to be touched.
 */
#ifndef PROMPTCTL_FINDINGS_H
#define PROMPTCTL_FINDINGS_H

#include "ctl.h"

struct findings {
    /* Columns as headings has them, the id first, and last the age in seconds. $1 is the least age, in seconds. */
    const char *select;
    const char *const *headings; /* also the keys of --json, in lower case with _; ends with NULL */
    /* $1 the id; returns a row when it was done. `parameters` are $2 to $4. */
    const char *change;
    const char *parameters[3]; /* borrowed; NULL ends them */
    enum ctl_option when;      /* the option that asks for it */
    const char *one;           /* "orphaned prompt" */
    const char *many;
    const char *verb;        /* "Mark" */
    const char *consequence; /* " as failed" */
    const char *done;        /* "deleted"; also the key in --json */
};

int findings_run(struct ctl *ctl, const struct findings *findings);

#endif
