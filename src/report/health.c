/* SPDX-License-Identifier: MIT */
/* The JSON of /readyz, /health/redis and /status. */
#include "promptd/health.h"
#include "promptd/json.h"

#include <unistd.h>

#include "promptd/version.h"

enum { HEALTH_DEGRADED_FAILURES = 3 };

size_t health_not_ready(const struct health *health, const char *reasons[HEALTH_REASONS_MAX])
{
    size_t count = 0;
    if (health->draining)
        reasons[count++] = "promptd is stopping";
    if (!health->metrics->subscribed)
        reasons[count++] = health->source.keeps_queue ? "no messages are taken from Redis"
                                                      : "not subscribed to the channel in Redis";
    else if (!health->source.heartbeat_is_well)
        reasons[count++] = "Redis has not answered the last heartbeat";
    if (!health->metrics->database_up)
        reasons[count++] = "the database does not answer, or takes no writes";
    return count;
}

static void append_reasons(struct buffer *buffer, const char *key, const struct health *health)
{
    const char *reasons[HEALTH_REASONS_MAX];
    size_t count = health_not_ready(health, reasons);
    json_open(buffer, key, '[');
    for (size_t i = 0; i < count; i++)
        json_text(buffer, NULL, reasons[i]);
    json_close(buffer, ']');
}

void health_append_readiness(const struct health *health, struct buffer *buffer)
{
    const char *reasons[HEALTH_REASONS_MAX];
    json_open(buffer, NULL, '{');
    json_text(buffer, "status", health_not_ready(health, reasons) == 0 ? "ready" : "not ready");
    append_reasons(buffer, "reasons", health);
    json_close(buffer, '}');
}

/* --- Redis ------------------------------------------------------------------------------------------------------ */

static const char *redis_verdict(const struct health *health)
{
    if (health->draining)
        return "stopped";
    if (health->source.circuit_is_open)
        return "unhealthy";
    return health->source.failures >= HEALTH_DEGRADED_FAILURES ? "degraded" : "healthy";
}

/* By the wall clock as it is set now. */
static void append_time(struct buffer *buffer, const char *key, const struct health *health, int64_t at_ms)
{
    json_time(buffer, key, at_ms ? at_ms + health->wall_ms : 0);
}

static double seconds(int64_t ms)
{
    return (double)ms / 1000;
}

void health_append_redis(const struct health *health, struct buffer *buffer)
{
    const struct metrics *m = health->metrics;
    const struct source_status *source = &health->source;
    json_open(buffer, NULL, '{');
    json_text(buffer, "status", redis_verdict(health));
    json_boolean(buffer, "listener_running", !health->draining);
    json_boolean(buffer, "circuit_breaker_open", source->circuit_is_open);
    json_number(buffer, "failures", source->failures);
    json_number(buffer, "max_failures", health->max_failures);
    json_number(buffer, "total_messages_processed", m->success + m->duplicate + m->failure + m->rejected + m->dropped);
    append_time(buffer, "last_health_check", health, (int64_t)source->last_alive_ms);
    append_time(buffer, "last_message_received", health, source->last_message_ms);
    if (source->last_message_ms)
        json_decimal(buffer, "time_since_last_message_seconds", seconds(health->now_ms - source->last_message_ms));
    else
        json_text(buffer, "time_since_last_message_seconds", NULL);
    json_decimal(buffer, "uptime_seconds", seconds(health->now_ms - health->started_ms));
    json_open(buffer, "subscribed_channels", '[');
    if (m->subscribed)
        json_text(buffer, NULL, health->channel);
    json_close(buffer, ']');
    append_time(buffer, "timestamp", health, health->now_ms);
    json_close(buffer, '}');
}

/* --- the whole state -------------------------------------------------------------------------------------------- */

static void append_process(struct buffer *buffer, const struct health *health)
{
    json_text(buffer, "version", PROMPTD_VERSION);
    json_text(buffer, "state", health->draining ? "draining" : "running");
    append_time(buffer, "started_at", health, health->started_ms);
    append_time(buffer, "timestamp", health, health->now_ms);
    json_decimal(buffer, "uptime_seconds", seconds(health->now_ms - health->started_ms));
    json_number(buffer, "pid", (uint64_t)getpid());
    json_boolean(buffer, "ready", health->metrics->ready);
    append_time(buffer, "ready_since", health, health->ready_since_ms);
    append_reasons(buffer, "not_ready", health);
}

static void append_links(struct buffer *buffer, const struct health *health)
{
    const struct metrics *m = health->metrics;
    const struct source_status *source = &health->source;
    json_open(buffer, "redis", '{');
    json_text(buffer, "server", source->server);
    json_text(buffer, "channel", health->channel);
    json_text(buffer, "mode", source->mode);
    json_boolean(buffer, "connected", m->subscribed);
    json_boolean(buffer, "circuit_open", source->circuit_is_open);
    json_number(buffer, "failures", source->failures);
    append_time(buffer, "last_message_received", health, source->last_message_ms);
    append_time(buffer, "last_health_check", health, (int64_t)source->last_alive_ms);
    if (source->keeps_queue) {
        json_number(buffer, "backlog", source->backlog);
        json_number(buffer, "pending", source->pending);
        json_number(buffer, "consumers", source->consumers);
        json_number(buffer, "dead_letters", source->dead_letters);
    }
    json_number(buffer, "gaps", source->gaps);
    json_decimal(buffer, "gap_seconds", seconds((int64_t)source->gap_ms));
    json_close(buffer, '}');
    json_open(buffer, "database", '{');
    json_boolean(buffer, "up", m->database_up);
    json_boolean(buffer, "circuit_open", m->db_circuit_open);
    json_number(buffer, "connections", m->db_connections);
    json_number(buffer, "connections_wanted", health->db_connections_wanted);
    json_close(buffer, '}');
}

