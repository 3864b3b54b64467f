/* SPDX-License-Identifier: MIT */
/*
 * How old a row is, by its created_at. A column without a time zone does not tell: it is read in the time zone that the
 * database names for the role or, failing that, for all. Only a zone that was named for the role is said of that
 * column, and safe to change something by.
 */
#ifndef PROMPTCTL_ROW_AGE_H
#define PROMPTCTL_ROW_AGE_H

#include "database.h"

struct row_age {
    bool is_certain;
    char doubt[128]; /* that the column has no zone, and which is taken; else "" */
    char cure[192];  /* where it is not certain: what would make it so; else "" */
};

/* Sets the time zone of the transaction that is open. */
bool row_age_read(struct database *database, const char *table, struct row_age *age, struct error *error);

#endif
