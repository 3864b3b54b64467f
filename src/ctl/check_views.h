/* SPDX-License-Identifier: MIT */
/* What only promptctl reads, and what the settings say of the interviews. */
#ifndef PROMPTCTL_CHECK_VIEWS_H
#define PROMPTCTL_CHECK_VIEWS_H

#include "check_report.h"
#include "database.h"

void check_views(struct check *check, struct database *database);
void check_awaiting(struct check *check, struct database *database);

#endif
