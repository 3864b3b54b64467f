/* SPDX-License-Identifier: MIT */
/* What the log says of a connection to Redis: each change of state once. */
#ifndef PROMPTD_REDIS_REPORT_H
#define PROMPTD_REDIS_REPORT_H

#include <stdbool.h>
#include <stdint.h>

struct redis_report {
    bool is_reported;  /* this outage stands in the log */
    char refusal[256]; /* and so does this refusal in it */
    bool was_up;       /* at least once */
};

struct redis_report_failure {
    const char *server;
    const char *reason;
    bool lost;      /* it was up */
    bool refused;   /* the server itself said no */
    bool by_server; /* refused, or set up wrong: news whenever it changes */
};

void redis_report_failure(struct redis_report *report, const struct redis_report_failure *failure);
void redis_report_up(struct redis_report *report, unsigned attempts, int64_t away_ms);

#endif
