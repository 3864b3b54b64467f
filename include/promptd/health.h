/* SPDX-License-Identifier: MIT */
/* How promptd is: what the daemon knows of itself at one moment, and the JSON that people and programs get of it. */
#ifndef PROMPTD_HEALTH_H
#define PROMPTD_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/buffer.h"
#include "promptd/history.h"
#include "promptd/inbox.h"
#include "promptd/metrics.h"
#include "promptd/outcome.h"
#include "promptd/recent_failures.h"
#include "promptd/source.h"

enum { HEALTH_ORPHANS_MAX = 100, HEALTH_REASONS_MAX = 4 };

/* Filled anew for each look. All that it points to is borrowed; times are monotonic, 0 for never. */
struct health {
    bool draining;
    int64_t now_ms;
    int64_t started_ms;
    int64_t wall_ms;        /* what the wall clock adds to them: it may be set, and no age changes by that */
    int64_t ready_since_ms; /* when it became ready, or ceased to be */
    const char *atomicity;
    struct source_status source;
    const char *channel;
    unsigned max_failures; /* in a row, of the link to Redis, until its circuit opens */
    struct {
        const char *channel; /* NULL: there are none */
        bool connected;
        size_t waiting; /* not sent, or not answered */
    } events;
    size_t db_connections_wanted;
    struct inbox_limits limits;
    const struct metrics *metrics; /* its gauges are of this moment too */
    const struct recent_failures *recent_failures;
    const struct history *history;
    struct open_orphan orphans[HEALTH_ORPHANS_MAX];
    size_t orphan_count;
};

/* Why promptd is not ready, a phrase each, for people. Returns how many: 0 means ready. */
size_t health_not_ready(const struct health *health, const char *reasons[HEALTH_REASONS_MAX]);

void health_append_readiness(const struct health *health, struct buffer *buffer); /* GET /readyz */
void health_append_redis(const struct health *health, struct buffer *buffer);     /* GET /health/redis */
void health_append_status(const struct health *health, struct buffer *buffer);    /* GET /status */

#endif
