/* SPDX-License-Identifier: MIT */
/* The writes that promptd makes, with its own statements: tried on an interview and rolled back, or only planned where
 * there is none. */
#ifndef PROMPTCTL_CHECK_TRIAL_H
#define PROMPTCTL_CHECK_TRIAL_H

#include "check_report.h"
#include "database.h"

/*
 * The query for id and status of some interviews, of a table of any size: those of 200 pages at random, which are all
 * of a small one's. Of views and partitioned tables it is the first ones.
 */
const char *check_interviews(struct database *database);

void check_trial(struct check *check, struct database *database);
void check_trial_skip(struct check *check); /* for want of what comes before it */

#endif
