/* SPDX-License-Identifier: MIT */
/* Edges, not levels. */
#include "redis_report.h"

#include <stdio.h>
#include <string.h>

#define LOG_COMPONENT "redis"
#include "promptd/log.h"

/* The last one that was logged, by whichever link: the others need not. Empty when the first link is up again. */
static char logged_refusal[REDIS_REPORT_REFUSAL_SIZE];

/* Once an outage. What changes meanwhile is news only when the server itself answers, and it is set up wrong. */
void redis_report_failure(struct redis_report *report, const char *server, const struct redis_dial_end *end)
{
    bool by_server = end->refused || end->misfit;
    bool is_news = by_server ? strcmp(report->refusal, end->reason) != 0 : !report->is_reported && !report->is_second;
    const struct log_field *fields = LOG_FIELDS(log_text("server", server), log_text("error", end->reason));
    if (!is_news)
        return;
    report->is_reported = true;
    if (by_server) {
        (void)snprintf(report->refusal, sizeof report->refusal, "%s", end->reason);
        if (!end->was_up && strcmp(logged_refusal, report->refusal) == 0)
            return;
        memcpy(logged_refusal, report->refusal, sizeof logged_refusal);
    }
    if (end->was_up)
        log_error(fields, "Redis connection lost");
    else if (end->refused)
        log_error(fields, "Redis refuses; trying again");
    else
        log_error(fields, "Redis cannot be reached; trying again");
}

void redis_report_up(struct redis_report *report, unsigned attempts, int64_t away_ms)
{
    if (!report->is_second) {
        logged_refusal[0] = '\0';
        if (report->was_up)
            log_info(LOG_FIELDS(log_number("attempts", attempts)), "Redis connection back after %.1f s",
                     (double)away_ms / 1000);
        else
            log_info(NULL, "Redis connected");
    }
    *report = (struct redis_report){.is_second = report->is_second, .was_up = true};
}
