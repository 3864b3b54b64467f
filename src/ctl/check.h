/* SPDX-License-Identifier: MIT */
/* The two halves of promptctl check. */
#ifndef PROMPTCTL_CHECK_H
#define PROMPTCTL_CHECK_H

#include "check_report.h"

void check_redis(struct check *check);
void check_sentinels(struct check *check);
void check_database(struct check *check);

#endif
