/* SPDX-License-Identifier: MIT */
/* promptctl check: a dry run of all that promptd does to Redis and PostgreSQL. */
#include "check.h"

#include <stdio.h>

/* What is set up wrong needs a person; what is away may come back by itself. */
static int exit_of(const struct check *check)
{
    if (check->broken)
        return CTL_INTERNAL;
    if (check->wrong)
        return CTL_CONFIG;
    return check->unreachable ? CTL_UNREACHABLE : CTL_OK;
}

int ctl_check(struct ctl *ctl)
{
    struct check check = {.ctl = ctl};
    check_sentinels(&check);
    check_redis(&check);
    check_database(&check);
    if (ctl_has(ctl, CTL_OPTION_JSON))
        (void)fputs("\n]\n", stdout);
    return exit_of(&check);
}