static void append_events(struct buffer *buffer, const struct health *health)
{
    if (!health->events.channel) {
        json_text(buffer, "events", NULL);
        return;
    }
    json_open(buffer, "events", '{');
    json_text(buffer, "channel", health->events.channel);
    json_boolean(buffer, "connected", health->events.connected);
    json_number(buffer, "waiting", health->events.waiting);
    json_close(buffer, '}');
}

static void append_waiting(struct buffer *buffer, const struct health *health)
{
    const struct metrics *m = health->metrics;
    json_open(buffer, "queue", '{');
    json_number(buffer, "messages", m->queue_messages);
    json_number(buffer, "bytes", m->queue_bytes);
    json_number(buffer, "max_messages", health->limits.max_messages);
    json_number(buffer, "max_bytes", health->limits.max_bytes);
    json_close(buffer, '}');
    if (!health->source.spool_directory) {
        json_text(buffer, "spool", NULL);
        return;
    }
    json_open(buffer, "spool", '{');
    json_text(buffer, "directory", health->source.spool_directory);
    json_number(buffer, "messages", m->spool_messages);
    json_number(buffer, "bytes", m->spool_bytes);
    json_number(buffer, "max_bytes", m->spool_max_bytes);
    json_number(buffer, "dead_letters", m->dead_letters);
    json_number(buffer, "dead_bytes", m->dead_letter_bytes);
    json_number(buffer, "dead_max_bytes", m->dead_letters_max_bytes);
    json_boolean(buffer, "writable", health->source.spool_is_writable);
    json_close(buffer, '}');
}

static void append_rejected_by(struct buffer *buffer, const struct metrics *metrics)
{
    json_open(buffer, "rejected_by", '{');
    for (int reason = REJECT_NONE + 1; reason < REJECT_COUNT; reason++)
        json_number(buffer, reject_name((enum reject_reason)reason), metrics->rejected_by[reason]);
    json_close(buffer, '}');
}

/* Every counter of the table, and what waits: with it they add up. */
static void append_counters(struct buffer *buffer, const struct metrics *metrics)
{
    json_open(buffer, "counters", '{');
    for (size_t i = 0; metrics_row(i); i++) {
        const struct metric *row = metrics_row(i);
        if (!row->member || row->kind == METRIC_GAUGE)
            continue;
        json_number(buffer, row->member, metrics_value(metrics, row));
        if (row->kind == METRIC_COUNTER_BY_REASON)
            append_rejected_by(buffer, metrics);
    }
    json_number(buffer, "waiting", metrics->waiting);
    json_close(buffer, '}');
}

static void append_history(struct buffer *buffer, const struct health *health)
{
    json_open(buffer, "history", '{');
    json_number(buffer, "interval_seconds", HISTORY_INTERVAL_S);
    json_open(buffer, "points", '[');
    const struct history_point *point;
    for (size_t i = 0; (point = history_at(health->history, i)); i++) {
        json_open(buffer, NULL, '{');
        append_time(buffer, "time", health, point->at_ms);
        json_number(buffer, "received", point->received);
        json_number(buffer, "stored", point->stored);
        json_number(buffer, "failed", point->failed);
        json_decimal(buffer, "p50_ms", point->p50_ms);
        json_decimal(buffer, "p99_ms", point->p99_ms);
        json_close(buffer, '}');
    }
    json_close(buffer, ']');
    json_close(buffer, '}');
}

static void append_orphans(struct buffer *buffer, const struct health *health)
{
    json_open(buffer, "orphans", '[');
    for (size_t i = 0; i < health->orphan_count; i++) {
        const struct open_orphan *orphan = &health->orphans[i];
        json_open(buffer, NULL, '{');
        json_uuid(buffer, "interview_id", orphan->interview_id);
        json_uuid(buffer, "prompt_id", orphan->prompt_id);
        append_time(buffer, "since", health, orphan->since_ms);
        json_close(buffer, '}');
    }
    json_close(buffer, ']');
}

static void append_recent_failures(struct buffer *buffer, const struct health *health)
{
    json_open(buffer, "troubles", '[');
    const struct recent_failure *failure;
    for (size_t i = 0; (failure = recent_failures_at(health->recent_failures, i)); i++) {
        json_open(buffer, NULL, '{');
        append_time(buffer, "time", health, failure->at_ms);
        json_text(buffer, "outcome", outcome_name(failure->outcome));
        json_uuid(buffer, "interview_id", failure->has_interview_id ? failure->interview_id : NULL);
        json_uuid(buffer, "prompt_id", failure->has_prompt_id ? failure->prompt_id : NULL);
        json_text(buffer, "reason", failure->why.text);
        json_text(buffer, "sqlstate", failure->why.sqlstate[0] ? failure->why.sqlstate : NULL);
        json_close(buffer, '}');
    }
    json_close(buffer, ']');
}

void health_append_status(const struct health *health, struct buffer *buffer)
{
    json_open(buffer, NULL, '{');
    append_process(buffer, health);
    append_links(buffer, health);
    append_events(buffer, health);
    append_waiting(buffer, health);
    json_text(buffer, "atomicity", health->atomicity);
    append_counters(buffer, health->metrics);
    append_history(buffer, health);
    append_orphans(buffer, health);
    append_recent_failures(buffer, health);
    json_close(buffer, '}');
}
