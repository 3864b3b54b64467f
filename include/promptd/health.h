/* SPDX-License-Identifier: MIT */
/* How promptd is: what the daemon knows of itself at one moment, and the JSON that people and programs get of it. */
#ifndef PROMPTD_HEALTH_H
#define PROMPTD_HEALTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "promptd/buffer.h"
#include "promptd/history.h"
#include "promptd/metrics.h"
#include "promptd/outcome.h"
#include "promptd/recent_failures.h"

enum { HEALTH_ORPHANS_MAX = 100, HEALTH_REASONS_MAX = 4 };

/* Filled anew for each look. All that it points to is borrowed; times are monotonic, 0 for never. */
struct health {
    bool draining;
    int64_t now_ms;
    int64_t started_ms;
    int64_t wall_ms;        /* what the wall clock adds to them: it may be set, and no age changes by that */
    int64_t ready_since_ms; /* when it became ready, or ceased to be */
    const char *atomicity;
    struct {
        char server[300];
        const char *channel;
        const char *mode;
        bool listening;  /* subscribed, or trying to be */
        bool subscribed; /* confirmed */
        bool heartbeat_is_well;
        bool keeps_queue;   /* a list or a stream: what waits there is known */
        uint64_t consumers; /* promptds that share it */
        bool circuit_open;
        unsigned failures; /* in a row */
        unsigned max_failures;
        int64_t last_message_ms;
        int64_t last_check_ms;
    } redis;
    struct {
        const char *channel; /* NULL: there are none */
        bool connected;
        size_t waiting; /* not sent, or not answered */
    } events;
    struct {
        bool up;
        bool circuit_open;
        size_t connections;
        size_t connections_wanted;
    } database;
    struct {
        size_t max_messages;
        size_t max_bytes;
    } queue;
    struct {
        const char *directory; /* NULL: there is no spool */
        bool writable;
    } spool;
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
