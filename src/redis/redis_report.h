/* SPDX-License-Identifier: MIT */
/* What the log says of the connections to Redis: each change of state once. */
#ifndef PROMPTD_REDIS_REPORT_H
#define PROMPTD_REDIS_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "promptd/redis_dial.h"

enum { REDIS_REPORT_REFUSAL_SIZE = 256 };

struct redis_report {
    bool is_second;                          /* set by the owner: only refusals that no other link has met are logged */
    bool is_reported;                        /* this outage stands in the log */
    char refusal[REDIS_REPORT_REFUSAL_SIZE]; /* and so does this refusal in it */
    bool was_up;                             /* at least once */
};

/* `server`: see redis_address_name. */
void redis_report_failure(struct redis_report *report, const char *server, const struct redis_dial_end *end);
void redis_report_up(struct redis_report *report, unsigned attempts, int64_t away_ms);

#endif
